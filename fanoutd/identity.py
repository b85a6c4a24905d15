"""Who this node is, and whether its state directory is the one that it was.

A copy of a state directory, started beside the original, would send everything that is unfinished a second time.
The file that says the node's name also says its own inode: in a copy, or in a directory that came back from a backup,
that is another one. A file system gives the number of a removed file to the next that is made, which is the same file
come back when a directory is put in the place of what it was; where the inode has a generation (ext4, XFS, btrfs and
others count or draw one for each use of a number) that is said too.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

_FILE = "node"

#: A file that a daemon leaves in every state directory in which it has run: without a name that is no new one.
_USED = "epoch"

#: So much of the host's name fits into a store's columns beside what makes it unique, in characters.
_HOST = 50

#: _IOR('v', 1, long): the kernel fills in 32 bits (linux/fs.h; ioctl_iflags(2) has its kin).
_FS_IOC_GETVERSION = (2 << 30) | (struct.calcsize("l") << 16) | (ord("v") << 8) | 1


@dataclass(frozen=True, slots=True)
class Identity:
    """``node`` is the name under which leases are taken. ``copied``: nobody has seen to that yet.

    ``secret`` is what tells two of one name apart in a store that they share. ``was``: of a copy its original's name.
    """

    node: str
    copied: bool = False
    secret: str = field(default="", compare=False, repr=False)
    was: str | None = field(default=None, compare=False)


def of(state_dir: Path, shared: bool = False) -> Identity:
    """As the state directory says; a new or a copied one is given a name. Raises OSError.

    ``shared``: other machines are on its store, and some of them may have the same host name.
    """
    file = state_dir / _FILE
    said = _read(file)
    if said is None and not (state_dir / _USED).exists():
        return _write(file, Identity(_new_name() if shared else os.uname().nodename, secret=_new_secret()))
    if said is not None and _is_itself(file, said):
        secret, was = said.get("secret"), said.get("was")
        known = Identity(
            str(said["node"]), bool(said.get("copied")), secret if isinstance(secret, str) else "",
            was if isinstance(was, str) else None,
        )  # fmt: skip
        return known if known.secret else _write(file, replace(known, secret=_new_secret()))
    # Leases under the old name are the original's, if that is still alive.
    was = None if said is None else str(said.get("node"))
    return _write(file, Identity(_new_name(), copied=True, secret=_new_secret(), was=was))


def name_in(state_dir: Path) -> str | None:
    """The name that is written there; None when there is none, or it may not be read. Nothing is made."""
    try:
        said = _read(state_dir / _FILE)
    except OSError:
        return None
    return None if said is None else str(said["node"])


def file_of(state_dir: Path) -> Path:
    """Without this file a daemon takes a new name when it starts."""
    return state_dir / _FILE


def seen_to(state_dir: Path) -> None:
    """What a copy asks for is done. Raises OSError."""
    file = state_dir / _FILE
    known = of(state_dir)
    if known.copied:
        _write(file, replace(known, copied=False))


def _new_name() -> str:
    return f"{os.uname().nodename[:_HOST]}-{os.urandom(3).hex()}"


def _new_secret() -> str:
    return os.urandom(16).hex()


def _read(file: Path) -> dict[str, object] | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("node"), str) else None


def _write(file: Path, new: Identity) -> Identity:
    """Under its own name only when it is whole; the inode is known before, a rename keeps it."""
    half = file.with_suffix(".new")
    with half.open("w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(json.dumps({**asdict(new), **_self(out.fileno())}) + "\n")
        out.flush()
        os.fsync(out.fileno())
    half.replace(file)
    return new


def _is_itself(file: Path, said: dict[str, object]) -> bool:
    with file.open("rb") as opened:
        found = _self(opened.fileno())
    # One that was written where generations are not told has none to compare.
    return all(said.get(name) == found.get(name) for name in ("inode", "generation") if name == "inode" or name in said)


def _self(fd: int) -> dict[str, int]:
    """What tells this file from a copy of it. Where there are no generations (tmpfs, network) the number alone."""
    found = {"inode": os.fstat(fd).st_ino}
    try:
        (found["generation"],) = struct.unpack_from("I", fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8)))
    except OSError:
        pass
    return found
