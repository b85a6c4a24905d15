"""One look at the node for its metrics, from what the workers have counted, the master's facts and the store.

It takes no longer than two seconds, whatever is away: what could not be asked is left out.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanoutd import __version__
from fanoutd.config import Config
from fanoutd.dispatcher.facts import Facts
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.restarts import Restarts
from fanoutd.dispatcher.status import Status
from fanoutd.dispatcher.threads import Threads
from fanoutd.dispatcher.trust import Trust
from fanoutd.figures_file import folder_of, read_all
from fanoutd.store import Database, StoreAway, campaigns

if TYPE_CHECKING:
    from fanoutd.metrics import StoreView

log = logging.getLogger(__name__)

#: Seconds for which the master and the store are waited for, both together.
PATIENCE = 1.5

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Metering:
    """May be used by several threads."""

    def __init__(
        self, config: Config, facts: Facts, threads: Threads, trust: Trust, status: Status, limits: Limits,
        restarts: Restarts,
    ) -> None:  # fmt: skip
        self._config, self._facts, self._threads, self._trust = config, facts, threads, trust
        self._status, self._limits, self._restarts = status, limits, restarts
        self._lock = threading.Lock()
        self._looking: Any = None
        self._seen: tuple[float, StoreView | None] = 0.0, None

    def text(self) -> str:
        """The metrics, as ``daemon.metrics`` gives them and Prometheus reads them."""
        from fanoutd import metrics  # only here: whoever never asks has not its libraries in memory

        began = time.monotonic()
        looking = self._look()
        facts = self._facts.ask(PATIENCE)
        wait([looking], max(0.0, began + PATIENCE - time.monotonic()))
        at, store = self._seen
        state_dir = self._config.daemon.state_dir
        return metrics.text(metrics.View(
            version=__version__, figures=read_all(folder_of(state_dir)), restarts=self._restarts.count(facts),
            facts=facts, store=store if at >= began else None, rates=dict(self._rates()), resident=resident(facts),
            mail_waiting=waiting(state_dir / "mail" / "new") if self._config.mail else None,
        ))  # fmt: skip

    def _look(self) -> Any:
        """Have the store asked by a thread that may hang there; one at a time."""
        with self._lock:
            if self._looking is None or self._looking.done():
                self._looking = self._threads.looks.submit(self._ask_store)
            return self._looking

    def _ask_store(self) -> None:
        view = None
        try:
            if self._trust.given.is_set():
                view = self._view(self._threads.db())
        except StoreAway:
            pass  # others say so in the log
        self._seen = time.monotonic(), view

    def _view(self, db: Database) -> StoreView:
        from fanoutd.metrics import StoreView

        began = time.monotonic()
        by_state = campaigns.by_state(db)
        seconds = time.monotonic() - began
        said = self._status.of(db)
        return StoreView(seconds, said["shards"], by_state, said["accounts"], said["nodes"])

    def _rates(self) -> Iterator[tuple[str, float]]:
        for name in self._config.accounts:
            try:
                yield name, self._limits.rate(name)
            except OSError as e:
                log.warning("the rate of account %s cannot be read: %s", name, e.strerror)


def resident(facts: Mapping[str, Any] | None) -> dict[str, int]:
    """Bytes by role: master, dispatcher, worker, mold."""
    if facts is None:
        return {}
    found: dict[str, int] = {}
    try:
        found["master"] = int(Path(f"/proc/{facts['pid']}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        pass
    for row in facts["workers"]:
        if row["rss_bytes"] is not None:
            found[row["role"]] = found.get(row["role"], 0) + row["rss_bytes"]
    return found


def waiting(folder: Path) -> int:
    """Files in it."""
    try:
        return sum(1 for _ in os.scandir(folder))
    except OSError:
        return 0
