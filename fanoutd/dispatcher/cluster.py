"""This node among those of a shared store: it is heard of once a second, and may be the one that leads.

On a store of one machine there is nobody to tell: no thread, no statement, and this node leads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fanoutd import __version__
from fanoutd.boot import uptime_ms
from fanoutd.store import Database, StoreAway, again_if_busy, leases, nodes

log = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT = 1.0

#: The leader's lease, and how long before its end its holder stops to act on it, in milliseconds.
TERM_MS, MARGIN_MS = 10_000, 2_000

_LEADER = "leader"

EachBeat = Callable[[Database], None]
"""Called with the beat's own connection, in its thread, in no transaction; what it raises is logged."""


class Cluster:
    """``connect`` opens a connection for the beat; ``workers()`` says how many this node has."""

    def __init__(
        self, node: str, secret: str, connect: Callable[[], Database], workers: Callable[[], int] = lambda: 0
    ) -> None:
        self.node, self._secret = node, secret
        self._connect, self._workers = connect, workers
        self._callbacks: list[EachBeat] = []
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._token: int | None = None
        self._leads_until = 0
        self._alone = False

    def each_beat(self, callback: EachBeat) -> None:
        """Have it called about once a second while the node is one of several; before ``begin``."""
        self._callbacks.append(callback)

    @property
    def leads(self) -> bool:
        """Whether this node is the one that does what is done once for all; at this moment, by its own clock."""
        return self._alone or uptime_ms() < self._leads_until

    def join(self, db: Database) -> None:
        """Be known to the others, before anything else is done. Raises nodes.NameTaken, StoreAway."""
        if not db.shared:
            self._alone = True
            return

        def join() -> None:
            with db.transaction():
                nodes.join(db, self.node, self._secret, __version__)

        again_if_busy(join)

    def begin(self) -> None:
        """Beat from here on."""
        if not self._alone and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
            self._thread.start()

    def leave(self, db: Database) -> None:
        """In order: others need not wait. Raises StoreAway."""
        self._ending.set()
        if self._alone or self._thread is None:
            return
        self._thread.join(BEAT)
        token, self._token, self._leads_until = self._token, None, 0
        if token is not None:
            leases.give_back(db, _LEADER, self.node, token)
        nodes.leave(db, self.node, self._secret)

    def view(self, db: Database) -> list[dict[str, Any]]:
        """The status's ``nodes``."""
        if not db.shared:
            return [{"node": self.node, "heartbeat_age": 0.0, "version": __version__, "leads": True}]
        leader = leases.holder(db, _LEADER)
        return [
            {"node": each.node, "heartbeat_age": each.age_ms / 1000, "version": each.version,
             "leads": each.node == leader}
            for each in nodes.living(db, nodes.SHOWN_MS)
        ]  # fmt: skip

    def _run(self) -> None:
        """The thread's outermost frame."""
        db: Database | None = None
        due = time.monotonic()
        while not self._ending.is_set():
            try:
                db = db or self._connect()
                self._beat(db)
            except StoreAway as e:
                log.debug("beat: %s", e)
            except Exception:
                log.exception("beat failed")
            due = max(due + BEAT, time.monotonic())
            self._ending.wait(due - time.monotonic())

    def _beat(self, db: Database) -> None:
        if not nodes.beat(db, self.node, self._secret, self._workers()):
            self.join(db)
        self._lead(db)
        for callback in self._callbacks:
            try:
                callback(db)
            except StoreAway:
                raise
            except Exception:
                log.exception("beat: %s failed", getattr(callback, "__qualname__", callback))

    def _lead(self, db: Database) -> None:
        """Go on leading, or begin when nobody does. The term counts from before the question."""
        until = uptime_ms() + TERM_MS - MARGIN_MS
        if self._token is not None and leases.renew(db, _LEADER, self.node, self._token, TERM_MS):
            self._leads_until = until
            return
        self._token = leases.take(db, _LEADER, self.node, TERM_MS)
        if self._token is None:
            self._leads_until = 0
        else:
            self._leads_until = until
            log.info("node %s leads", self.node)
