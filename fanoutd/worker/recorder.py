"""The store's side of a worker, in a thread of its own, so that no commit delays a request.

It leases shards and claims windows when the sending side asks for people, and writes outcomes
down in batches: one durable transaction does both. What it has to tell is put into ``inbox``,
and an eventfd wakes the sending side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from fanoutd import failpoint
from fanoutd.bucket import now
from fanoutd.config import Account
from fanoutd.figures_file import Meter
from fanoutd.store import Database, StoreAway, finishing, meta, open_store
from fanoutd.store.schema import VERSION
from fanoutd.worker.claims import Claims
from fanoutd.worker.desk import Desk
from fanoutd.worker.effects import Effects
from fanoutd.worker.holds import Holds
from fanoutd.worker.journals import Journals
from fanoutd.worker.numbered import Numbered
from fanoutd.worker.rests import Rests
from fanoutd.worker.round import Round
from fanoutd.worker.shares import Shares
from fanoutd.worker.speed import Speed
from fanoutd.worker.transaction import Transaction
from fanoutd.worker.words import Broken, Finished, Inbox

#: Pause after the store could not be used, in seconds: the first, and the longest.
_RETRY = (0.05, 2.0)

T = TypeVar("T")


class Recorder:
    """The sending side puts at ``desk``, reads ``inbox`` and writes ``journals``; everything with an underscore runs
    in the thread."""

    def __init__(
        self, store_url: str, journals: Path, node: str, name: str, concurrency: int,
        accounts: Mapping[str, Account], meter: Meter, hooks: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._url, self._meter = store_url, meter
        self.journals = Journals(journals, node, name)
        self.inbox = Inbox()
        self._holds = holds = Holds()
        self.desk = desk = Desk(holds)
        self.speed = speed = Speed(concurrency)
        self.shares = Shares()
        self.late_since = 0.0  # since when there are outcomes that the store does not have; 0: none. CLOCK_MONOTONIC
        self._numbered = Numbered(f"{node}/{name}")
        rests = Rests(accounts)
        claims = Claims(desk, holds, self.journals, rests, speed)
        self._transaction = Transaction(
            desk, holds, self.journals, rests, claims, self._numbered, self.shares, hooks
        )  # fmt: skip
        self._effects = Effects(desk, holds, self.journals, rests, self.inbox)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            db = self._patiently(lambda: _opened(self._url))
            self._patiently(lambda: self._numbered.begin(db))
            while not self.desk.done:
                self.desk.wait(self.speed.company())
                self._work(db)
                self._meter.write_if_due(last=not self._holds)
            self._meter.close()
            self._numbered.forget(db)
            db.close()
            self.journals.current.keep()
            self.inbox.tell(Finished())
        except BaseException as e:
            self.inbox.tell(Broken(e))

    def _patiently(self, step: Callable[[], T]) -> T:
        """Repeat what failed because the store is away: what is claimed goes on, nothing is claimed."""
        pause = _RETRY[0]
        while True:
            try:
                return step()
            except StoreAway:
                time.sleep(pause)
                pause = min(pause * 2, _RETRY[1])

    def _work(self, db: Database) -> None:
        work = self.desk.take_in()
        if self._idle(work):
            return
        work.calls = self.desk.take_calls()
        self._numbered.next()
        self.late_since = time.monotonic() if work.results else 0.0
        self._patiently(lambda: self._numbered.write(db, lambda: self._commit(db, work)))
        self.late_since = 0.0
        self._tally(work)
        if work.results:
            failpoint.reach("after_record")
        self._effects.apply(work)
        self.speed.measure(len(work.results), work.at)
        self._effects.tell(work)
        if work.freed:
            self._finish_campaigns(db, work)

    def _idle(self, work: Round) -> bool:
        """Nothing to write and nothing to ask the store for."""
        asked = self.desk.wants_people(work)
        due = any(hold.aged(work.at) or self.desk.over(hold, work) for hold in self._holds)
        return not (work.errands or work.closed or work.learnt or asked or due)

    def _commit(self, db: Database, work: Round) -> None:
        began = now()
        self._transaction.commit(db, work)
        self.speed.wrote(now() - began)

    def _tally(self, work: Round) -> None:
        """Who dies before this has not counted them, and nobody else does: what is recorded is not recovered."""
        for account, ended in work.ended.items():
            self._meter.count(account, ended)
        if work.ended:
            self._meter.write()

    def _finish_campaigns(self, db: Database, work: Round) -> None:
        """In a transaction after that of the last record: of two workers at the end, one sees both."""
        try:
            for campaign in {hold.campaign.id for hold in work.freed}:
                if not finishing.unfinished(db, campaign):
                    with db.transaction():
                        finishing.finish(db, campaign)
        except StoreAway:
            pass  # the dispatcher's rescue sweep does it
        if not self._holds:
            self.journals.exchange()


def _opened(url: str) -> Database:
    """Raises StoreAway also while a worker of a new program is ahead of its dispatcher, which brings the tables."""
    db = open_store(url)
    if int(meta.read(db, "version") or 0) < VERSION:
        db.close()
        raise StoreAway(f"store {db.place}: its tables are not of this version yet")
    return db
