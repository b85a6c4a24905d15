"""Something that happened and that whoever runs the daemon shall hear of."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

#: Names of events are names of files.
_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclass(frozen=True, slots=True)
class Event:
    """``id``: the same event has the same one, and is mailed once. ``kind``: events of one kind that come together make
    one mail; an empty kind goes by itself. ``subject`` is that of the mail, without ``[fanoutd NODE]``; ``line`` tells
    the event in one line, for a mail of several; ``text`` and ``html`` are the mail's body, ``html`` None for none;
    ``at`` is milliseconds since 1970. None of them may hold a secret or a list of openids.
    """

    id: str
    kind: str
    subject: str
    line: str
    text: str
    html: str | None
    at: int

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or self.id.startswith("."):
            raise ValueError(f"{self.id!r} cannot be the name of a file")

    def encode(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode()


def decode(data: bytes) -> Event:
    """Raises ValueError for what is no event."""
    try:
        return Event(**json.loads(data))
    except TypeError as e:
        raise ValueError(str(e)) from None
