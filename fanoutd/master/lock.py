"""The lock that says a daemon lives: flock on its pidfile, and on a file in its state directory.

The kernel lets go of it when the master dies, however it dies; a pidfile alone proves nothing. The
second lock is there because a pidfile can be deleted under a living daemon.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from fanoutd.config import Daemon
from fanoutd.errors import NotNow, NotPermitted, Unreachable

_TRIES = 10
_PAUSE = 0.02  # `status` looks at a lock by taking it for a moment


def files(daemon: Daemon) -> tuple[Path, Path]:
    """The two files that a daemon of this configuration locks."""
    return daemon.pidfile, daemon.state_dir / "lock"


class Lock:
    """One locked file, held until closed."""

    def __init__(self, path: Path, fd: int | None = None) -> None:
        """``fd``: the descriptor by which the program before us holds it already.

        Raises NotNow when another daemon holds it, NotPermitted when it cannot be opened.
        """
        self.path = path
        try:
            self._fd = _locked(path) if fd is None else fd
        except BlockingIOError:
            raise NotNow(f"{_holder_in_words(path)} holds {path}; `fanoutd stop` ends it") from None
        except OSError as e:
            raise NotPermitted(f"{path}: {e.strerror}; choose a folder that you may write to") from None

    def fileno(self) -> int:
        return self._fd

    def write_pid(self) -> None:
        """Last of all at start: who reads the pid finds a daemon that listens."""
        if os.geteuid() == 0:
            os.fchown(self._fd, 0, -1)  # one that another user's daemon left: its owner tells who may be signalled
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def close(self, unlink: bool = False) -> None:
        """Let go; with ``unlink`` take the file away, if it is still ours."""
        if unlink and _same(self._fd, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._fd)


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of the file now at this path. Raises OSError."""
    for _ in range(_TRIES):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(fd, path):  # else: unlinked by its last holder, between our open and our lock
                return fd
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    raise BlockingIOError(errno.EAGAIN, "locked")


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _holder_in_words(path: Path) -> str:
    pid = pid_in(path)
    return f"another fanoutd (pid {pid})" if pid else "another fanoutd"


def pid_in(path: Path) -> int | None:
    """What the file bears; whether that process lives, or is a daemon, it does not say."""
    try:
        fd = _open_to_read(path)
    except OSError:
        return None
    try:
        text = os.read(fd, 32).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _open_to_read(path: Path) -> int:
    """Without waiting: root must not hang on a pipe that the daemon's user put there. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock. Raises OSError when the file may not be read."""
    try:
        fd = _open_to_read(path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@dataclass(frozen=True, slots=True)
class Running:
    """A living master, held by a pidfd: a signal can never reach a stranger with a reused pid."""

    pid: int
    pidfd: int

    def send(self, number: int = signal.SIGTERM) -> None:
        """Raises ProcessLookupError when it has ended, NotPermitted when it is somebody else's."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except PermissionError:
            raise NotPermitted(f"may not signal pid {self.pid}; do it as its user or as root") from None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within this time."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        os.close(self.pidfd)


def running(daemon: Daemon) -> Running | None:
    """The daemon of this configuration, None when none is alive (a pidfile may be left, which is stale).

    Raises NotPermitted, and NotNow when it is just starting and has not written its pid.
    """
    for path in files(daemon):
        try:
            if is_held(path):
                return _opened(path)
        except OSError as e:
            raise NotPermitted(f"{path}: {e.strerror}; ask as root or as the daemon's user") from None
    return None


def _opened(path: Path) -> Running | None:
    """The pidfd first, then the lock again: the pid cannot have changed hands in between."""
    pid = pid_in(path)
    if pid is None:
        raise NotNow(f"{path} is locked, but bears no pid yet: the daemon is starting; try again")
    try:
        found = Running(pid, os.pidfd_open(pid))
    except OSError:  # ESRCH; EINVAL of one that is just ending
        return None
    if not is_held(path) or pid_in(path) != pid:
        found.close()
        return None
    if os.geteuid() == 0 and _a_strangers(pid, path):
        found.close()
        raise NotPermitted(f"{path} bears the pid {pid} of a process that is not its owner's; it is left alone")
    return found


def _a_strangers(pid: int, path: Path) -> bool:
    """Whether the process is not the file's owner's: root would signal whatever pid that one writes there."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
        owner = path.stat().st_uid
    except OSError:
        return False  # one of them has just gone; a signal through the pidfd reaches nobody else
    return owner not in {int(line.split()[1]) for line in lines if line.startswith("Uid:")}


def stop_daemon(daemon: Daemon, patience: float) -> None:
    """Ask the daemon to stop (SIGTERM) and return when it has ended.

    Raises Unreachable when none is alive, NotNow when it has not ended within ``patience`` seconds.
    """
    found = running(daemon)
    if found is None:
        raise Unreachable(f"no daemon is running: nobody holds {daemon.pidfile}")
    try:
        found.send(signal.SIGTERM)
        if not found.wait(patience):
            raise NotNow(f"pid {found.pid} has not ended within {patience:g} s; see its log")
    except ProcessLookupError:
        return
    finally:
        found.close()
