"""What a crontab plans, for the node that leads: the digest, the sync of followers.

The clock says when; the store remembers for which planned time it was done. So one whose time was missed is made up
for, and none is done twice, whatever dies, whoever leads and however clocks are set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from fanoutd.chores import LATEST, lines
from fanoutd.config import Config
from fanoutd.store import Database, chores
from fanoutd.store.chores import Mark
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: Seconds until one that failed is tried again.
_PAUSE = {"digest": 60.0, "sync": 600.0}

#: Those that may have had their effect when the node that began them is gone: another node does not begin them again.
_ONCE = ("digest",)

Work = Callable[[int, int], str | None]
"""Given the planned time, and the one before it that was seen to; in words what was done."""


class Chores:
    """``work``: by name. ``connect`` gives the calling thread's connection; ``say`` speaks to
    the master."""

    def __init__(
        self, config: Config, node: str, connect: Callable[[], Database], say: Callable[[dict[str, Any]], None],
        work: Mapping[str, Work],
    ) -> None:  # fmt: skip
        self._node, self._connect, self._say = node, connect, say
        self._timezone = config.schedule.timezone
        self._lines = lines(config)
        self._work = {name: work[name] for name in self._lines}
        self._not_before: dict[str, float] = {}

    def look(self) -> None:
        """Ask the clock to have done what was missed. Raises StoreAway."""
        for name in self._work:
            if time.monotonic() >= self._not_before.get(name, 0.0) and self._due(name)[1] is not None:
                self._say({"t": "due", "name": name})

    def do(self, name: str) -> str | None:
        """Whatever of it is due; in words what was done. Raises what the work raises."""
        if name not in self._work:
            return "off"
        mark, planned = self._due(name)
        if planned is None:
            return "nothing is due"
        before = mark.before(planned - 1)
        if not self._begin(name, planned):
            return f"node {mark.by} began it, and may have ended it"
        try:
            said = self._work[name](planned, before)
        except Exception:
            self._not_before[name] = time.monotonic() + _PAUSE[name]
            raise
        self._keep(name, planned, lambda mark: mark.ended(planned))
        return said

    def _due(self, name: str) -> tuple[Mark, int | None]:
        now = wall_ms()
        mark = chores.look(self._connect(), name, now)
        return mark, mark.due(self._lines[name], self._timezone, now, int(LATEST * 1000))

    def _begin(self, name: str, planned: int) -> bool:
        """False: it is left to the node that began it, and counts as done."""
        ours = True

        def begun(mark: Mark) -> Mark:
            nonlocal ours
            ours = name not in _ONCE or mark.begun != planned or mark.by == self._node
            return Mark(mark.since, mark.done, planned, self._node) if ours else mark.ended(planned)

        self._keep(name, planned, begun)
        return ours

    def _keep(self, name: str, planned: int, change: Callable[[Mark], Mark]) -> None:
        db = self._connect()
        with db.transaction():
            chores.keep(db, name, change(chores.hold(db, name) or Mark(planned - 1)))
