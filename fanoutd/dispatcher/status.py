"""``daemon.status`` as far as the dispatcher knows it: the store, accounts, shards, nodes, and what is promised."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from fanoutd.config import Config, sqlite_path
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.durability import Durability
from fanoutd.dispatcher.health import Health
from fanoutd.dispatcher.inquiry import Inquiry
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.threads import Threads
from fanoutd.store import Database, StoreAway, free_shards, open_store

#: Seconds for which a store that was of no use when it was last looked at is waited for.
_SOON = 1.0


class Status:
    def __init__(
        self, config: Config, threads: Threads, cluster: Cluster, refresher: Refresher, limits: Limits,
        durability: Durability, mail: Callable[[], dict[str, Any] | None], health: Health,
    ) -> None:  # fmt: skip
        self._health, self._conditions = health, health.view
        self._inquiry = Inquiry(self._ask, "status")
        self._config, self._threads, self._cluster = config, threads, cluster
        self._refresher, self._limits, self._durability, self._mail = refresher, limits, durability, mail

    def of(self, db: Database) -> dict[str, Any]:
        """{store, accounts, shards, nodes, promise, mail, conditions}, as docs/protocol.md says. Raises StoreAway."""
        started = time.monotonic()
        waiting, leased = free_shards.totals(db)
        latency = (time.monotonic() - started) * 1000
        trouble = self._threads.store_trouble.words
        return {
            "store": {"kind": db.kind, "ok": trouble is None, "latency_ms": round(latency, 2), "error": trouble},
            "accounts": [self._account(db, name) for name in self._config.accounts],
            "shards": {"pending": waiting, "leased": leased},
            "nodes": self._cluster.view(db),
            "promise": self._durability.promise(),
            "mail": self._mail(),
            "conditions": self._conditions(),
        }

    @property
    def store_trouble(self) -> str | None:
        """Why the store was of no use when health last looked."""
        return self._health.store_trouble

    def at_once(self) -> dict[str, Any]:
        """The same while the store may hang: what is known without it, if it does not answer soon. For one thread."""
        self._inquiry.ask()
        answer = self._inquiry.answer(_SOON)
        if answer.value is not None:
            return answer.value
        words = str(answer.error) if isinstance(answer.error, StoreAway) else self.store_trouble
        return self.without_store(words or "the store does not answer")

    def _ask(self) -> dict[str, Any]:
        with closing(open_store(self._config.store_url)) as db:
            return self.of(db)

    def without_store(self, why: str) -> dict[str, Any]:
        """The same while the store cannot be asked."""
        kind = "sqlite" if sqlite_path(self._config.store_url) else "mysql"
        return {
            "store": {"kind": kind, "ok": False, "latency_ms": None, "error": why},
            "accounts": [], "shards": {"pending": None, "leased": None}, "nodes": [],
            "promise": self._durability.promise(), "mail": self._mail(), "conditions": self._conditions(),
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
