"""What one program of the master hands to the next through an exec: everything that is open.

The document lies in a memfd whose number stands in the environment; the descriptors that it names stay
open under their numbers. A rehearsal is given the document too, and reads it, but touches nothing.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

TAKEOVER, REHEARSAL = "FANOUTD_TAKEOVER", "FANOUTD_REHEARSAL"
#: What a program must understand to take over from one of this version.
_FORMAT = 1

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estate:
    """``document`` is what ``Master.bequeath`` wrote."""

    document: Document
    rehearsal: bool


def to_text(data: bytes | bytearray) -> str:
    """Bytes, as JSON can carry them."""
    return base64.b64encode(data).decode("ascii")


def to_bytes(text: str) -> bytes:
    return base64.b64decode(text)


def write(document: Document) -> int:
    """The descriptor of a memfd that holds the document; it is closed by an exec unless made inheritable."""
    fd = os.memfd_create("fanoutd-takeover", os.MFD_CLOEXEC)
    data = json.dumps({"format": _FORMAT, **document}).encode()
    os.ftruncate(fd, len(data))
    os.pwrite(fd, data, 0)
    return fd


def received(environ: MutableMapping[str, str]) -> Estate | None:
    """What our predecessor left, None when there is none. Raises ValueError for what is not understood."""
    for name in (TAKEOVER, REHEARSAL):
        number = environ.pop(name, None)
        if number is not None:
            return Estate(_read(int(number)), name == REHEARSAL)
    return None


def _read(fd: int) -> Document:
    document: Document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    if document["format"] != _FORMAT:
        raise ValueError(f"what the running program hands over has format {document['format']}, not {_FORMAT}")
    return document


def descriptors(value: Any) -> Iterable[int]:
    """Every number that stands under ``fd`` anywhere in the document."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "fd":
                yield each
            else:
                yield from descriptors(each)
    elif isinstance(value, list):
        for each in value:
            yield from descriptors(each)
