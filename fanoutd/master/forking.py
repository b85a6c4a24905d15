"""How a child comes to be: everything that must hold between fork and the child's own code."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable

from fanoutd import log
from fanoutd.child import Child
from fanoutd.master.signals import MANAGED

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)

#: For people and for the master; a Ctrl-C or `pkill -HUP` that reaches the whole group is the master's.
_IGNORED = MANAGED - {signal.SIGTERM, signal.SIGCHLD}

#: Loaded once, before the first fork, for all children; never called here. Code of our own is not among
#: them: each generation imports it anew.
_PRELOADED = (
    "certifi", "concurrent.futures.thread", "http.client", "pycurl", "requests", "sqlite3", "ssl", "zoneinfo",
)

Make = Callable[[socket.socket], Child]


class CannotFork(Exception):
    """This process is in no state to fork, or the machine does not let it."""


def warm_up() -> None:
    """Load what the children need and freeze the heap: its pages stay shared (gc.freeze).

    A library that cannot be loaded is the child's to complain about.
    """
    for name in _PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError as e:
            _log.warning("%s cannot be loaded: %s", name, e)
    gc.collect()
    gc.freeze()


def tasks() -> int:
    """Kernel tasks of this process: threads, those of libraries too."""
    return len(os.listdir("/proc/self/task"))


def fork(entry: str, make: Make, close: Callable[[], Iterable[int]]) -> tuple[int, socket.socket]:
    """Fork a child that runs ``entry``'s ``run``; return its pid and our non-blocking end of its socket.

    ``make`` builds, in the child, what it is given; ``close`` names the master's descriptors. Raises
    CannotFork with nothing left behind.
    """
    try:
        if tasks() != 1:
            raise CannotFork(f"{tasks()} threads in the master; a fork would copy locks that they hold")
        ours, theirs = socket.socketpair()
    except OSError as e:
        raise CannotFork(str(e)) from None
    ours.setblocking(False)
    master = os.getpid()
    # A signal between fork and the child's own handlers would be lost to the master's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
    try:
        pid = os.fork()
        if pid == 0:
            _become(entry, lambda: make(theirs), [ours.fileno(), *close()], master, before)
    except OSError as e:
        ours.close()
        raise CannotFork(str(e)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return pid, ours


def _become(
    entry: str, make: Callable[[], Child], descriptors: list[int], master: int, mask: Iterable[int]
) -> None:
    """The child's whole life. Never returns: the frames above are the master's."""
    code = 1
    try:
        _shed(descriptors)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() == master:  # else it died before prctl could tell us
            code = _run(entry, make())
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except Exception:
        _log.exception("dies of an error")
    finally:
        os._exit(code)


def _shed(descriptors: list[int]) -> None:
    """Put off the master's signals and descriptors.

    The epoll descriptor is closed like any other: to unregister in it would unregister for the master.
    """
    signal.set_wakeup_fd(-1)
    for number in MANAGED:
        signal.signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)
    for fd in descriptors:
        os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)


def _run(entry: str, child: Child) -> int:
    log.speak_as(child.role if child.role == "dispatcher" else f"{child.role} {child.slot}")
    code: int = importlib.import_module(entry).run(child)
    return code
