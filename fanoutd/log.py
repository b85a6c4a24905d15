"""The daemon's log: one line an event, the same file for master and children.

    2026-01-02T15:04:05.678+08:00 master[4711] worker 3 ready pid=4715 generation=1

A line is one write(2) to a descriptor in append mode, so that processes do not cut into each
other's lines. A reader of stderr who has stopped reading costs lines, never a wait.
"""

from __future__ import annotations

import logging
import os
import select
from datetime import datetime
from pathlib import Path

from fanoutd.errors import NotPermitted

_STDERR = 2
_PIECE = select.PIPE_BUF  # a pipe that polls writable takes so much without blocking (pipe(7))

#: Control characters would let a client's text forge lines; a traceback keeps its line breaks.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class _Line(logging.Formatter):
    """``process`` names who speaks: master, dispatcher, worker 3."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        words = record.getMessage().translate(_VISIBLE)
        line = f"{at} {self._process}[{record.process}] {level}{words}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Descriptor(logging.Handler):
    """Writes to a file descriptor, and drops what that does not take at once."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        data = (self.format(record) + "\n").encode("utf-8", "replace")
        try:
            for at in range(0, len(data), _PIECE):
                if not self._poll.poll(0):
                    return
                os.write(self.fd, data[at:at + _PIECE])
        except OSError:  # a full disk, a closed pipe: there is no better place to say so
            return


def set_up(log_file: Path | None, process: str = "master") -> None:
    """Send the log to the file, created 0640, or to stderr. Raises NotPermitted."""
    handler = _Descriptor(_open(log_file) if log_file else _STDERR)
    handler.setFormatter(_Line(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It tells a traceback where one line will do; the clock says the same in its own words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def speak_as(process: str) -> None:
    """A forked child's lines bear its own name from here on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Line(process))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as e:
        raise NotPermitted(f"[daemon] log_file: {path}: {e.strerror}; choose a file you may write") from None
