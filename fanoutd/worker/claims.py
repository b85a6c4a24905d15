"""How a round claims people: from the shards in hand first, then from new ones, up to a window.

What must be known for it is asked ahead, for the store may be far. All of it may fail and be repeated: it changes the
round, nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fanoutd import failpoint
from fanoutd.outcome import State
from fanoutd.store import Database, free_shards, shard_leases, windows
from fanoutd.store.database import Later
from fanoutd.store.deliveries import Person
from fanoutd.store.windows import Window
from fanoutd.worker import sift
from fanoutd.worker.desk import Desk
from fanoutd.worker.holds import Hold, Holds
from fanoutd.worker.journals import Journals
from fanoutd.worker.rests import PARKED, Rests
from fanoutd.worker.round import SKIPPED_AT_ONCE, Round
from fanoutd.worker.sift import Asked
from fanoutd.worker.speed import Speed
from fanoutd.worker.words import Claimed

#: Records that one person may need in one lease: two for each try on each channel, and some for tokens.
_RECORDS_PER_PERSON = 36


@dataclass(slots=True)
class _People:
    """Who comes next in a leased shard, and what the store knows of them."""

    hold: Hold
    window: Window
    asked: Asked


@dataclass(slots=True)
class Ahead:
    """What a claim needs, asked before it is known whether it comes to one."""

    people: list[_People]
    free: Later | None


class Claims:
    def __init__(self, desk: Desk, holds: Holds, journals: Journals, rests: Rests, speed: Speed) -> None:
        self._desk, self._holds, self._journals, self._rests, self._speed = desk, holds, journals, rests, speed

    def ask_ahead(self, db: Database, work: Round) -> Ahead:
        """Who would be claimed, and what must be known of them: asked while outcomes are written, for the store may
        be far."""
        if not self._desk.wants_people(work) or not self._may_claim(work):
            return Ahead([], None)
        window = self._speed.window()
        holds = [hold for hold in self._holds if not hold.exhausted and not hold.lost]
        asked = _ask_for(db, [(hold, windows.ask(db, hold.lease, window)) for hold in holds])
        enough = sum(len(people.window.people() or []) for people in asked) >= window
        return Ahead(asked, None if enough else free_shards.ask_free(db))

    def claim(self, db: Database, work: Round, ahead: Ahead) -> None:
        """Claim one window, if people are asked for and may be claimed."""
        if not self._desk.wants_people(work):
            return
        work.full = not self._may_claim(work)
        if work.full:
            return
        room = self._speed.window()
        failpoint.reach("before_claim")
        if self._reserve(work, room):
            room -= self._claim_of(db, [each for each in ahead.people if not work.gone(each.hold)], room, work)
            self._claim_new(db, work, ahead.free, room)

    def _may_claim(self, work: Round) -> bool:
        """At most two windows may be claimed and unrecorded."""
        return sum(hold.open - work.closed[hold] for hold in self._holds) <= self._speed.window()

    def _reserve(self, work: Round, room: int) -> bool:
        """Whether the journal has room for what becomes of so many people."""
        try:
            self._journals.current.reserve(room * _RECORDS_PER_PERSON)
        except OSError as e:  # a full disk: nobody is claimed whose sending could not be written down
            work.no_room = e
            # Given back when what is on the wire is recorded: who is idle would keep them from everybody.
            work.parked += [hold for hold in self._holds if not hold.exhausted and not work.gone(hold)]
            return False
        return True

    def _claim_new(self, db: Database, work: Round, free: Later | None, room: int) -> None:
        """From shards that nobody has: those seen ``free`` before, if that was asked, then from others."""
        while room > 0 and not self._journals.large and work.skipped < SKIPPED_AT_ONCE:
            taken = free_shards.take(db, self._journals.owner, room, free)
            free = None
            if not taken:
                work.passed |= db.shared and free_shards.ready(db) > 0
                break
            for lease, _, _ in taken:
                self._journals.current.lease(lease.shard, lease.token, lease.campaign)
            windows = [(Hold(lease, campaign, 0.0, 0.0), window) for lease, campaign, window in taken]
            room -= self._claim_of(db, _ask_for(db, windows), room, work)
            if db.shared:  # who takes several at once goes upwards, or two would wait for each other's: once in a round
                work.passed = True
                break

    def _claim_of(self, db: Database, asked: list[_People], room: int, work: Round) -> int:
        """Up to ``room`` people, from one shard after the other."""
        used = 0
        for each in asked:
            if used < room:
                used += self._claim_from(db, each, room - used, work)
            elif each.hold not in self._holds:
                shard_leases.release(db, each.hold.lease)
        return used

    def _claim_from(self, db: Database, given: _People, room: int, work: Round) -> int:
        """Up to ``room`` people to send to, and how much of it is used up.

        Those who take no messages any more are skipped on the way, those whose channel is closed handed back.
        """
        hold = given.hold
        window: Window | None = given.window
        asked: Asked | None = given.asked
        allowed = self._rests.allow(db, hold.campaign, hold.lease, room)
        if not allowed.room:
            return self._pass_over(db, hold, work)
        kept: list[Person] = []
        last, passed = False, 0
        while not last and not passed and len(kept) < allowed.room:
            wanted = allowed.room - len(kept)
            people = windows.claim(db, hold.lease, wanted, window)
            if people is None:
                work.lost.append(hold)
                if hold not in self._holds:  # the campaign was stopped since we took the shard, just now
                    shard_leases.release(db, hold.lease)
                return 0
            last = len(people) < wanted
            takers = sift.sift(db, hold.campaign, hold.lease, people, asked)
            window = asked = None  # whoever comes after them is asked for now
            if skipped := len(people) - len(takers):
                work.skipped += skipped
                work.count(hold.campaign.account, Counter({(State.SKIPPED, None, None): skipped}))
            due = self._rests.sift(db, hold.campaign, hold.lease, takers, allowed)
            passed += len(takers) - len(due)
            kept += due
        work.passed |= passed > 0
        self._rests.intend(hold.campaign, work.day, len(kept))
        work.renewed.append(hold)
        work.claimed.append(Claimed(hold, kept, last, allowed.probe))
        return len(kept) + passed

    def _pass_over(self, db: Database, hold: Hold, work: Round) -> int:
        """Nobody who is left in it can be sent to now."""
        work.passed = True
        if hold in self._holds:
            work.parked.append(hold)
            return 0
        shard_leases.release(db, hold.lease, self._rests.put_off(db, hold.campaign, hold.lease))
        return PARKED


def _ask_for(db: Database, windows: list[tuple[Hold, Window]]) -> list[_People]:
    return [_People(hold, window, sift.ask(db, hold.campaign, window.people() or [])) for hold, window in windows]
