"""Lists of people too long for one line of the socket, put down part by part beside the spool.

``uploads/`` holds those that still grow, ``lists/`` those that a campaign has been given. A part is its
openids, one a line, and a last line ``=COUNT OFFSET``: how many people there are up to here, and where in
the file this line begins. What follows the last such line was never acknowledged, and is no part of the list.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fanoutd import folders
from fanoutd.errors import BadInput

#: Seconds after which one that nobody adds to or uses is dropped.
UNUSED = 3600.0

UPLOAD = re.compile(r"u-[0-9a-f]{20}")
_END = re.compile(rb"(?m)^=(\d{1,18}) (\d{1,18})\n")
#: Bytes from the end in which a last line is looked for first, and how much further each time.
_SPAN, _FURTHER = 64, 64


class UnknownUpload(BadInput):
    """There is no such upload, or not any more."""


class Uploads:
    """Within the folder ``path``, usually state_dir/spool. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._growing, self._lists = path / "uploads", path / "lists"

    def prepare(self, wanted: Callable[[str], bool]) -> None:
        """Make the folders; lists of campaigns that are not ``wanted`` were never acknowledged, or are planned."""
        for folder in (self._growing, self._lists):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self._lists.iterdir():
            if not wanted(file.name):
                file.unlink()

    def add(self, upload: str | None, openids: Sequence[str]) -> tuple[str, int]:
        """Append a part, to a new upload for None: (its name, people in it so far, repeated ones too).

        On return the part is on disk. Raises UnknownUpload, and OSError with the list as it was before.
        """
        name = upload or f"u-{os.urandom(10).hex()}"
        fd = self._open(name, os.O_RDWR | (0 if upload else os.O_CREAT | os.O_EXCL))
        try:
            end, count = _last(fd)
            if os.fstat(fd).st_nlink > 1:
                raise UnknownUpload(f"{name} was given to a campaign and takes nobody more; begin another upload")
            count += len(openids)
            part = "".join(f"{openid}\n" for openid in openids).encode()
            try:
                _write(fd, part + b"=%d %d\n" % (count, end + len(part)), end)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, end)
                raise
        finally:
            os.close(fd)
        return name, count

    def bind(self, upload: str, campaign: str) -> None:
        """Give its people to a campaign: from now on no expiry takes them. Durable on return.

        Raises UnknownUpload. May be repeated: only ``drop`` takes the upload's own name away.
        """
        fd = self._open(upload, os.O_RDWR)
        try:
            if _last(fd)[1] == 0:
                raise UnknownUpload(f"{upload} has nobody in it")
        finally:
            os.close(fd)
        self.unbind(campaign)
        os.link(self._growing / upload, self._lists / campaign)
        with folders.opened(self._lists) as lists:
            os.fsync(lists)

    def unbind(self, campaign: str) -> None:
        """The campaign was refused after all, or its plan is complete."""
        (self._lists / campaign).unlink(missing_ok=True)

    def drop(self, upload: str) -> None:
        """Forget its name; a campaign that has its people keeps them."""
        with contextlib.suppress(OSError):  # it expires then
            (self._growing / upload).unlink(missing_ok=True)

    def people(self, upload: str, campaign: str) -> Iterator[str]:
        """Everybody whose part was acknowledged, streamed: the campaign's, or as long as it has none the upload's.

        Raises UnknownUpload at once.
        """
        for file in (self._lists / campaign, self._growing / upload):
            with contextlib.suppress(FileNotFoundError):
                return _people(file.open("rb"))
        raise _unknown(upload)

    def expire(self, now_s: float | None = None) -> int:
        """Drop those unused for an hour; how many."""
        old = [entry for entry in os.scandir(self._growing) if _is_old(entry.stat(), now_s)]
        for entry in old:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
        return len(old)

    def _open(self, upload: str, flags: int) -> int:
        if not UPLOAD.fullmatch(upload):  # never leads out of its folder
            raise _unknown(upload)
        try:
            fd = os.open(self._growing / upload, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not self._growing.is_dir():
                raise
            raise _unknown(upload) from None
        if _is_old(os.fstat(fd), None):
            os.close(fd)
            raise _unknown(upload)
        return fd


def _unknown(upload: str) -> UnknownUpload:
    return UnknownUpload(f"there is no upload {upload[:40]!r}; one is dropped after an hour unused, begin another")


def _is_old(found: os.stat_result, now_s: float | None) -> bool:
    return found.st_mtime < (time.time() if now_s is None else now_s) - UNUSED


def _last(fd: int) -> tuple[int, int]:
    """(where the last whole part ends, people up to there): what is read is bounded by what a torn part left."""
    size, span = os.fstat(fd).st_size, _SPAN
    while size:
        start = max(0, size - span)
        for found in reversed(list(_END.finditer(os.pread(fd, size - start, start)))):
            if int(found[2]) == start + found.start():
                return start + found.end(), int(found[1])
        if not start:
            break
        span *= _FURTHER
    return 0, 0


def _write(fd: int, data: bytes, at: int) -> None:
    os.ftruncate(fd, at)
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
    os.fsync(fd)


def _people(stream: BinaryIO) -> Iterator[str]:
    part: list[str] = []
    count = offset = 0
    with stream:
        for line in stream:
            if not line.startswith(b"="):
                part.append(line[:-1].decode("ascii", "replace"))
            elif line == b"=%d %d\n" % (count + len(part), offset):
                yield from part
                count, part = count + len(part), []
            else:
                return
            offset += len(line)
