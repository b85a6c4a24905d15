"""``serve --daemonize``: into the background, with a parent that waits to hear how it went."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import NoReturn

from fanoutd.errors import FanoutdError

#: Bytes of the one message in the pipe: less than a pipe takes at once.
_MOST = 4096


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
        """The daemon ends, for this reason, with this exit code."""
        self._tell(code, why)

    def _tell(self, code: int, why: str) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.write(fd, json.dumps([code, why[:_MOST // 8]]).encode())
            except OSError:
                pass  # nobody waits any more
            os.close(fd)


def daemonize() -> Launcher:
    """Fork into the background: returns in the daemon only; the process that was called waits, and exits.

    It exits 0 when the daemon says that a worker is ready, else with the daemon's own exit code and
    reason. The working directory stays: a program started as `python -m fanoutd` must be able to find
    itself again when it is to replace itself.
    """
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(write)
        _wait(read)
    os.close(read)
    os.setsid()
    if os.fork():  # a session's leader could be given a terminal again
        os._exit(0)
    _let_go_of_terminal()
    return Launcher(write)


def _let_go_of_terminal() -> None:
    """Now, not when all is well: the children would keep what they inherit, and a pipe's reader waits for all."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _wait(pipe: int) -> NoReturn:
    """The parent's part. Whoever waits for it may end it: the daemon goes on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    data = b""
    while more := os.read(pipe, _MOST):
        data += more
    if not data:
        print("fanoutd: the daemon died while it started; its log says more", file=sys.stderr)
        sys.exit(FanoutdError.exit_code)
    code, why = json.loads(data)
    if why:
        print(f"fanoutd: {why}", file=sys.stderr)
    sys.exit(code)
