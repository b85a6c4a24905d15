"""The recorder's transactions have numbers, in the store too: was the last one made durable, and is it still there?"""

from __future__ import annotations

from collections.abc import Callable

from fanoutd.bucket import now
from fanoutd.store import Database, StoreAway, StoreUnsure, campaigns, rounds
from fanoutd.store.database import Later

#: Of a store that an earlier state has been put back into, for the operator.
WENT_BACK = (
    "the store is an earlier one than that in which this campaign was sent: it was restored from the past; "
    "`fanoutd campaign repair` takes from the journals what has happened since, and lets it go on"
)


class Numbered:
    """Those of the worker ``owner``: its node and name."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._number = 0  # that of the transaction at hand
        self._unsure = False  # its COMMIT was never answered
        self._durable = now()  # when one was last known to be in the store

    def begin(self, db: Database) -> None:
        """Before the first one."""
        if db.shared:
            with db.transaction():
                rounds.begin(db, self._owner)

    def forget(self, db: Database) -> None:
        """After the last one."""
        if db.shared:
            try:
                rounds.forget(db, self._owner)
            except StoreAway:
                pass  # the dispatcher tidies up

    def next(self) -> None:
        """Another one begins."""
        self._number += 1

    def write(self, db: Database, commit: Callable[[], None]) -> None:
        """Make it durable, once: what may be so already is not written again before that is known.

        Raises StoreAway; to be called again then.
        """
        if not (self._unsure and self._is_there(db)):
            try:
                commit()
            except StoreUnsure:
                self._unsure = True
                raise
        self._durable = now()

    def _is_there(self, db: Database) -> bool:
        with db.transaction():
            done = rounds.durable(db, self._owner, self._number)
        self._unsure = False
        return done

    def mark(self, db: Database) -> Later | None:
        """First thing in the transaction: note its number, behind the one before it; see ``went_back``."""
        return rounds.write(db, self._owner, self._number) if db.shared else None

    def went_back(self, db: Database, mark: Later | None) -> bool:
        """The store does not have our last transaction. Was it forgotten, others are too, and people whom it calls
        pending may have been sent to: everything stops."""
        if mark is None or mark.count():
            return False
        there = rounds.begin_anew(db, self._owner, self._number)
        if not there and (now() - self._durable) * 1000 > rounds.FORGOTTEN_AFTER / 2:
            return False  # it was tidied away, for we had nothing to do
        campaigns.pause_unfinished(db, "past", WENT_BACK)
        return True
