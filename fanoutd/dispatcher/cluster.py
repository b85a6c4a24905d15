"""This node among those of a shared store: it is heard of once a second, and may be the one that leads.

On a store of one machine there is nobody to tell: no thread, no statement, and this node leads.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fanoutd import __version__
from fanoutd.boot import boot_id, uptime_ms
from fanoutd.store import Database, StoreAway, again_if_busy, leases, nodes
from fanoutd.store.clock import keep_up

log = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT = 1.0

#: The leader's lease, and how long before its end its holder stops to act on it, in milliseconds.
TERM_MS, MARGIN_MS = 10_000, 2_000

#: A lease for a piece of work, renewed with each beat: how long others wait for a node that died in it.
HOLD_MS = 6_000

#: Seconds between two tries for a lease that somebody else has.
_TRY = 0.2

_LEADER = "leader"

EachBeat = Callable[[Database], None]
"""Called with the beat's own connection, in its thread, in no transaction; what it raises is logged. It must be short:
the leader's lease is renewed by the same thread."""

Hold = Callable[[Database, str, float], AbstractContextManager[bool]]
"""As ``Cluster.hold``."""


def nobody_else(_db: Database, _name: str, _patience: float) -> AbstractContextManager[bool]:
    """``hold`` of a node that is alone."""
    return nullcontext(True)


class Cluster:
    """``connect`` gives the calling thread's connection; ``workers()`` says how many this node has."""

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
        self._asked = threading.Event()
        self._held: dict[str, int] = {}
        self._holding = threading.Lock()

    def each_beat(self, callback: EachBeat) -> None:
        """Have it called about once a second while the node is one of several; before ``begin``."""
        self._callbacks.append(callback)

    @property
    def leads(self) -> bool:
        """Whether this node is the one that does what is done once for all; at this moment, by its own clock."""
        return self._alone or uptime_ms() < self._leads_until

    def knows(self, patience: float) -> bool:
        """Whether it has been found out who leads, which takes a moment after the start; so many seconds are waited."""
        return self._alone or self._asked.wait(patience)

    def join(self, db: Database) -> None:
        """Be known to the others, before anything else is done. Raises nodes.NameTaken, StoreAway."""
        if not db.shared:
            self._alone = True
            return

        def join() -> None:
            with db.transaction():
                nodes.join(db, self.node, self._secret, boot_id(), __version__)

        keep_up(db)
        again_if_busy(join)

    def others_live(self, db: Database) -> bool:
        """Whether another node is at work in this store now: it would have found out a store that was put back."""
        return db.shared and any(each.node != self.node for each in nodes.living(db))

    def begin(self) -> None:
        """Beat from here on."""
        if not self._alone and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
            self._thread.start()

    def leave(self, patience: float) -> None:
        """The node stops, in order: whoever comes next need not wait. Not for longer than so many seconds."""
        if self._thread is not None:
            self._ending.set()
            self._thread.join(patience)

    @contextmanager
    def hold(self, db: Database, name: str, patience: float = 0.0) -> Iterator[bool]:
        """Whether nobody else, here or on another node, does what has this name; nobody begins it within the block.

        ``patience``: seconds to wait for whoever does. A node that dies in it keeps the others out for ``HOLD_MS``.
        """
        if not db.shared:
            yield True
            return
        token = self._try(db, name, time.monotonic() + patience)
        try:
            yield token is not None
        finally:
            if token is not None:
                self._let_go(db, name, token)

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

    # ---- leases of work

    def _try(self, db: Database, name: str, until: float) -> int | None:
        while True:
            with self._holding:
                if name not in self._held and (token := leases.take(db, name, self.node, HOLD_MS)) is not None:
                    self._held[name] = token
                    return token
            if time.monotonic() >= until:
                return None
            time.sleep(_TRY)

    def _let_go(self, db: Database, name: str, token: int) -> None:
        with self._holding:
            self._held.pop(name, None)
        try:
            leases.give_back(db, name, self.node, token)
        except StoreAway as e:  # it ends by itself
            log.debug("lease %s: %s", name, e)

    # ---- the beat

    def _run(self) -> None:
        """The thread's outermost frame."""
        due = time.monotonic()
        while not self._ending.is_set():
            self._guarded(self._beat)
            due = max(due + BEAT, time.monotonic())
            self._ending.wait(due - time.monotonic())
        self._guarded(self._leave)

    def _guarded(self, step: EachBeat) -> None:
        try:
            step(self._connect())
        except nodes.NameTaken as e:  # whoever comes in our place is told why it may do nothing
            log.error("%s", e)
            os.kill(os.getpid(), signal.SIGTERM)
        except StoreAway as e:  # who asks for something is told so; here it would be a line a second
            log.debug("beat: %s", e)
        except Exception:
            log.exception("beat: %s failed", getattr(step, "__qualname__", step))

    def _beat(self, db: Database) -> None:
        if not nodes.beat(db, self.node, self._secret, boot_id(), self._workers()):
            self.join(db)  # the store was put back to a time before us; or another machine has our name
        self._lead(db)
        self._asked.set()
        for name, token in list(self._held.items()):
            leases.renew(db, name, self.node, token, HOLD_MS)
        keep_up(db)
        for callback in self._callbacks:
            self._guarded(callback)

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
            log.info("this node leads: what is done once for all nodes is done here")

    def _leave(self, db: Database) -> None:
        token, self._token, self._leads_until = self._token, None, 0
        if token is not None:
            leases.give_back(db, _LEADER, self.node, token)
        nodes.leave(db, self.node, self._secret)
