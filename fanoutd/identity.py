"""Who this node is, and whether its state directory is the one that it was.

A copy of a state directory, started beside the original, would send everything that is unfinished a second time.
The file that says the node's name also says its own inode: in a copy, or in a directory that came back from a backup,
that is another one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

_FILE = "node"


@dataclass(frozen=True, slots=True)
class Identity:
    """``node`` is the name under which leases are taken. ``copied``: nobody has seen to that yet."""

    node: str
    copied: bool = False


def of(state_dir: Path) -> Identity:
    """As the state directory says; a new or a copied one is given a name. Raises OSError."""
    file = state_dir / _FILE
    said = _read(file)
    if said is None:
        return _write(file, Identity(os.uname().nodename))
    known = Identity(str(said["node"]), bool(said.get("copied")))
    if said.get("inode") == file.stat().st_ino:
        return known
    # Leases under the old name are the original's, if that is still alive.
    return _write(file, Identity(f"{os.uname().nodename}-{os.urandom(3).hex()}", copied=True))


def seen_to(state_dir: Path) -> None:
    """What a copy asks for is done. Raises OSError."""
    file = state_dir / _FILE
    known = of(state_dir)
    if known.copied:
        _write(file, Identity(known.node))


def _read(file: Path) -> dict[str, object] | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a crash of the machine may have left it empty: it is new then
        return None
    return said if isinstance(said, dict) and isinstance(said.get("node"), str) else None


def _write(file: Path, new: Identity) -> Identity:
    """Under its own name only when it is whole; the inode is known before, a rename keeps it."""
    half = file.with_suffix(".new")
    with half.open("w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), 0o600)
        inode = os.fstat(out.fileno()).st_ino
        out.write(json.dumps({"node": new.node, "inode": inode, "copied": new.copied}) + "\n")
        out.flush()
        os.fsync(out.fileno())
    half.replace(file)
    return new
