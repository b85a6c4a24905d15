"""A mail sent at once, by whoever found the daemon away: it cannot send it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fanoutd import identity
from fanoutd.config import Config, Mail, addresses
from fanoutd.errors import FanoutdError
from fanoutd.mail.event import Event
from fanoutd.mail.letter import Letterhead, compose, letterhead, wire
from fanoutd.mail.smtp import NotSent, Patience, Unclear, session


class NotMailed(FanoutdError):
    """The mail server did not take it, or nobody knows whether it did."""


def node_of(state_dir: Path) -> str:
    """As the daemon called itself last; the host's name where that is not known."""
    return identity.name_in(state_dir) or os.uname().nodename


def post(config: Config, mail: Mail, node: str, event: Event, patience: Patience) -> None:
    """Raises NotMailed."""
    send(letterhead(config, mail, node), event, patience)


def send(head: Letterhead, event: Event, patience: Patience) -> None:
    """Raises NotMailed. The same event has the same Message-ID: one that is sent again can be known by it."""
    sender, *to = (addresses.split(each)[1] for each in (head.mail.sender, *head.mail.to))
    try:
        with session(head.mail.relay, patience) as opened:
            opened.send(sender, to, wire(compose([event], head, time.time())))
    except (NotSent, Unclear) as e:
        raise NotMailed(f"not mailed: {e}") from None
