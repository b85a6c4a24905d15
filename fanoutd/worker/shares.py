"""How far the campaigns in hand are, as the store knows it: for the eye only."""

from __future__ import annotations

from collections.abc import Iterable

from fanoutd.store import Database, counters
from fanoutd.worker.holds import Hold

#: Seconds between two looks.
_LOOK_AGAIN = 2.0


class Shares:
    def __init__(self) -> None:
        self._shares: dict[str, float] = {}
        self._looked = 0.0

    def look(self, db: Database, holds: Iterable[Hold], at: float) -> None:
        if at - self._looked >= _LOOK_AGAIN:
            self._looked = at
            self._shares = {id: counters.share(db, id) for id in {hold.campaign.id for hold in holds}}

    def of(self, campaign: str) -> float | None:
        """Which part of it has ended."""
        return self._shares.get(campaign)
