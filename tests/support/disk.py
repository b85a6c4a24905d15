"""A disk of the test's own under one folder of a process: small, and nobody else sees it.

It is a tmpfs in a mount namespace of the process, for root and for whoever may make a user namespace.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o "$0" fanoutd-test "$1" && shift && exec "$@"'


@functools.cache
def _unshare() -> tuple[str, ...] | None:
    """The command that this user may use, None without one."""
    for command in (("unshare", "-m"), ("unshare", "-Urm")):
        tried = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], stderr=subprocess.DEVNULL)
        if tried.returncode == 0:
            return command
    return None


def available() -> bool:
    return _unshare() is not None


def mounted(folder: Path, options: str) -> tuple[str, ...]:
    """A command to start a process by: its disk at ``folder``, which is made, has these options of tmpfs(5)."""
    command = _unshare()
    assert command is not None
    folder.mkdir(parents=True, mode=0o700)
    return (*command, "sh", "-c", _MOUNT, f"mode=700,{options}", str(folder))


def seen_by(pid: int, folder: Path) -> Path:
    """The folder as that process sees it."""
    return Path(f"/proc/{pid}/root") / folder.relative_to("/")


def make_writable(pid: int, folder: Path, writable: bool) -> None:
    """Mount the disk beneath that process again, as one that may be written or may not (mount(8))."""
    user = () if os.geteuid() == 0 else ("-U", "--preserve-credentials")
    options = f"remount,bind,{'rw' if writable else 'ro'}"
    command = ["nsenter", "-t", str(pid), *user, "-m", "mount", "-o", options, str(folder)]
    subprocess.run(command, check=True)
