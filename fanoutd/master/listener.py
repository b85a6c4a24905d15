"""The socket that clients connect to: bound so that it is never there half-made, and never stolen."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import MutableMapping
from pathlib import Path

from fanoutd.errors import BadConfig, NotNow, NotPermitted
from fanoutd.master.takeover import Document

_BACKLOG = 1024
_FIRST_PASSED = 3  # sd_listen_fds(3)
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Listener:
    """A non-blocking listening socket. ``inode`` is that of the name which is taken away at the end, None
    for a name that is somebody else's: systemd's, say."""

    def __init__(self, sock: socket.socket, path: Path, inode: tuple[int, int] | None) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._sock.set_inheritable(False)
        self._inode = inode
        self.path = path

    @classmethod
    def bound(cls, path: Path, mode: int, gid: int | None = None) -> Listener:
        """Listen at ``path``, with exactly this mode and this group.

        Raises NotNow when somebody listens there, BadConfig or NotPermitted when it cannot be.
        """
        _refuse_taken(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            return cls(sock, path, _bind(sock, path, mode, gid))
        except OSError as e:
            sock.close()
            raise NotPermitted(f"{path}: {e.strerror}; choose a folder that you may write to") from None

    @classmethod
    def inherited(cls, document: Document) -> Listener:
        """The one of the program before us."""
        inode = document["inode"]
        sock = socket.socket(fileno=document["fd"])
        return cls(sock, Path(document["path"]), None if inode is None else (inode[0], inode[1]))

    @classmethod
    def activated(cls, environ: MutableMapping[str, str] = os.environ) -> Listener | None:
        """The one that systemd opened for us (sd_listen_fds(3)), None when there is none.

        It is left as it is: neither bound anew, nor given another mode, nor unlinked. Raises BadConfig for
        descriptors that are something else.
        """
        pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
        environ.pop("LISTEN_FDNAMES", None)
        if pid != str(os.getpid()) or not count:
            return None
        try:
            if count != "1":
                raise ValueError
            sock = socket.socket(fileno=_FIRST_PASSED)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or not listens:
                raise ValueError
        except (OSError, ValueError):
            words = "wants one listening Unix stream socket; look at ListenStream in fanoutd.socket"
            raise BadConfig(f"socket activation: LISTEN_FDS={count} {words}") from None
        return cls(sock, Path(os.fsdecode(sock.getsockname())), None)

    def bequeath(self) -> Document:
        """For the program that takes over."""
        return {"fd": self._sock.fileno(), "path": str(self.path), "inode": self._inode}

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
            if self._inode is not None and _inode(self.path) == self._inode:
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


def _bind(sock: socket.socket, path: Path, mode: int, gid: int | None) -> tuple[int, int]:
    """Bind beside, set group and mode, listen, then rename into place: the name never stands for less."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    sock.bind(str(beside))
    try:
        if gid is not None:
            os.chown(beside, -1, gid)
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
