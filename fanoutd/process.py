"""A child's life from fork to exit, and what Linux lets a process say of itself."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Callable

from fanoutd import log

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_TERM = (signal.SIGTERM,)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(number: int) -> None:
    """Be sent this signal when the thread that is our parent ends (PR_SET_PDEATHSIG). A fork clears it.

    Who calls it must look at getppid afterwards: the parent may have ended before.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (PR_SET_CHILD_SUBREAPER). Outlives exec."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tasks() -> int:
    """Kernel tasks of this process: threads, those of libraries too."""
    return len(os.listdir("/proc/self/task"))


def set_title(words: str) -> None:
    """What ps and top show: ``fanoutd: worker 3``. For children only: it calls a library."""
    from setproctitle import setproctitle

    setproctitle(f"fanoutd: {words}")


def live(name: str, master: int, main: Callable[[], int]) -> int:
    """A forked child's own code, from here to its exit code, whatever happens in it.

    ``master`` is the pid of the parent that must still be there. SIGTERM, blocked until now, may come.
    """
    log.speak_as(name)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERM)
    if os.getppid() != master:  # it ended before prctl could tell us
        return 1
    try:
        return main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except Exception:
        _log.exception("dies of an error")
        return 1
