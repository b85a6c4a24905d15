"""``daemon.status`` as far as the dispatcher knows it: the store, accounts, shards, nodes, and what is promised."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fanoutd.config import Config, sqlite_path
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.durability import Durability
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.threads import Threads
from fanoutd.store import Database, shards


class Status:
    def __init__(
        self, config: Config, threads: Threads, cluster: Cluster, refresher: Refresher, limits: Limits,
        durability: Durability, mail: Callable[[], dict[str, Any] | None],
    ) -> None:  # fmt: skip
        self._config, self._threads, self._cluster = config, threads, cluster
        self._refresher, self._limits, self._durability, self._mail = refresher, limits, durability, mail

    def of(self, db: Database) -> dict[str, Any]:
        """{store, accounts, shards, nodes, promise, mail}, shaped as the protocol's document says. Raises StoreAway."""
        started = time.monotonic()
        waiting, leased = shards.totals(db)
        latency = (time.monotonic() - started) * 1000
        trouble = self._threads.store_trouble
        return {
            "store": {"kind": db.kind, "ok": trouble is None, "latency_ms": round(latency, 2), "error": trouble},
            "accounts": [self._account(db, name) for name in self._config.accounts],
            "shards": {"pending": waiting, "leased": leased},
            "nodes": self._cluster.view(db),
            "promise": self._durability.promise(),
            "mail": self._mail(),
        }

    def without_store(self, why: str) -> dict[str, Any]:
        """The same while the store cannot be asked."""
        kind = "sqlite" if sqlite_path(self._config.store_url) else "mysql"
        return {
            "store": {"kind": kind, "ok": False, "latency_ms": None, "error": why},
            "accounts": [], "shards": {"pending": None, "leased": None}, "nodes": [],
            "promise": self._durability.promise(), "mail": self._mail(),
        }  # fmt: skip

    def _account(self, db: Database, name: str) -> dict[str, Any]:
        token = self._refresher.shown(db, name)
        return {
            "name": name,
            "token": {key: token[key] for key in ("ok", "expires_in", "source", "error")},
            "rate": self._limits.rate(name),
            "part": self._limits.part(name),
            "quota": self._limits.quota(db, name),
        }
