"""``serve --daemonize``: into the background, with a parent that waits to hear how it went."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fanoutd.config import Daemon
from fanoutd.errors import FanoutdError

#: Bytes of the one message in the pipe: less than a pipe takes at once.
_MOST = 4096

#: The pid of the daemon that went into the background: a program that takes its place has the same one.
_BACKGROUND = "FANOUTD_BACKGROUND"


class Launcher:
    """The daemon's end of the ready pipe. Who closes it without a word has died."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def descriptors(self) -> list[int]:
        """What a forked child closes."""
        return [] if self._fd is None else [self._fd]

    def succeed(self) -> None:
        """A worker is ready."""
        self._tell(0, "")

    def fail(self, code: int, why: str) -> None:
        """The daemon ends, for this reason, with this exit code. After ``succeed`` nobody listens any more."""
        self._tell(code, why)

    def _tell(self, code: int, why: str) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.write(fd, json.dumps([code, why[:_MOST // 8]]).encode())
            except OSError:
                pass  # nobody waits any more
            os.close(fd)


def log_file(daemon: Daemon) -> Path | None:
    """Where the log goes: ``log_file``; without one to stderr (None), which nobody sees in the background."""
    if daemon.log_file is None and os.environ.get(_BACKGROUND) == str(os.getpid()):
        return default_log_file(daemon)
    return daemon.log_file


def default_log_file(daemon: Daemon) -> Path:
    """The log of a daemon in the background whose configuration names none."""
    return daemon.state_dir / "fanoutd.log"


def open_standard_streams() -> None:
    """A descriptor of ours must never get the number of a closed stdin, stdout or stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def daemonize() -> Launcher:
    """Fork into the background: returns in the daemon only; the process that was called waits, and exits.

    It exits 0 when the daemon says that a worker is ready, else with the daemon's own exit code and
    reason. The working directory stays: a program started as `python -m fanoutd` must be able to find
    itself again when it is to replace itself. Raises FanoutdError when nothing can be forked.
    """
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed when the interpreter began
            stream.flush()
    try:
        read, write = os.pipe()
        child = os.fork()
    except OSError as e:
        raise FanoutdError(_in_words(e)) from None
    if child:
        os.close(write)
        _wait(read)
    os.close(read)
    launcher = Launcher(write)
    _leave_session(launcher)
    os.environ[_BACKGROUND] = str(os.getpid())
    _let_go_of_the_caller()
    return launcher


def _leave_session(launcher: Launcher) -> None:
    """Into a session of our own, and out of its leader's place: that one could be given a terminal again."""
    os.setsid()
    try:
        if not os.fork():
            return
    except OSError as e:
        launcher.fail(FanoutdError.exit_code, _in_words(e))
    os._exit(0)


def _in_words(error: OSError) -> str:
    return f"cannot go into the background: {error.strerror}; try again, or `serve` in the foreground"


def _let_go_of_the_caller() -> None:
    """Of its terminal and of whatever else it gave us: who waits for the end of a pipe, or for a lock, would
    wait for the daemon's whole life. Now, not when all is well: the children keep what they inherit."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and _was_given(fd):
            os.close(fd)


def _was_given(fd: int) -> bool:
    """What Python opens is never inheritable (PEP 446): what is, came from whoever started us."""
    try:
        return os.get_inheritable(fd)
    except OSError:  # the listing's own
        return False


def _wait(pipe: int) -> NoReturn:
    """The parent's part. Whoever waits for it may end it: the daemon goes on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    data = b""
    while more := os.read(pipe, _MOST):
        data += more
    code, why = json.loads(data) if data else (1, "the daemon died while it started; its log says more")
    if why:
        print(f"fanoutd: {why}", file=sys.stderr)
    sys.exit(code)
