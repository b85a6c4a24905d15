"""After the commit: what is true in the store becomes true here, and the sending side hears of it."""

from __future__ import annotations

from fanoutd import failpoint
from fanoutd.worker.desk import Desk
from fanoutd.worker.holds import Holds
from fanoutd.worker.journals import Journals
from fanoutd.worker.rests import Rests
from fanoutd.worker.round import Round
from fanoutd.worker.words import Claimed, Dry, Inbox, Lost, NoRoom, Resting


class Effects:
    def __init__(self, desk: Desk, holds: Holds, journals: Journals, rests: Rests, inbox: Inbox) -> None:
        self._desk, self._holds, self._journals, self._rests, self._inbox = desk, holds, journals, rests, inbox

    def apply(self, work: Round) -> None:
        """Make it true in the shards in hand."""
        for hold, count in work.closed.items():
            hold.open -= count
            hold.intent.recorded(count)
        for hold in work.parked:
            hold.exhausted = True
        for hold in work.renewed:
            hold.renew(work.at)
        for hold in work.lost:
            hold.lost = hold.taken = True
        for claimed in work.claimed:
            self._add(claimed, work.day)
        self._holds.drop(work.freed)

    def _add(self, claimed: Claimed, day: int) -> None:
        hold = claimed.hold
        hold.open += len(claimed.people)
        hold.intent.claimed(len(claimed.people), day)
        hold.exhausted = claimed.last
        if hold not in self._holds:
            self._journals.current.granted(hold.lease.shard, hold.lease.token, hold.lease.campaign)
            self._holds.add(hold)

    def tell(self, work: Round) -> None:
        """Say it to the sending side."""
        for hold in work.lost:
            self._inbox.tell(Lost(hold))
        if work.claimed:
            failpoint.reach("after_claim")
        for account, channels in work.rests.items():
            self._inbox.tell(Resting(account, channels))
        self._rests.heard(work.rests)
        for claimed in work.claimed:
            if claimed.people:
                self._inbox.tell(claimed)
        for word in work.tokens:
            self._inbox.tell(word)
        if self._desk.wants_people(work):
            self._answer(work, any(claimed.people for claimed in work.claimed))

    def _answer(self, work: Round, found: bool) -> None:
        """Of those who were asked for."""
        self._desk.postpone(work.full)
        if work.no_room is not None:
            self._inbox.tell(NoRoom(work.asked, work.no_room))
            self._desk.served(work)
        elif not work.full and (found or not work.more_to_look_at):
            self._desk.served(work)
            if not found:
                self._inbox.tell(Dry(work.asked))
