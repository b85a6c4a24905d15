"""What the outside is told of the daemon's life: systemd by its protocol, a launcher by a pipe.

The protocol is that of sd_notify(3). Nothing here waits, and nothing fails: a supervisor that is gone
or deaf must not harm the daemon.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from fanoutd.master.launch import Launcher


class Notify:
    """``environ`` keeps NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID: a program that takes over needs them."""

    def __init__(self, environ: Mapping[str, str] = os.environ, launcher: Launcher | None = None) -> None:
        self._launcher = launcher
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._sock: socket.socket | None = None
        if self._address is not None:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._every = _watchdog_seconds(environ) if self._sock else None
        self._next = 0.0 if self._every else float("inf")

    def ready(self, status: str) -> None:
        """The daemon serves, for the first time or again after a reload, whatever became of that."""
        self._send(f"READY=1\nSTATUS={_line(status)}")
        if self._launcher is not None:
            self._launcher.succeed()
            self._launcher = None

    def reloading(self) -> None:
        """From now until ``ready`` (systemd.service(5), Type=notify-reload)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def watchdog(self, now: float) -> None:
        """Called in every pass of the loop, by nobody else: a loop that hangs must not look alive."""
        if self._every is not None and now >= self._next:
            self._next = now + self._every
            self._send("WATCHDOG=1")

    def deadline(self) -> float:
        """CLOCK_MONOTONIC seconds when ``watchdog`` wants to be called."""
        return self._next

    def descriptors(self) -> list[int]:
        """What a forked child closes."""
        pipe = self._launcher.descriptors() if self._launcher else []
        return pipe if self._sock is None else [*pipe, self._sock.fileno()]

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, text: str) -> None:
        if self._sock is not None and self._address is not None:
            try:
                self._sock.sendto(text.encode(), self._address)
            except OSError:
                return


def _address(name: str) -> str | bytes | None:
    """``@name`` is one of Linux's abstract addresses (unix(7)); None where nobody listens."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return name if name.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Half of what systemd waits for (sd_watchdog_enabled(3)); None when it does not wait."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 2e6


def _line(text: str) -> str:
    return " ".join(text.split())
