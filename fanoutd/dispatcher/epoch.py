"""Whether the store is the one that this node left, or an earlier one, whose pending people were sent to.

Two witnesses: a number that only grows, in the store and then in the state directory, while anything runs and when
the daemon stops; and the journals of the time since it last grew, which may know of leases and of people that the
store has never heard of.

A store is the one that it was when its URL says so, or its lineage: a number drawn once, which goes with its rows into
whatever database they are copied. Of a store and its copy the one on which this node has not gone on is from the past.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from fanoutd.journal import tag
from fanoutd.store import Database, retention, shards
from fanoutd.store.meta import read, write
from fanoutd.testimony import Testimony, testimonies

#: The epoch's file and the journals bear times of one wall clock, but it may have been set between: seconds.
_MARGIN = 300.0

_LINEAGE = "lineage"

WENT_BACK = (
    "the store was put back to an earlier state, and people whom it calls pending may have been sent to; "
    "`fanoutd campaign repair` takes from the journals what has happened since, and lets the campaign go on"
)


class Epoch:
    """``url`` of the store: another store, of another lineage, begins anew."""

    def __init__(self, state_dir: Path, node: str, url: str) -> None:
        self._file = state_dir / "epoch"
        self._name = f"epoch:{node}"
        self._store = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()  # of its password, not even this

    def journals_know_more(self, db: Database, journals: Path) -> bool:
        """Whether the store has never reached what a journal tells of. Raises StoreAway, OSError."""
        try:
            since = self._file.stat().st_mtime - _MARGIN
        except FileNotFoundError:
            return False  # a store that we have never used
        if self._known(db) is None:
            return False
        gone = retention.last_shards(db)
        return any(_beyond(db, said, gone) for said in testimonies(journals, since))

    def went_back(self, db: Database) -> bool:
        """Raises StoreAway, OSError."""
        known = self._known(db)
        row = read(db, self._name)
        return known is not None and (row is None or int(row) < known)

    def advance(self, db: Database, anew: bool = False) -> bool:
        """From here on the store as it is now is the earliest that is believed. Raises StoreAway, OSError.

        False, and nothing is changed, if it went back a moment ago; ``anew``: that is known, and seen to.
        """
        known = self._known(db)
        with db.transaction():
            row = read(db, self._name)
            if not anew and known is not None and (row is None or int(row) < known):
                return False
            new = max(int(row or 0), known or 0) + 1
            write(db, self._name, str(new))
            lineage = _lineage(db)
        self._keep(new, lineage)
        return True

    def _known(self, db: Database) -> int | None:
        try:
            said = json.loads(self._file.read_text(encoding="ascii"))
            same = said["store"] == self._store or ("lineage" in said and said["lineage"] == read(db, _LINEAGE))
            return int(said["epoch"]) if same else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, epoch: int, lineage: str) -> None:
        half = self._file.with_suffix(".new")
        with half.open("w", encoding="ascii") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(json.dumps({"store": self._store, "lineage": lineage, "epoch": epoch}) + "\n")
            out.flush()
            os.fsync(out.fileno())
        half.replace(self._file)


def _lineage(db: Database) -> str:
    """Drawn by the first node that asks."""
    known = read(db, _LINEAGE)
    if known is None:
        drawn = os.urandom(8).hex()
        db.upsert("fanout_meta", {"name": _LINEAGE}, {"value": drawn}, also="value = fanout_meta.value")
        known = read(db, _LINEAGE)
    return known or ""


def _beyond(db: Database, said: Testimony, gone: Mapping[int, int]) -> bool:
    """Calls under leases later than the store knows, or to people beyond those whom it says were claimed.

    A lease alone proves nothing: it is noted before the store has it. Nor do campaigns that the store has deleted:
    ``gone`` has their tags with their last shards.
    """
    furthest: dict[tuple[int, int], int] = {}
    for shard, position, token in said.calls:
        furthest[shard, token] = max(position, furthest.get((shard, token), -1))
    for (shard, token), position in furthest.items():
        if (shard, token) not in said.leases:  # a damaged journal is no witness of this
            continue
        if shard <= gone.get(said.leases[shard, token], 0):
            continue
        row = shards.row(db, shard)
        if row is None or row.token < token or tag(row.campaign) != said.leases[shard, token]:
            return True
        if row.token == token and row.leased and position >= row.next:
            return True
    return False
