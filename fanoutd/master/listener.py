"""The socket that clients connect to: bound so that it is never there half-made, and never stolen."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from fanoutd.errors import BadConfig, NotNow, NotPermitted

_BACKLOG = 1024
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Listener:
    """A non-blocking listening socket at ``path``, with exactly this mode."""

    def __init__(self, path: Path, mode: int) -> None:
        """Raises NotNow when somebody listens there, BadConfig or NotPermitted when it cannot be."""
        self.path = path
        _refuse_taken(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._inode = _bind(self._sock, path, mode)
        except OSError as e:
            self._sock.close()
            raise NotPermitted(f"{path}: {e.strerror}; choose a folder that you may write to") from None

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> socket.socket | None:
        """The next client, None when there is none. Raises OSError when descriptors have run out."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Stop listening; take the name away if it is still ours."""
        try:
            if _inode(self.path) == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            pass
        self._sock.close()


def peer(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process that connected."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _refuse_taken(path: Path) -> None:
    """A socket on which somebody listens is taken, even if he does not answer."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadConfig(f"[daemon] socket: {path} is there and is no socket; move it or choose another")
    except FileNotFoundError:
        return
    except OSError as e:
        raise NotPermitted(f"{path}: {e.strerror}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left by a daemon that was killed
        except BlockingIOError:
            pass  # his queue is full
        except OSError as e:
            raise NotPermitted(f"{path}: {e.strerror}") from None
    raise NotNow(f"somebody listens on {path}; stop him first, or choose another [daemon] socket")


def _bind(sock: socket.socket, path: Path, mode: int) -> tuple[int, int]:
    """Bind beside, set the mode, listen, then rename into place: the name never stands for less."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    sock.bind(str(beside))
    try:
        beside.chmod(mode)
        sock.listen(_BACKLOG)
        os.rename(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return _inode(path)


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
