"""Whether the store is the one that this node left: a number that only grows, there and in the state directory.

It is written to the store first. Should the store ever show a smaller one than the state directory, then an
earlier state of it has been put back, and people of whom it says "pending" may have been sent to.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from fanoutd.store import Database
from fanoutd.store.meta import read, write

WENT_BACK = (
    "the store was put back to an earlier state, and people whom it calls pending may have been sent to; "
    "`fanoutd campaign repair` takes from the journals what has happened since, and lets the campaign go on"
)


class Epoch:
    """``url`` of the store: another store begins anew."""

    def __init__(self, state_dir: Path, node: str, url: str) -> None:
        self._file = state_dir / "epoch"
        self._name = f"epoch:{node}"
        self._store = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()  # of its password, not even this

    def went_back(self, db: Database) -> bool:
        """Raises StoreAway, OSError."""
        known = self._known()
        row = read(db, self._name)
        return known is not None and (row is None or int(row) < known)

    def advance(self, db: Database) -> None:
        """From here on the store as it is now is the earliest that is believed. Raises StoreAway, OSError."""
        row = read(db, self._name)
        new = max(int(row or 0), self._known() or 0) + 1
        with db.transaction():
            write(db, self._name, str(new))
        self._keep(new)

    def _known(self) -> int | None:
        try:
            said = json.loads(self._file.read_text(encoding="ascii"))
            return int(said["epoch"]) if said["store"] == self._store else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, epoch: int) -> None:
        half = self._file.with_suffix(".new")
        with half.open("w", encoding="ascii") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(json.dumps({"store": self._store, "epoch": epoch}) + "\n")
            out.flush()
            os.fsync(out.fileno())
        half.replace(self._file)
