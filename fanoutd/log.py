"""The daemon's log: one line an event, the same file for master and children.

    2026-01-02T15:04:05.678+08:00 master[4711] worker 3 ready slot=3 pid=4715 generation=1

A line, its traceback with it, is one write(2) to a file in append mode, so that processes do not cut
into each other's lines. A reader of stderr who has stopped reading costs lines, never a wait.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from fanoutd import secrecy
from fanoutd.errors import NotPermitted

_STDERR = 2
_PIECE = select.PIPE_BUF  # a pipe that polls writable takes so much without blocking (pipe(7))

#: Control characters would let a client's text forge lines; a traceback keeps its line breaks.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}
_VISIBLE_BUT_BREAKS = {code: text for code, text in _VISIBLE.items() if code != 10}
#: Those that JSON leaves as they are.
_VISIBLE_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}


def facts(**values: Any) -> dict[str, Any]:
    """For ``extra=`` of a logging call: what the line says beside its words, as ``key=value`` or as JSON keys.

    Values that are None are left out.
    """
    return {"facts": {key: value for key, value in values.items() if value is not None}}


#: Who speaks in this process: master, dispatcher, worker 3.
_speaker = "master"


class _Line(logging.Formatter):
    def __init__(self, as_json: bool, hidden: Iterable[str]) -> None:
        super().__init__()
        self.as_json = as_json
        self.hide(hidden)

    def hide(self, hidden: Iterable[str]) -> None:
        """These, instead of those before."""
        self.hidden = secrecy.ordered(hidden)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        said: dict[str, Any] = getattr(record, "facts", {})
        words = self._hide(record.getMessage())
        trace = self._hide(self.formatException(record.exc_info)) if record.exc_info else None
        level = record.levelname.lower()
        if self.as_json:
            line = {"at": at, "process": _speaker, "pid": record.process, "level": level, "message": words}
            line |= {"child" if key == "pid" else key: self._plain(value) for key, value in said.items()}
            text = json.dumps(line | ({"traceback": trace} if trace else {}), ensure_ascii=False)
            return text.translate(_VISIBLE_IN_JSON)
        words = " ".join([words, *(f"{key}={_quoted(self._hide(str(value)))}" for key, value in said.items())])
        mark = "" if record.levelno < logging.WARNING else f"{level}: "
        text = f"{at} {_speaker}[{record.process}] {mark}{words.translate(_VISIBLE)}"
        if not trace:
            return text
        # Indented, a line in an exception's text cannot pass for one of the log's own.
        return "\n    ".join([text, *trace.translate(_VISIBLE_BUT_BREAKS).split("\n")])

    def _plain(self, value: Any) -> Any:
        return value if isinstance(value, int | float) else self._hide(str(value))

    def _hide(self, text: str) -> str:
        return secrecy.without(text, self.hidden)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text else text


class _Descriptor(logging.Handler):
    """Writes to a file descriptor, and drops what that does not take at once."""

    def __init__(self, fd: int, path: Path | None, line: _Line) -> None:
        super().__init__()
        self.fd = fd
        self.path = path
        self.line = line
        self.setFormatter(line)
        self._whole = _is_file(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        data = (self.format(record) + "\n").encode("utf-8", "replace")
        try:
            piece = len(data) if self._whole else _PIECE
            for at in range(0, len(data), piece):
                if not self._poll.poll(0):
                    return
                os.write(self.fd, data[at:at + piece])
        except OSError:  # a full disk, a closed pipe: there is no better place to say so
            return

    def turn_to(self, path: Path | None) -> None:
        """Write there from now on, under the same descriptor. Raises OSError, and goes on as before."""
        if path is None:
            os.dup2(_STDERR, self.fd, inheritable=False)
        else:
            fd = _open(path)
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
        self.path = path
        self._whole = _is_file(self.fd)


def set_up(
    log_file: Path | None, log_format: str = "text", hidden: Iterable[str] = (), kept: int | None = None
) -> None:
    """Send the log to the file, created 0640, or to stderr. ``hidden`` never gets into it.

    ``kept`` is a descriptor of the log as it was before: used if the file cannot be opened, closed otherwise.
    Raises NotPermitted without it.
    """
    trouble = None
    try:
        fd = _opened(log_file) if log_file else os.dup(_STDERR)
    except NotPermitted as e:
        if kept is None:
            raise
        fd, kept, trouble = kept, None, e
        os.set_inheritable(fd, False)
    if kept is not None:
        os.close(kept)
    handler = _Descriptor(fd, log_file, _Line(log_format == "json", hidden))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It tells a traceback where one line will do; the clock says the same in its own words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    if trouble:
        logging.getLogger(__name__).error("%s; the log stays where it is", trouble)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None:
        logging.getLogger("fanoutd").error("an error that nobody caught", exc_info=(kind, error, trace))


def _handler() -> _Descriptor | None:
    """Ours, None where the log was never set up: in tests, and in the command line."""
    return next((each for each in logging.getLogger().handlers if isinstance(each, _Descriptor)), None)


def speak_as(process: str) -> None:
    """A forked child's lines bear its own name from here on."""
    global _speaker
    _speaker = process


def hide(hidden: Iterable[str]) -> None:
    """These from now on, instead of those before."""
    if found := _handler():
        found.line.hide(hidden)


def change(log_file: Path | None, log_format: str) -> bool:
    """As a new configuration says; whether that is anything new. Raises OSError with everything as it was."""
    found = _handler()
    if found is None or (found.path, found.line.as_json) == (log_file, log_format == "json"):
        return False
    if found.path != log_file:
        found.turn_to(log_file)
    found.line.as_json = log_format == "json"
    return True


def reopen() -> bool:
    """Open the file anew: the old one was renamed. What cannot be opened is said in the old one."""
    if found := _handler():
        try:
            found.turn_to(found.path)
        except OSError as e:
            logging.getLogger(__name__).error("the log cannot be opened anew: %s", e)
            return False
    return True


def follow(message: Mapping[str, Any]) -> None:
    """In a child, as the master says: the log was opened anew, or goes to another ``file`` in this ``format`` now."""
    if "format" not in message:
        reopen()
        return
    try:
        change(Path(message["file"]) if message["file"] else None, message["format"])
    except OSError as e:
        logging.getLogger(__name__).error("the log cannot go on elsewhere: %s", e)


def fileno() -> int:
    """The log's descriptor, which stays the same whatever file it leads to."""
    found = _handler()
    return found.fd if found else _STDERR


def check(log_file: Path | None) -> None:
    """Whether ``change`` could turn to it. Raises NotPermitted."""
    if log_file and (found := _handler()) and found.path != log_file:
        os.close(_opened(log_file))


def _opened(path: Path) -> int:
    try:
        return _open(path)
    except OSError as e:
        raise NotPermitted(f"[daemon] log_file: {path}: {e.strerror}; choose a file you may write") from None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _is_file(fd: int) -> bool:
    """What takes everything at one go."""
    return stat.S_ISREG(os.fstat(fd).st_mode)
