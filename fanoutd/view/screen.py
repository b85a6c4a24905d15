"""A whole terminal for a picture that is drawn anew, given back as it was."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

#: By signal how it is left: Ctrl-C is how people leave it.
_LEAVING = {signal.SIGINT: 0, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGHUP: 128 + signal.SIGHUP}
_OTHERS = (signal.SIGWINCH, signal.SIGTSTP)
_GONE = 128 + signal.SIGHUP

#: Seconds after which it is drawn anew whatever happens: it shows how long ago things were.
_TICK = 1.0


class Bell:
    """Wakes whoever waits for its ``fileno``; ``ring`` may be called from any thread. Signals ring it too."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def ring(self, number: int = 0) -> None:
        try:
            os.write(self._write, bytes([number]))
        except BlockingIOError:
            pass  # it rings already

    def heard(self) -> bytes:
        """A byte for each ring: the signal's number, or 0."""
        try:
            return os.read(self._read, 4096)
        except BlockingIOError:
            return b""

    @contextmanager
    def of_signals(self) -> Iterator[None]:
        """Signals that would end or stop this process ring instead."""
        before = {number: signal.signal(number, lambda *_: None) for number in (*_LEAVING, *_OTHERS)}
        woken = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)


def run(console: Console, bell: Bell, draw: Callable[[int, int], RenderableType]) -> int:
    """Show what ``draw`` makes of width and height at each ring, until ``q``, Ctrl-C or another signal; an exit code.

    Ctrl-Z stops it, and ``fg`` brings it back.
    """
    try:
        with bell.of_signals():
            while (code := _shown(console, bell, draw)) is None:
                os.kill(os.getpid(), signal.SIGSTOP)
            return code
    except (OSError, termios.error) as e:
        if e.args[0] != errno.EIO:
            raise
        return _GONE  # the terminal is not there any more


def _shown(console: Console, bell: Bell, draw: Callable[[int, int], RenderableType]) -> int | None:
    """None when it is to stop for a while."""
    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    with _keys_at_once(keys), Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False,
                                   redirect_stderr=False) as live:  # fmt: skip
        while True:
            live.update(draw(*console.size), refresh=True)
            ready, _, _ = select.select([bell, *([] if keys is None else [keys])], [], [], _TICK)
            heard = bell.heard()
            for number, code in _LEAVING.items():
                if number in heard:
                    return code
            if signal.SIGTSTP in heard:
                return None
            if keys in ready:
                pressed = os.read(keys, 1024) if keys is not None else b""
                if not pressed or b"q" in pressed.lower():
                    return 0 if pressed else _GONE


@contextmanager
def _keys_at_once(terminal: int | None) -> Iterator[None]:
    """Each key without Enter, and unseen."""
    if terminal is None:
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
