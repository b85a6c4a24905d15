"""Socket activation as systemd does it (sd_listen_fds(3)): a socket as descriptor 3 of a process that is told so."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_EXEC = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="fanoutd.socket")
os.execvp(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def listening(path: Path, mode: int = 0o606) -> Iterator[socket.socket]:
    """A socket that is somebody else's, with a mode that we would not choose."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(mode)
        sock.listen()
        yield sock


def passing(sock: socket.socket, count: int = 1) -> dict[str, Any]:
    """For ``Program.start``: the command gets it as descriptor 3, and hears of so many."""
    before = [sys.executable, "-c", _EXEC, str(sock.fileno()), str(count)]
    return {"before": before, "pass_fds": [sock.fileno()]}
