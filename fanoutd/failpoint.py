"""Places at which a test may have a process die, by name: the edges between what is durable and what is done.

``FANOUTD_FAIL=after_S@17`` in the environment kills, with SIGKILL, the process that passes ``after_S`` for
the 17th time; without ``@`` the first time. ``FANOUTD_FAIL_ONCE`` names a file that is made before: whoever
finds it there lives on, so that the next process gets further. Unset, a place costs a truth test.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

#: Every place on a message's way, with what is durable when it is passed.
PLACES = {
    "before_accept": "the submission lies in spool/tmp",
    "after_accept": "the submission lies in spool/new; its client has not been answered",
    "after_import": "the campaign is in the store, its file still in the spool",
    "mid_plan": "some of the audience are in shards",
    "after_plan": "all of the audience are in shards, the campaign does not know it yet",
    "before_claim": "nothing of this window",
    "after_claim": "the window is claimed, nobody in it was sent to",
    "after_S": "S is written, nothing of the body has left",
    "after_write": "S is written, the body has left",
    "after_reply": "WeChat has answered; R is not written",
    "after_R": "R is written",
    "before_record": "as many R as the interval brought, none of it in the store",
    "after_record": "recorded; the campaign may not know that it is over",
    "mid_recovery": "some of a dead worker's people are settled",
    "after_recovery": "all of them are settled, the journal is still there",
}

#: The same of what is done beside it.
UPKEEP = {
    "mid_retention": "the campaign is gone from the store, some of its people are still in it",
    "mid_digest": "the digest is among the mails to be sent; the store does not know that it is",
}

_wanted, _, _after = os.environ.get("FANOUTD_FAIL", "").partition("@")
_once = os.environ.get("FANOUTD_FAIL_ONCE", "")
_passed: Counter[str] = Counter()
armed = bool(_wanted)


def reach(place: str) -> None:
    """Passing ``place``."""
    if armed:
        _pass(place)


def _pass(place: str) -> None:
    if place != _wanted:
        return
    _passed[place] += 1
    if _passed[place] < int(_after or 1):
        return
    if _once:
        try:
            os.close(os.open(_once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
