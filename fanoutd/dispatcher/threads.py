"""The dispatcher's threads: pools by what they wait for, so that none starves another; a connection for each thread.

Imports, plans' beginnings, repairs and recovery run one after the other, at the desk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from fanoutd.dispatcher.store_trouble import StoreTrouble
from fanoutd.store import Database, StoreAway, again_if_busy, open_store

log = logging.getLogger(__name__)

T = TypeVar("T")


class Threads:
    """``url`` of the store. A thread is begun when there is something for it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()
        self._promised: set[Future[None]] = set()
        self.store_trouble = StoreTrouble()
        self.desk = Pool(self, 1, "desk")
        self.checks = Pool(self, 4, "check")  # WeChat may be slow to answer: no plan waits behind it
        self.plans = Pool(self, 2, "plan")
        self.lists = Pool(self, 1, "list")  # they wait for no database of the operator's
        self.asks = Pool(self, 2, "ask")
        self.statuses = Pool(self, 1, "status")  # of a store that may hang
        self.obeying = Pool(self, 8, "obey")  # each waits for other nodes, and does nothing else
        self.forecasts = Pool(self, 1, "forecast")  # a million people are not counted at once
        self.jobs = Pool(self, 3, "job")
        self.health = Pool(self, 1, "health")  # it tells of what all others may be stuck in
        self.upkeep = Pool(self, 3, "upkeep")  # each may take minutes
        self.tokens = Pool(self, 2, "token")  # each may wait for WeChat
        self.metrics = Pool(self, 1, "metric")
        self.looks = Pool(self, 1, "look")  # at the store, which may be away, for those who do not wait for it
        self.syncs = Pool(self, 1, "sync")
        self.mails = Pool(self, 2, "mail-test")

    def db(self) -> Database:
        """The calling thread's connection. Raises StoreAway."""
        if not hasattr(self._local, "db"):
            self._local.db = open_store(self._url)
        db: Database = self._local.db
        return db

    def promise(self, given: Future[None]) -> None:
        """Somebody waits for it: what is begun when we are told to stop is finished, if it does not take long."""
        self._promised.add(given)
        given.add_done_callback(self._promised.discard)

    def keep_promises(self, patience: float) -> None:
        """Wait for what was promised until now, but no longer than so many seconds."""
        wait(self._promised, patience)

    def guarded(self, step: Callable[..., None], *args: Any) -> None:
        """A thread's outermost frame: trouble is logged, the sweeps take up what was left."""
        try:
            again_if_busy(lambda: step(*args))
        except StoreAway as e:
            self.store_trouble.away(str(e))
        except Exception:
            log.exception("%s failed", step.__name__)


def each_by_itself(step: Callable[[T], object], items: Iterable[T]) -> None:
    """Do it with every one of them: one that fails is logged, and keeps no other waiting. Raises StoreAway."""
    for item in items:
        try:
            again_if_busy(lambda item=item: step(item))  # type: ignore[misc]
        except StoreAway:
            raise
        except Exception:
            log.exception("%s failed", step.__name__)


class Pool:
    """So many threads of a name. ``submit`` and ``result`` raise RuntimeError when the process is about to end."""

    def __init__(self, threads: Threads, size: int, name: str) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(size, name)

    def submit(self, step: Callable[..., None], *args: Any) -> Future[None]:
        """Have it done. What it raises is logged, and is not in the future; StoreBusy has it begun again."""
        return self._executor.submit(self._threads.guarded, step, *args)

    def submit_with_db(self, step: Callable[..., None], *args: Any) -> Future[None]:
        """The same for a step whose first argument is its thread's connection."""

        def with_db() -> None:
            step(self._threads.db(), *args)

        with_db.__name__ = step.__name__
        return self.submit(with_db)

    def result(self, step: Callable[..., T], *args: Any) -> T:
        """Have it done in its turn, and wait for it. Raises what it raises."""
        return self._executor.submit(step, *args).result()
