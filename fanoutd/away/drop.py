"""The drop folder: what clients leave for a daemon that they cannot reach when they may not write in its spool.

A file is the one line that would have gone to the socket: a request ``campaign.submit``, or a bare submission, with a
key. Its name is 32 hexadecimal digits, and it has it only when it is whole. Who left it is told by its owner, which the
kernel knows; what it says is checked as everything is that comes by the socket.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanoutd import folders
from fanoutd.errors import BadInput
from fanoutd.ids import keyed_campaign_id
from fanoutd.lines import encode

#: A folder for others than the daemon's user: the group may leave files, but neither list nor remove those of others.
SHARED, OWN = 0o1730, 0o700

_NAME = re.compile(r"[0-9a-f]{32}")
_HALF = re.compile(r"[0-9a-f]{32}\.half")
#: Seconds after which a file that is not whole yet was left by a client that died.
_LEFT = 3600.0
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Left:
    """``data``, and ``uid``, whose it is by the kernel's word."""

    uid: int
    data: bytes


class NotTaken(BadInput):
    """What was left cannot be read; ``uid`` is whose it is. ``mendable``: by giving it another mode."""

    def __init__(self, words: str, uid: int, mendable: bool = False) -> None:
        super().__init__(words)
        self.uid, self.mendable = uid, mendable


def new_key() -> str:
    return f"once-{os.urandom(10).hex()}"


def campaign_of(account: str, params: Mapping[str, Any]) -> str:
    """The id that the daemon will give it."""
    keyed = keyed_campaign_id(account, params["key"])
    return keyed if params.get("cron") is None else f"r-{keyed[2:]}"


def leave(folder: Path, params: Mapping[str, Any]) -> None:
    """Leave a submission there. On return it outlives a power failure. Raises OSError with nothing left."""
    data = encode({"jsonrpc": "2.0", "id": os.getpid(), "method": "campaign.submit", "params": params})
    name = os.urandom(16).hex()
    half = f"{name}.half"
    # Not to be read, only to be searched: the folder may let us no more.
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # For the daemon's user too: no name in the folder can be guessed, and its group alone may look for one.
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=here)
        try:
            with open(fd, "wb", buffering=0, closefd=False) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view):]
            os.fchmod(fd, 0o644)
            os.fsync(fd)
            os.rename(half, name, src_dir_fd=here, dst_dir_fd=here)
            _sync_file_system(fd)  # the new name too: the folder itself cannot be opened for fsync
        except BaseException:
            for each in (half, name):
                with suppress(OSError):
                    os.unlink(each, dir_fd=here)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(here)


def _sync_file_system(fd: int) -> None:
    if _libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Drop:
    """The daemon's side of the folder. Every method raises OSError."""

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder, self._largest = folder, largest

    def waiting(self, now_s: float | None = None) -> list[str]:
        """The names of what is whole, oldest first. What was never finished goes after an hour."""
        found = []
        now = time.time() if now_s is None else now_s
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:
            return []
        for entry in entries:
            with suppress(FileNotFoundError):
                at = entry.stat(follow_symlinks=False).st_mtime
                if _NAME.fullmatch(entry.name):
                    found.append((at, entry.name))
                elif _HALF.fullmatch(entry.name) and at < now - _LEFT:
                    os.unlink(entry.path)
        return [name for _, name in sorted(found)]

    def read(self, name: str) -> Left | None:
        """None when it is gone. Raises NotTaken."""
        with folders.opened(self.folder) as here:
            try:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=here)
            except FileNotFoundError:
                return None
            except PermissionError:
                raise NotTaken("may not be read: it wants the mode 0644", found.st_uid, mendable=True) from None
            except OSError as e:  # a link, a socket
                raise NotTaken(f"cannot be read: {e.strerror}", found.st_uid) from None
            opened = os.fstat(fd)
            if not stat.S_ISREG(opened.st_mode) or opened.st_nlink > 1:
                os.close(fd)
                raise NotTaken("is no file of its own", opened.st_uid)  # a link would lend it its owner's name
            if opened.st_mode & 0o022:  # what it says need not be its owner's word
                os.close(fd)
                raise NotTaken("may be written by others: it wants the mode 0644", opened.st_uid, mendable=True)
            with open(fd, "rb") as file:
                data = file.read(self._largest + 1)
        if len(data) > self._largest:
            raise NotTaken(f"is longer than max_request = {self._largest} bytes", opened.st_uid)
        return Left(opened.st_uid, data)

    def remove(self, name: str) -> None:
        """It is taken, or will never be."""
        with folders.opened(self.folder) as here, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)
            os.fsync(here)
