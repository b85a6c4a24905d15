"""SIGUSR2: another program in the master's place, with the same pid, lock, socket, children and clients.

    none -> rehearsing -> settling -> (exec) -> done | refused

The new program is started once beside us, to see that it can be loaded and understands what it will
be given. Then nothing new is begun until whoever has asked something has his answer, and the
program is replaced by exec. Connections wait in the listener's queue meanwhile.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from fanoutd.master import takeover
from fanoutd.master.signals import MANAGED, Signals

_log = logging.getLogger(__name__)

#: Seconds for the rehearsal, and for clients to have their answers (a question waits 5 s at most).
_REHEARSAL, _SETTLING = 30.0, 7.0


class Stage(StrEnum):
    NONE = "none"
    REHEARSING = "rehearsing"
    SETTLING = "settling"
    DONE = "done"
    REFUSED = "refused"


def command() -> list[str]:
    """How this program was started."""
    return [sys.executable, *sys.orig_argv[1:]]


class Upgrade:
    """``bequeath`` writes down what is handed over; ``settled`` says whether it can be now; ``pause`` stops
    (True) and takes up again (False) whatever begins new work. Times are CLOCK_MONOTONIC."""

    def __init__(
        self, signals: Signals, bequeath: Callable[[], takeover.Document], settled: Callable[[], bool],
        pause: Callable[[bool], None], expect: Callable[[int, Callable[[int], None]], None],
    ) -> None:
        """``expect`` is told a pid, and whom to give its wait status."""
        self._signals = signals
        self._bequeath = bequeath
        self._settled = settled
        self._pause = pause
        self._expect = expect
        self._command = command()
        self._wanted = False
        self._until = float("inf")
        self._pid: int | None = None
        self._said = -1
        self.count = 0
        self.stage = Stage.NONE
        self.error: str | None = None

    def view(self) -> dict[str, Any]:
        """For the status, and for the next program."""
        return {"count": self.count, "stage": self.stage.value, "error": self.error}

    @property
    def settling(self) -> bool:
        """Nothing new may be begun."""
        return self.stage is Stage.SETTLING

    def want(self) -> None:
        """Begin as soon as nothing else is under way; one that is under way goes on."""
        self.count += 1
        self._wanted = self.stage not in (Stage.REHEARSING, Stage.SETTLING)

    def taken_over(self, view: dict[str, Any]) -> None:
        """This program is the new one."""
        self.count, self.stage, self.error = view["count"], Stage.DONE, None

    def deadline(self) -> float:
        return self._until

    def work(self, now: float, free: bool) -> None:
        """One pass; ``free``: no reload is under way."""
        if self._wanted and free:
            self._wanted = False
            self._rehearse(now)
        elif self.stage is Stage.REHEARSING and now >= self._until:
            self._kill()
            self._refuse(f"the new program said nothing within {_REHEARSAL:g} s")
        elif self.stage is Stage.SETTLING and (self._settled() or now >= self._until):
            self._replace()

    def abandon(self) -> None:
        """The daemon is stopping."""
        self._wanted = False
        self._kill()
        if self.stage is Stage.SETTLING:
            self._pause(False)
        if self.stage in (Stage.REHEARSING, Stage.SETTLING):
            self.stage = Stage.NONE
        self._until = float("inf")

    # ---- the rehearsal

    def _rehearse(self, now: float) -> None:
        self.stage, self.error, self._said = Stage.REHEARSING, None, -1
        self._until = now + _REHEARSAL
        try:
            self._spawn()
        except OSError as e:
            if self._said >= 0:
                os.close(self._said)
            self._refuse(f"{self._command[0]}: {e.strerror}")

    def _spawn(self) -> None:
        """Start it with its stderr in a file of our own: whatever it says can be read when it has ended."""
        document = takeover.write(self._bequeath())
        self._said = os.memfd_create("fanoutd-rehearsal", os.MFD_CLOEXEC)
        # Above the numbers that the child's own stdin, stdout and stderr take.
        given = fcntl.fcntl(document, fcntl.F_DUPFD, 10)
        try:
            self._pid = os.posix_spawn(
                self._command[0], self._command, {**os.environ, takeover.REHEARSAL: str(given)},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._said, 1), (os.POSIX_SPAWN_DUP2, self._said, 2),
                ],
                setsigdef=MANAGED, setsigmask=(),
            )
        finally:
            os.close(document)
            os.close(given)
        self._expect(self._pid, self._rehearsed)

    def _rehearsed(self, status: int) -> None:
        if self._pid is None:
            return  # given up meanwhile
        self._pid = None
        said = self._last_line()
        if status == 0:
            self.stage, self._until = Stage.SETTLING, time.monotonic() + _SETTLING
            self._pause(True)
        else:
            self._refuse(said or f"it ended with {os.waitstatus_to_exitcode(status)} when it was tried")

    def _last_line(self) -> str:
        data = os.pread(self._said, 1 << 16, max(0, os.fstat(self._said).st_size - (1 << 16)))
        os.close(self._said)
        lines = data.decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _kill(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # not reaped yet: it is nobody else's
            self._pid = None
            os.close(self._said)

    def _refuse(self, why: str) -> None:
        _log.error("not upgraded: the new program cannot be loaded: %s", why)
        self.stage, self.error, self._until = Stage.REFUSED, why, float("inf")

    # ---- the exec

    def _replace(self) -> None:
        """Never returns, unless it fails. Signals wait, blocked, for the new program's handlers."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
        pending = sorted(self._signals.take().elements())
        document = {**self._bequeath(), "signals": pending}
        given = takeover.write(document)
        open_ones = [given, *takeover.descriptors(document)]
        try:
            for fd in open_ones:
                os.set_inheritable(fd, True)
            _log.info("replacing the program: %s", " ".join(self._command))
            os.execve(self._command[0], self._command, {**os.environ, takeover.TAKEOVER: str(given)})
        except OSError as e:
            for fd in open_ones:
                os.set_inheritable(fd, False)
            os.close(given)
            self._signals.put_back(pending)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._pause(False)
            self._refuse(f"{self._command[0]}: {e.strerror}")
