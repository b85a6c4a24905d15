"""Lists of people from a file or standard input, one openid a line, of any length: never all of it in memory."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import IO, Any

from fanoutd.cli.common import connected
from fanoutd.config import Config
from fanoutd.errors import BadInput, Unreachable
from fanoutd.ids import OPENID

#: People in one part of an upload, at most: the daemon looks at each of them before it answers.
_PART = 10_000
#: Bytes of JSON that an openid costs beyond itself, and a request beyond its openids.
_QUOTES, _REQUEST = 3, 300
#: For how long a daemon that is away in the middle of an upload is waited for, in seconds.
_PATIENCE = 30.0


def read(file: str) -> Iterator[str]:
    """The openids: the first column, without a heading. Raises BadInput for what is none, and when there is nobody."""
    found = False
    for number, line in enumerate(_lines(file), 1):
        text = line.split(",")[0].strip().strip('"')
        if not text or (number == 1 and text.lower() == "openid"):
            continue
        if not OPENID.fullmatch(text):
            raise BadInput(f"{name(file)}: line {number}: no openid: 6 to 64 of A-Z a-z 0-9 _ - are wanted")
        found = True
        yield text
    if not found:
        raise BadInput(f"{name(file)}: no openid in it; one a line is wanted")


def _lines(file: str) -> Iterator[str]:
    try:
        with _opened(file) as stream:
            yield from stream
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{name(file)}: not UTF-8 text") from None


def _opened(file: str) -> IO[str]:
    if file == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
    return open(file, encoding="utf-8-sig")


def name(file: str) -> str:
    """As people know it."""
    return "standard input" if file == "-" else file


def parts(openids: Iterable[str], room: int) -> Iterator[list[str]]:
    """Lists of at most so many bytes of JSON and ``_PART`` people."""
    part: list[str] = []
    left = room
    for openid in openids:
        left -= len(openid) + _QUOTES
        if part and (left < 0 or len(part) == _PART):
            yield part
            part, left = [], room - len(openid) - _QUOTES
        part.append(openid)
    if part:
        yield part


#: Adds people to an upload, None for a new one; its name.
Add = Callable[[str | None, list[str]], str]


def params(config: Config, file: str, size: int, away: Add | None = None) -> dict[str, Any]:
    """Parameters for a submission that has ``size`` bytes without them: the list, or an upload for one too long.

    ``away`` does what the daemon would, from where it cannot be reached any more.
    """
    room = config.daemon.max_request - _REQUEST
    whole = parts(read(file), room)
    first = next(whole)
    second = next(whole, None)
    if second is None and len(json.dumps(first)) + size <= room:
        return {"openids": first}
    return {"upload": _upload(partial(_add, config), chain([first], [second] if second else [], whole), away)}


def _upload(add: Add, whole: Iterable[list[str]], away: Add | None) -> str:
    upload = None
    for part in whole:
        try:
            upload = add(upload, part)
        except Unreachable:
            if away is None or add is away:
                raise
            add = away
            upload = add(upload, part)
    assert upload is not None, "there is one part at least"
    return upload


def _add(config: Config, upload: str | None, part: list[str]) -> str:
    """Over restarts of the daemon. A part whose answer was lost goes out again: nobody is sent to twice for that."""
    end = time.monotonic() + (_PATIENCE if upload else 0.0)
    while True:
        try:
            with connected(config) as connection:
                added: str = connection.call("audience.upload", upload=upload, openids=part)["upload"]
                return added
        except Unreachable:
            if time.monotonic() >= end:
                raise
            time.sleep(0.2)
