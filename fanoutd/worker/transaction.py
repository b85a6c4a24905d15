"""The one durable transaction of a round, step by step: errands, outcomes, leases given back and renewed, a claim."""

from __future__ import annotations

from collections.abc import Collection

from fanoutd.store import Database, quotas, shard_leases, shards
from fanoutd.store.clock import keep_up
from fanoutd.times import wall_ms
from fanoutd.worker import errands, records
from fanoutd.worker.claims import Claims
from fanoutd.worker.desk import Desk
from fanoutd.worker.holds import Holds
from fanoutd.worker.journals import Journals
from fanoutd.worker.numbered import Numbered
from fanoutd.worker.rests import Rests
from fanoutd.worker.round import Round
from fanoutd.worker.shares import Shares


class Transaction:
    """``hooks``: the statements that some audience has."""

    def __init__(
        self, desk: Desk, holds: Holds, journals: Journals, rests: Rests, claims: Claims, numbered: Numbered,
        shares: Shares, hooks: Collection[str],
    ) -> None:  # fmt: skip
        self._desk, self._holds, self._journals, self._rests = desk, holds, journals, rests
        self._claims, self._numbered, self._shares, self._hooks = claims, numbered, shares, hooks

    def commit(self, db: Database, work: Round) -> None:
        """One durable transaction. It may fail and be repeated: it changes the round, nothing else. What its COMMIT
        is sent with has answers that nobody looks at, for they may never come."""
        keep_up(db)
        work.begin(quotas.day(wall_ms()))
        self._rests.begin(self._journals.owner)
        with db.transaction():
            mark = self._numbered.mark(db)
            shards.lock(db, (hold.lease.shard for hold in self._holds))
            errands.run(db, work)
            recording = records.ask_to_record(db, work)
            self._rests.ask(db, self._holds.accounts())
            ahead = self._claims.ask_ahead(db, work)
            records.record(db, work, recording)
            records.learn(db, work, self._hooks)
            self._count(work)
            self._shares.look(db, self._holds, work.at)
            self._give_back(db, work)
            self._renew(db, work)
            if self._numbered.went_back(db, mark):
                work.lost += [hold for hold in self._holds if not work.gone(hold)]
            else:
                self._claims.claim(db, work, ahead)
            work.rests = self._rests.news(db, self._holds.accounts() | _accounts(work))
            self._rests.write(db)

    def _count(self, work: Round) -> None:
        """Of the day's calls: those that left, in place of the intentions of whoever is recorded."""
        self._rests.count(work.calls)
        for hold, closed in work.closed.items():
            self._rests.intend(hold.campaign, hold.intent.day, -hold.intent.of_today(closed))

    def _give_back(self, db: Database, work: Round) -> None:
        work.freed = [hold for hold in self._holds if self._desk.over(hold, work)]
        for hold in work.freed:
            shard_leases.release(db, hold.lease, self._rests.put_off(db, hold.campaign, hold.lease))

    def _renew(self, db: Database, work: Round) -> None:
        due = [hold for hold in self._holds if hold.aged(work.at) and not work.gone(hold)]
        for hold, renewed in [(hold, shard_leases.asked_to_renew(db, hold.lease)) for hold in due]:
            (work.renewed if renewed.count() else work.lost).append(hold)


def _accounts(work: Round) -> set[str]:
    """Of whom people are claimed."""
    return {claimed.hold.campaign.account for claimed in work.claimed}
