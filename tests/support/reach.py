"""For tests that become another user: a mount namespace in which that one reaches the interpreter and us.

An interpreter below /root, as pyenv puts it, is root's alone.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

#: What another user must reach: the interpreter with its libraries, the virtual environment, the checkout.
_NEEDED = (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).resolve().parents[2])


@cache
def reaching() -> list[str]:
    """What to put before a command so that it, or who it becomes, reaches the program. Skips the test without a way."""
    if _works([]):
        return []
    closed = {folder for path in _NEEDED for folder in path.parents if not folder.stat().st_mode & 0o001}
    script = "\n".join([*_mounts(sorted(closed)[:1]), 'exec "$@"'])
    prefix = ["unshare", "-m", "sh", "-ec", script, "sh"]
    if not _works(prefix):
        pytest.skip(f"{sys.executable} is out of reach for other users, and there is no mount namespace to mend that")
    return prefix


def _works(prefix: list[str]) -> bool:
    command = [*prefix, *as_nobody(), sys.executable, "-c", "import fanoutd.cli, setproctitle"]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, cwd="/", timeout=20).returncode == 0
    except OSError:
        return False


def _mounts(closed: list[Path]) -> list[str]:
    """An open folder in the closed one's place, with nothing in it but what is needed."""
    lines = []
    for folder in closed:
        kept = [path for path in _NEEDED if folder in path.parents]
        holds = [_temporary() for _ in kept]
        lines += [f"mount --bind {shlex.quote(str(path))} {hold}" for path, hold in zip(kept, holds, strict=True)]
        lines.append(f"mount -t tmpfs -o mode=0755 none {shlex.quote(str(folder))}")
        for path, hold in zip(kept, holds, strict=True):
            quoted = shlex.quote(str(path))
            lines.append(f"mkdir -p {quoted}; mount --bind {hold} {quoted}")
    return lines


def _temporary() -> str:
    """An empty folder to mount upon, until the tests end."""
    folder = tempfile.mkdtemp(prefix="fanoutd-reach-")
    atexit.register(os.rmdir, folder)
    return folder


def as_nobody() -> list[str]:
    """What to put before a command that is nobody's. Not setpriv(1), which still has root's way with files in exec."""
    user = pwd.getpwnam("nobody")
    become = f"os.setgroups([]); os.setresgid(*[{user.pw_gid}] * 3); os.setresuid(*[{user.pw_uid}] * 3)"
    return [sys.executable, "-c", f"import os, sys; {become}; os.execvp(sys.argv[1], sys.argv[1:])"]
