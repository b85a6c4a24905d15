"""The command that is to start the daemon: run without a shell, heard, and not waited for without an end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from fanoutd.checking.memory import Restart

#: Seconds that a command is given: a start gives up by itself after 30, an init script may stop first.
PATIENCE = 120.0
_LOOK = 0.25
#: Seconds to end in when the daemon serves.
_LAST_WORDS = 3.0
#: Of what it says: bytes read from its end, and lines kept.
_END, _LINES = 4096, 10


def words(text: str) -> tuple[str, ...]:
    """The command and its arguments. Raises ValueError that says what is wrong."""
    try:
        found = tuple(shlex.split(text))
    except ValueError as e:
        raise ValueError(f"--restart {text!r}: {e}") from None
    if not found:
        raise ValueError("--restart: a command is wanted, like '/etc/init.d/fanoutd start'")
    return found


def run(argv: tuple[str, ...], serves: Callable[[], bool], patience: float = PATIENCE) -> Restart:
    """Until it ends, or the daemon serves: the command may be the daemon. What takes longer is killed."""
    shown = shlex.join(argv)
    # A file, not a pipe: a daemon that keeps it open must not keep us.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as e:
            return Restart(shown, 127, f"{argv[0]}: {e.strerror}")
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end and not serves():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
        code = process.poll()
        if code is None and serves():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_LAST_WORDS)
        elif code is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Restart(shown, code, _last_words(said))


def _last_words(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
    lines = file.read().decode("utf-8", "replace").splitlines()
    plain = ("".join(c if c.isprintable() else " " for c in line).strip() for line in lines)
    return "\n".join([line for line in plain if line][-_LINES:])
