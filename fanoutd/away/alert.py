"""The alert of a client that found no daemon: one mail for all of them within a minute."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fanoutd.away.post import send
from fanoutd.checking import place
from fanoutd.checking.verdict import clean
from fanoutd.config import Mail
from fanoutd.config.addresses import address, addresses
from fanoutd.config.smtp_url import smtp_url
from fanoutd.mail.event import Event
from fanoutd.mail.letter import Letterhead
from fanoutd.mail.smtp import Patience
from fanoutd.times import local_ms

#: Somebody waits for an answer.
PATIENCE = Patience(connect=3.0, answer=8.0, whole=15.0)

_STAMPS, _LOCK = "alerts.json", "alerts.lock"
#: Milliseconds within which equal alerts make one mail; seconds for which another one's mail is waited for.
_EQUAL, _WAIT = 60_000, 20.0


def mailed(
    smtp: str, sender: str, to: Sequence[str], node: str | None = None, patience: Patience = PATIENCE
) -> Callable[[str, bool], None]:
    """For ``Client(…, alert=…)``: a mail by this server, ``smtp``, ``sender`` and ``to`` as in ``[mail]``.

    ``node`` is this machine in the subject. What it returns raises OSError, FanoutdError. Raises ValueError.
    """
    mail = Mail(smtp_url(smtp), address(sender), addresses(list(to)))
    head = Letterhead(node or os.uname().nodename, mail, mail.secrets())

    def tell(why: str, kept: bool) -> None:
        alert(None, why, kept, lambda event: send(head, event, patience))

    return tell


def alert(state_dir: Path | None, why: str, kept: bool, post: Callable[[Event], None]) -> bool:
    """Have it mailed that the daemon is away, ``why``, and whether what was to be sent is kept; whether it was.

    False: an equal one was mailed less than a minute ago, by somebody with the same ``state_dir`` (None: by this user).
    Raises OSError, FanoutdError, and then the next one mails.
    """
    stamps = place.of(state_dir)
    event = _event(why, kept, local_ms())
    with stamps.locked(_LOCK, _WAIT):  # after that a mail too many does less harm than none
        known = _known(stamps.read(_STAMPS))
        if 0 <= event.at - known.get(event.subject, 0) < _EQUAL:
            return False
        post(event)
        recent = {subject: at for subject, at in known.items() if event.at - at < _EQUAL}
        stamps.write(_STAMPS, json.dumps({**recent, event.subject: event.at}).encode())
    return True


def _known(data: bytes) -> dict[str, int]:
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return {key: at for key, at in said.items() if isinstance(at, int)} if isinstance(said, dict) else {}


def _event(why: str, kept: bool, at: int) -> Event:
    subject = f"ALERT: daemon not reachable, submission {'kept' if kept else 'NOT kept'}"
    if kept:
        fate = (
            "What was to be sent is on disk. The daemon takes it up when it is back, and sends it once: nobody has to "
            "submit it again, and who does so under the same key sends nothing twice."
        )
    else:
        fate = "What was to be sent is NOT kept: it must be submitted again when the daemon is back."
    text = (
        f"A client found no daemon: {clean(why)}.\n\n{fate}\n\n"
        "Further alerts like this one within a minute make no further mail.\n\n"
        "To do: `fanoutd check` says how the daemon is; its log, why.\n"
    )
    return Event(f"away-{'kept' if kept else 'lost'}-{at}-{os.getpid()}", "", subject, subject, text, None, at)
