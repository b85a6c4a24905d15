"""Where a check keeps what the next one must know, and the lock that has one of them act at a time.

Root writes here in a folder that is the daemon user's: no link is followed, and what was there before is replaced,
never written to.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fanoutd import folders
from fanoutd.errors import NotPermitted

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST = 1 << 20
_NOTHING_TAKEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_LOOK = 0.1


class Place:
    """A folder. Every method raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[bool]:
        """Whether the lock of this name is ours, within so many seconds."""
        with folders.opened(self.folder) as here:
            fd = _lock_file(here, name)
        try:
            yield _taken(fd, time.monotonic() + seconds)
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes:
        """Empty when it is not there."""
        with folders.opened(self.folder) as here:
            try:
                fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=here)
            except FileNotFoundError:
                return b""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return b""
        with open(fd, "rb") as file:
            return file.read(_LARGEST)

    def write(self, name: str, data: bytes) -> None:
        """In one piece, also over a power failure."""
        half = f"{name}.{os.getpid()}"
        with folders.opened(self.folder) as here:
            with suppress(FileNotFoundError):
                os.unlink(half, dir_fd=here)
            try:
                with open(_made(here, half), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(half, name, src_dir_fd=here, dst_dir_fd=here)
            except BaseException:  # a disk that is full is not to be littered besides
                with suppress(OSError):
                    os.unlink(half, dir_fd=here)
                raise

    def remove(self, name: str) -> None:
        with folders.opened(self.folder) as here, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)


def of(state_dir: Path | None) -> Place:
    """The state directory; who may not write there, or has none, has ``fanoutd-UID-…`` in the folder for temporary
    files, one for each state directory. Raises NotPermitted.
    """
    if state_dir is not None and os.access(state_dir, os.R_OK | os.W_OK | os.X_OK):
        return Place(state_dir)
    return aside(state_dir)


def aside(state_dir: Path | None) -> Place:
    """The one in the folder for temporary files. Raises NotPermitted."""
    folder = _aside(state_dir)
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as e:
        raise NotPermitted(f"{folder}: {e.strerror}; call it as root or as the daemon's user") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise NotPermitted(f"{folder}: somebody else put that there; call it as root or as the daemon's user")
    return Place(folder)


def _aside(state_dir: Path | None) -> Path:
    of_which = hashlib.blake2b(os.fsencode(state_dir or ""), digest_size=4).hexdigest()
    return Path(tempfile.gettempdir()) / f"fanoutd-{os.geteuid()}-{of_which}"


def read_newest(kept: Place, name: str) -> bytes:
    """What ``write_somewhere`` wrote last. Raises OSError."""
    found = kept.read(name)
    if _aside(kept.folder).is_dir():
        with suppress(OSError, NotPermitted):
            found = aside(kept.folder).read(name) or found
    return found


def write_somewhere(kept: Place, name: str, data: bytes) -> None:
    """There, or aside while that disk takes nothing: what a daemon died of may be just that. Raises OSError,
    NotPermitted."""
    try:
        kept.write(name, data)
    except OSError as e:
        if e.errno not in _NOTHING_TAKEN:
            raise
        aside(kept.folder).write(name, data)
        return
    if _aside(kept.folder).is_dir():
        with suppress(OSError, NotPermitted):
            aside(kept.folder).remove(name)


def _made(here: int, name: str) -> int:
    """A new file, of the folder's owner. Raises FileExistsError."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=here)
    if os.geteuid() == 0:
        owner = os.fstat(here)
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd


def _lock_file(here: int, name: str) -> int:
    try:
        return _made(here, name)
    except FileExistsError:
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=here)


def _taken(fd: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK)
