"""How a mold comes to be: everything that must hold between fork and the mold's own code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn

from fanoutd import process
from fanoutd.child import Recipe
from fanoutd.master.signals import MANAGED

#: For people and for the master; a Ctrl-C or `pkill -HUP` that reaches the whole group is the master's.
_IGNORED = MANAGED - {signal.SIGTERM, signal.SIGCHLD}

_MOLD = "fanoutd.mold"

Make = Callable[[socket.socket], Recipe]


class CannotFork(Exception):
    """This process is in no state to fork, or the machine does not let it."""


def warm_up() -> None:
    """Before the first fork: orphans come to us, and the heap is frozen: its pages stay shared."""
    process.adopt_orphans()
    gc.collect()
    gc.freeze()


def fork_mold(make: Make, close: Callable[[], Iterable[int]]) -> tuple[int, socket.socket]:
    """Fork a mold; return its pid and our non-blocking end of its socket, SOCK_SEQPACKET.

    ``make`` builds, in the mold, what it is given; ``close`` names the master's descriptors. Raises
    CannotFork with nothing left behind.
    """
    try:
        if process.tasks() != 1:
            raise CannotFork(f"{process.tasks()} threads in the master; a fork would copy locks that they hold")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as e:
        raise CannotFork(str(e)) from None
    ours.setblocking(False)
    master = os.getpid()
    # A signal between fork and the mold's own handlers would be lost to the master's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
    try:
        pid = os.fork()
        if pid == 0:
            _become(lambda: make(theirs), [ours.fileno(), *close()], master)
    except OSError as e:
        ours.close()
        raise CannotFork(str(e)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return pid, ours


def _become(make: Callable[[], Recipe], descriptors: list[int], master: int) -> NoReturn:
    """The mold's whole life: the frames above are the master's, and are never gone back to."""
    code = 1
    try:
        shed(descriptors)
        process.die_with_parent(signal.SIGKILL)  # a stopped one must go too
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = process.live("mold", master, lambda: _run(make()))
    finally:
        os._exit(code)


def _run(recipe: Recipe) -> int:
    code: int = importlib.import_module(_MOLD).run(recipe)
    return code


def shed(descriptors: Iterable[int]) -> None:
    """In a child: put off the master's signals and descriptors.

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
