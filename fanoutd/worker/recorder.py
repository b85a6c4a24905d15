"""The store's side of a worker, in a thread of its own, so that no commit delays a request.

It leases shards and claims windows when the sending side asks for people, and writes outcomes
down in batches: one durable transaction does both. What it has to tell is put into ``inbox``,
and an eventfd wakes the sending side.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fanoutd import failpoint
from fanoutd.bucket import now
from fanoutd.config import Account
from fanoutd.figures_file import Meter
from fanoutd.journal import Journal
from fanoutd.outcome import Ended, Progress, State
from fanoutd.store import (
    Database,
    StoreAway,
    StoreUnsure,
    campaigns,
    meta,
    open_store,
    quotas,
    rounds,
    shards,
    subscribers,
    tokens,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.clock import keep_up
from fanoutd.store.database import Later
from fanoutd.store.schema import VERSION
from fanoutd.store.shards import LEASE_MS, Attempt, Lease, Person, Window
from fanoutd.times import wall_ms
from fanoutd.worker import sift
from fanoutd.worker.rests import PARKED, Calls, Intent, Rests
from fanoutd.worker.sift import Asked

#: How long outcomes wait for company before they are written, in seconds.
INTERVAL = 0.25

#: A lease is renewed when it is this old, and nothing is started this long before its end.
_RENEW_AFTER = 8.0
_MARGIN = 5.0

#: Pause after the store could not be used, in seconds: the first, and the longest.
_RETRY = (0.05, 2.0)

#: Records that one person may need in one lease: two for each try on each channel, and some for tokens.
_RECORDS_PER_PERSON = 36

#: People whom one round looks at in order to skip them; then others get the store.
_SKIPPED_AT_ONCE = 2000

#: Seconds between two looks at how far the campaigns in hand are.
_LOOK_AGAIN = 2.0

#: Of a store that an earlier state has been put back into, for the operator.
WENT_BACK = (
    "the store is an earlier one than that in which this campaign was sent: it was restored from the past; "
    "`fanoutd campaign repair` takes from the journals what has happened since, and lets it go on"
)

#: A journal larger than this is exchanged for a new one as soon as no shard is held.
_LARGE_JOURNAL = 16 << 20


@dataclass(slots=True, eq=False)
class Hold:
    """A leased shard. Written by the recorder; the sending side reads ``deadline`` and ``lost``."""

    lease: Lease
    campaign: Campaign
    deadline: float
    """CLOCK_BOOTTIME seconds after which nothing may be started."""
    renewed: float
    open: int = 0
    """People claimed and not yet recorded."""
    exhausted: bool = False
    lost: bool = False
    taken: bool = False
    """The store has not let it be renewed: somebody may have taken it over, and called its people unknown."""
    intent: Intent = field(default_factory=Intent)
    """What the quota counts for its people."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """People to send to."""

    hold: Hold
    people: list[Person]
    last: bool
    """Nobody more is to be claimed from this shard."""
    probe: int | None = None
    """A channel that rests, on which the one among them may be called: it tries whether the rest is over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing more of this shard may be started; hand its people back."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Dry:
    """There is no shard to be had, after ``asked`` calls for people."""

    asked: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The disk is full: nobody was claimed, after ``asked`` calls for people."""

    asked: int
    error: OSError


@dataclass(frozen=True, slots=True)
class TokenRead:
    account: str
    token: tokens.Token | None


@dataclass(frozen=True, slots=True)
class Resting:
    """The account's channels that have no calls left today, all of them, and until when (ms since 1970)."""

    account: str
    channels: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Broken:
    """The recorder failed in a way that it does not know: the worker must end."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything is recorded and given back."""


T = TypeVar("T")

Word = Claimed | Lost | Dry | NoRoom | TokenRead | Resting | Broken | Finished


@dataclass(slots=True)
class _Round:
    """What one transaction takes in, and what is true once it is durable."""

    errands: list[tuple[str, ...]]
    results: list[tuple[Hold, int, Progress]]
    learnt: list[tuple[str, str, int]]
    closed: Counter[Hold]
    """People of each shard of whom nothing more is open after it."""
    asked: int
    at: float
    """CLOCK_BOOTTIME before it began: leases are measured from here."""
    full: bool = False
    """People were asked for, but two windows are open."""
    ended: dict[str, Ended] = field(default_factory=dict)
    """Who came into a final state by it, by account."""
    skipped: int = 0
    """Claimed only to find that they take no messages."""
    freed: list[Hold] = field(default_factory=list)
    renewed: list[Hold] = field(default_factory=list)
    lost: list[Hold] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    tokens: list[TokenRead] = field(default_factory=list)
    calls: Calls = field(default_factory=Counter)
    """Calls that left since the last round."""
    day: int = 0
    """The quota's day on which it claims."""
    parked: list[Hold] = field(default_factory=list)
    """Nobody more of them can be sent to now."""
    passed: bool = False
    """Shards were passed over, and there may be more."""
    rests: Mapping[str, dict[int, int]] = field(default_factory=dict)
    no_room: OSError | None = None
    """The journal cannot be made larger, and so nothing was claimed."""

    def gone(self, hold: Hold) -> bool:
        return hold in self.freed or hold in self.lost or hold.lost


@dataclass(slots=True)
class _People:
    """Who comes next in a leased shard, and what the store knows of them."""

    hold: Hold
    window: Window
    asked: Asked


@dataclass(slots=True)
class _Ahead:
    """What a claim needs, asked before it is known whether it comes to one."""

    people: list[_People]
    free: Later | None


class Recorder:
    """Methods are called by the sending side; everything with an underscore runs in the thread."""

    def __init__(
        self, store_url: str, journals: Path, node: str, name: str, concurrency: int,
        accounts: Mapping[str, Account], meter: Meter, hooks: Collection[str] = (),
        late: Callable[[float], None] = lambda _since: None,
    ) -> None:  # fmt: skip
        """``late`` is told, by the thread, since when there are outcomes that the store does not have; 0: none."""
        self.inbox: deque[Word] = deque()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._url, self._journals, self._node, self._name = store_url, journals, node, name
        self._worker = f"{node}/{name}"
        self._concurrency = concurrency
        self._meter, self._late = meter, late
        self._hooks = hooks  # the statements that some audience has
        self._rests = Rests(accounts)
        self._calls: deque[tuple[str, int]] = deque()
        self._serial = 0
        self.journal = self._new_journal()
        self._changed = threading.Condition()
        self._results: list[tuple[Hold, int, Progress]] = []
        self._unchanged: list[Hold] = []
        self._learnt: list[tuple[str, str, int]] = []  # account, openid, errcode; 0: one less in their window
        self._errands: list[tuple[str, ...]] = []
        self._round = 0  # the number of the transaction at hand
        self._unsure = False  # its COMMIT was never answered
        self._durable = now()  # when one was last known to be in the store
        self._asked = self._served = 0
        self._full = False  # two windows are open: people asked for must wait for records
        self._ending = False
        self._holds: list[Hold] = []
        self.shares: dict[str, float] = {}  # of campaigns in hand: which part has ended, for the eye only
        self._looked = 0.0
        self._rate = 0.0  # outcomes a second
        self._took = 0.0  # seconds that a transaction takes, as of late
        self.enough = concurrency  # on hand, they last until others are claimed
        self._measured = now()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # ---- called by the sending side

    def ask(self) -> int:
        """Want more people; answered by Claimed or Dry. Returns the number of this call."""
        with self._changed:
            self._asked += 1
            self._changed.notify()
            return self._asked

    def put(self, hold: Hold, pos: int, progress: Progress) -> None:
        """The outcome of a claimed person; pending: handed back with what was learnt."""
        self._results.append((hold, pos, progress))

    def learn(self, account: str, openid: str, errcode: int) -> None:
        """An answer that says something about the person; before their outcome is put, for it is written with that.

        0: a custom message has gone through that their window counts.
        """
        self._learnt.append((account, openid, errcode))

    def put_back(self, hold: Hold) -> None:
        """A claimed person of whom there is nothing new to say."""
        self._unchanged.append(hold)

    def flush(self) -> None:
        """Write now what was put."""
        with self._changed:
            self._changed.notify()

    def read_token(self, account: str) -> None:
        self._errand("token", account)

    def pause(self, campaign: str, cause: str, reason: str) -> None:
        self._errand("pause", campaign, cause, reason)

    def pause_account(self, account: str, cause: str, reason: str) -> None:
        """All that run of it."""
        self._errand("pause_account", account, cause, reason)

    def holds_of(self, account: str) -> list[Hold]:
        return [hold for hold in list(self._holds) if hold.campaign.account == account]

    def let_go(self, campaign: str) -> None:
        """Claim nothing more for this campaign with the leases in hand, and give them back."""
        for hold in list(self._holds):
            if hold.campaign.id == campaign:
                hold.lost = True
        self.flush()

    def explain(self, account: str, cause: str, reason: str) -> None:
        """Say what the account's campaigns wait for; empty: nothing any more."""
        self._errand("explain", account, cause, reason)

    def called(self, account: str, channel: int) -> None:
        """A call leaves: one of the day's."""
        self._calls.append((account, channel))

    def rest(self, account: str, channel: int, until: int) -> None:
        """WeChat says that the day's calls of the channel are used up."""
        self._errand("rest", account, str(channel), str(until))

    def reopen(self, account: str, channel: int) -> None:
        """WeChat takes calls of the channel again."""
        self._errand("reopen", account, str(channel))

    def finish(self) -> None:
        """Claim nothing more; when all is recorded and given back, say Finished."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _errand(self, *errand: str) -> None:
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    # ---- the thread

    def _run(self) -> None:
        try:
            db = self._patiently(lambda: _opened(self._url))
            if db.shared:
                self._patiently(lambda: self._begin_rounds(db))
            while not (self._ending and not self._holds):
                self._wait()
                self._work(db)
                self._meter.write_if_due(last=not self._holds)
            self._meter.close()
            if db.shared:
                self._forget_rounds(db)
            db.close()
            self.journal.keep()
            self._tell(Finished())
        except BaseException as e:
            self._tell(Broken(e))

    def _patiently(self, step: Callable[[], T]) -> T:
        """Repeat what failed because the store is away: what is claimed goes on, nothing is claimed."""
        pause = _RETRY[0]
        while True:
            try:
                return step()
            except StoreAway:
                time.sleep(pause)
                pause = min(pause * 2, _RETRY[1])

    def _wait(self) -> None:
        with self._changed:
            asked = self._asked > self._served and not self._full and not self._ending
            if not (self._errands or asked or (self._ending and not self._holds)):
                self._changed.wait(self._pause())

    def _pause(self) -> float | None:
        """Until outcomes have had company for long enough: to a store that is far away they had it meanwhile."""
        if self._results or self._unchanged:
            return max(0.02, INTERVAL - self._took)
        return INTERVAL if self._holds else None

    def _work(self, db: Database) -> None:
        work = self._take_in()
        if self._idle(work):
            return
        work.calls = Counter(self._calls.popleft() for _ in range(len(self._calls)))
        self._round += 1
        self._late(time.monotonic() if work.results else 0.0)
        self._patiently(lambda: self._write(db, work))
        self._late(0.0)
        self._tally(work)
        if work.results:
            failpoint.reach("after_record")
        self._apply(work)
        if work.freed:
            self._finish_campaigns(db, work)

    def _write(self, db: Database, work: _Round) -> None:
        """Make the round durable, once: one that may be so already is not written again before that is known."""
        if self._unsure:
            with db.transaction():
                done = rounds.durable(db, self._worker, self._round)
            self._unsure = False
            if done:
                self._durable = now()
                return
        began = now()
        try:
            self._commit(db, work)
        except StoreUnsure:
            self._unsure = True
            raise
        self._durable = now()
        self._took += (self._durable - began - self._took) * 0.3

    def _tally(self, work: _Round) -> None:
        """Who dies before this has not counted them, and nobody else does: what is recorded is not recovered."""
        for account, ended in work.ended.items():
            self._meter.count(account, ended)
        if work.ended:
            self._meter.write()

    def _begin_rounds(self, db: Database) -> None:
        with db.transaction():
            rounds.begin(db, self._worker)

    def _forget_rounds(self, db: Database) -> None:
        try:
            rounds.forget(db, self._worker)
        except StoreAway:
            pass  # the dispatcher tidies up

    def _take_in(self) -> _Round:
        with self._changed:
            errands, self._errands = self._errands, []
            asked = self._asked
        # The sending side only ever appends: taking a known number from the front is safe.
        count, count_back = len(self._results), len(self._unchanged)
        results, back = self._results[:count], self._unchanged[:count_back]
        del self._results[:count], self._unchanged[:count_back]
        count_learnt = len(self._learnt)
        learnt = self._learnt[:count_learnt]
        del self._learnt[:count_learnt]
        closed = Counter(hold for hold, _, _ in results)
        closed.update(back)
        return _Round(errands, results, learnt, closed, asked, now())

    def _idle(self, work: _Round) -> bool:
        """Nothing to write and nothing to ask the store for."""
        asked = work.asked > self._served and not self._ending
        aged = any(work.at - h.renewed > _RENEW_AFTER for h in self._holds)
        over = any(self._over(h, work) for h in self._holds)
        return not (work.errands or work.closed or work.learnt or asked or aged or over)

    def _over(self, hold: Hold, work: _Round) -> bool:
        """Nobody of this shard is open after this round, and nobody more will be claimed from it."""
        return (hold.exhausted or hold.lost or self._ending) and hold.open == work.closed[hold]

    def _commit(self, db: Database, work: _Round) -> None:
        """One durable transaction. It may fail and be repeated: it changes the round, nothing else. What its COMMIT
        is sent with has answers that nobody looks at, for they may never come."""
        keep_up(db)
        work.freed, work.renewed, work.lost, work.claimed, work.tokens, work.no_room = [], [], [], [], [], None
        work.skipped, work.parked, work.passed, work.day = 0, [], False, quotas.day(wall_ms())
        work.ended = {}
        self._rests.begin(f"{self._node}/{self.journal.name}")
        with db.transaction():
            number = rounds.write(db, self._worker, self._round) if db.shared else None
            shards.lock(db, (hold.lease.shard for hold in self._holds))
            for errand in work.errands:
                self._run_errand(db, errand, work)
            recording = self._ask_to_record(db, work)
            self._rests.ask(db, {hold.campaign.account for hold in self._holds})
            ahead = self._ask_ahead(db, work)
            self._record(db, work, recording)
            self._learn(db, work)
            self._count(work)
            self._look_at_shares(db, work.at)
            work.freed = [h for h in self._holds if self._over(h, work)]
            for hold in work.freed:
                shards.release(db, hold.lease, self._rests.put_off(db, hold.campaign, hold.lease))
            self._renew(db, work)
            if number is not None and not number.count() and self._went_back(db):
                work.lost += [hold for hold in self._holds if not work.gone(hold)]
            elif work.asked > self._served and not self._ending:
                work.full = not self._may_claim(work)
                if not work.full:
                    self._claim(db, work, ahead)
            work.rests = self._rests.news(db, {h.campaign.account for h in [*self._holds, *self._new(work)]})
            self._rests.write(db)

    def _went_back(self, db: Database) -> bool:
        """The store does not have our last transaction. Was it forgotten, others are too, and people whom it calls
        pending may have been sent to: everything stops."""
        there = rounds.begin_anew(db, self._worker, self._round)
        if not there and (now() - self._durable) * 1000 > rounds.FORGOTTEN_AFTER / 2:
            return False  # it was tidied away, for we had nothing to do
        campaigns.pause_unfinished(db, "past", WENT_BACK)
        return True

    def _ask_to_record(self, db: Database, work: _Round) -> tuple[shards.Recording, dict[Attempt, Hold]]:
        by_shard: dict[Hold, list[tuple[int, Progress]]] = {}
        for hold, pos, progress in work.results:
            by_shard.setdefault(hold, []).append((pos, progress))
        if by_shard:
            failpoint.reach("before_record")
        attempts = {Attempt(hold.lease.shard, hold.lease.token, results): hold for hold, results in by_shard.items()}
        return shards.ask_to_record(db, attempts), attempts

    def _record(self, db: Database, work: _Round, asked: tuple[shards.Recording, dict[Attempt, Hold]]) -> None:
        recording, attempts = asked
        for unseen in shards.record_all(db, recording):
            hold = attempts[unseen]
            campaigns.move(db, hold.campaign.id, "running", "paused", cause="past", reason=WENT_BACK)
            work.lost.append(hold)
        for attempt, hold in attempts.items():
            if attempt.ended:
                _add(work.ended, hold.campaign.account, attempt.ended)

    def _learn(self, db: Database, work: _Round) -> None:
        for account in {account for account, _, _ in work.learnt}:
            answers = [(openid, errcode) for of, openid, errcode in work.learnt if of == account]
            subscribers.use(db, account, [openid for openid, errcode in answers if errcode == 0])
            subscribers.learn(db, account, {openid: errcode for openid, errcode in answers if errcode}, self._hooks)

    def _count(self, work: _Round) -> None:
        """Of the day's calls: those that left, in place of the intentions of whoever is recorded."""
        self._rests.count(work.calls)
        for hold, closed in work.closed.items():
            self._rests.intend(hold.campaign, hold.intent.day, -hold.intent.of_today(closed))

    def _new(self, work: _Round) -> list[Hold]:
        return [claimed.hold for claimed in work.claimed if claimed.hold not in self._holds]

    def _look_at_shares(self, db: Database, at: float) -> None:
        if at - self._looked >= _LOOK_AGAIN:
            self._looked = at
            self.shares = {id: campaigns.share(db, id) for id in {hold.campaign.id for hold in self._holds}}

    def _renew(self, db: Database, work: _Round) -> None:
        due = [hold for hold in self._holds if work.at - hold.renewed > _RENEW_AFTER and not work.gone(hold)]
        for hold, renewed in [(hold, shards.asked_to_renew(db, hold.lease)) for hold in due]:
            (work.renewed if renewed.count() else work.lost).append(hold)

    def _window(self) -> int:
        """People a claim takes: about two intervals' or rounds' worth, and enough to keep the wire full."""
        worth = int(self._rate * 2 * max(INTERVAL, 2 * self._took))
        return max(self._concurrency, min(512, max(64, 2 * self._concurrency, worth)))

    def _may_claim(self, work: _Round) -> bool:
        """At most two windows may be claimed and unrecorded."""
        return sum(h.open - work.closed[h] for h in self._holds) <= self._window()

    def _ask_ahead(self, db: Database, work: _Round) -> _Ahead:
        """Who would be claimed, and what must be known of them: asked while outcomes are written, for the store may
        be far."""
        if work.asked <= self._served or self._ending or not self._may_claim(work):
            return _Ahead([], None)
        holds = [hold for hold in self._holds if not hold.exhausted and not hold.lost]
        asked = self._ask_for(db, [(hold, shards.ask(db, hold.lease, self._window())) for hold in holds])
        enough = sum(len(people.window.people() or []) for people in asked) >= self._window()
        return _Ahead(asked, None if enough else shards.ask_free(db))

    def _ask_for(self, db: Database, windows: list[tuple[Hold, Window]]) -> list[_People]:
        return [
            _People(hold, window, sift.ask(db, hold.campaign, window.people() or [])) for hold, window in windows
        ]

    def _claim(self, db: Database, work: _Round, ahead: _Ahead) -> None:
        """Claim one window, from the shards in hand first, then from new ones."""
        room = self._window()
        failpoint.reach("before_claim")
        try:
            self.journal.reserve(room * _RECORDS_PER_PERSON)
        except OSError as e:  # a full disk: nobody is claimed whose sending could not be written down
            work.no_room = e
            # Given back when what is on the wire is recorded: who is idle would keep them from everybody.
            work.parked += [hold for hold in self._holds if not hold.exhausted and not work.gone(hold)]
            return
        room -= self._claim_of(db, [each for each in ahead.people if not work.gone(each.hold)], room, work)
        free = ahead.free
        while room > 0 and self.journal.size < _LARGE_JOURNAL and work.skipped < _SKIPPED_AT_ONCE:
            taken = shards.take(db, f"{self._node}/{self.journal.name}", room, free)
            free = None
            if not taken:
                work.passed |= db.shared and shards.ready(db) > 0
                break
            for lease, _, _ in taken:
                self.journal.lease(lease.shard, lease.token, lease.campaign)
            windows = [(Hold(lease, campaign, 0.0, 0.0), window) for lease, campaign, window in taken]
            room -= self._claim_of(db, self._ask_for(db, windows), room, work)
            if db.shared:  # who takes several at once goes upwards, or two would wait for each other's: once in a round
                work.passed = True
                break

    def _claim_of(self, db: Database, asked: list[_People], room: int, work: _Round) -> int:
        """Up to ``room`` people, from one shard after the other."""
        used = 0
        for each in asked:
            if used < room:
                used += self._claim_from(db, each, room - used, work)
            elif each.hold not in self._holds:
                shards.release(db, each.hold.lease)
        return used

    def _claim_from(self, db: Database, given: _People, room: int, work: _Round) -> int:
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
            people = shards.claim(db, hold.lease, wanted, window)
            if people is None:
                work.lost.append(hold)
                if hold not in self._holds:  # the campaign was stopped since we took the shard, just now
                    shards.release(db, hold.lease)
                return 0
            last = len(people) < wanted
            takers = sift.sift(db, hold.campaign, hold.lease, people, asked)
            window = asked = None  # whoever comes after them is asked for now
            if skipped := len(people) - len(takers):
                work.skipped += skipped
                _add(work.ended, hold.campaign.account, Counter({(State.SKIPPED, None, None): skipped}))
            due = self._rests.sift(db, hold.campaign, hold.lease, takers, allowed)
            passed += len(takers) - len(due)
            kept += due
        work.passed |= passed > 0
        self._rests.intend(hold.campaign, work.day, len(kept))
        work.renewed.append(hold)
        work.claimed.append(Claimed(hold, kept, last, allowed.probe))
        return len(kept) + passed

    def _pass_over(self, db: Database, hold: Hold, work: _Round) -> int:
        """Nobody who is left in it can be sent to now."""
        work.passed = True
        if hold in self._holds:
            work.parked.append(hold)
            return 0
        shards.release(db, hold.lease, self._rests.put_off(db, hold.campaign, hold.lease))
        return PARKED

    def _apply(self, work: _Round) -> None:
        """After the commit: what is true in the store becomes true here, and the sending side hears of it."""
        for hold, count in work.closed.items():
            hold.open -= count
            hold.intent.recorded(count)
        for hold in work.parked:
            hold.exhausted = True
        for hold in work.renewed:
            hold.renewed, hold.deadline = work.at, work.at + LEASE_MS / 1000 - _MARGIN
        for hold in work.lost:
            hold.lost = hold.taken = True
        for claimed in work.claimed:
            claimed.hold.open += len(claimed.people)
            claimed.hold.intent.claimed(len(claimed.people), work.day)
            claimed.hold.exhausted = claimed.last
            if claimed.hold not in self._holds:
                held = claimed.hold.lease
                self.journal.granted(held.shard, held.token, held.campaign)
                self._holds.append(claimed.hold)
        self._holds = [h for h in self._holds if h not in work.freed]
        self._measure(work)
        self._report(work)

    def _measure(self, work: _Round) -> None:
        span = work.at - self._measured
        if work.results and span > 0:
            self._rate += (len(work.results) / span - self._rate) * min(1.0, span)
            self._measured = work.at
        # Whoever asks waits for the round that is under way, and then for the one that claims.
        self.enough = max(self._concurrency, min(self._window(), int(self._rate * 2 * self._took)))

    def _report(self, work: _Round) -> None:
        for hold in work.lost:
            self._tell(Lost(hold))
        if work.claimed:
            failpoint.reach("after_claim")
        for account, channels in work.rests.items():
            self._tell(Resting(account, channels))
        self._rests.heard(work.rests)
        for claimed in work.claimed:
            if claimed.people:
                self._tell(claimed)
        for word in work.tokens:
            self._tell(word)
        if work.asked > self._served and not self._ending:
            self._full = work.full
            if work.no_room is not None:
                self._tell(NoRoom(work.asked, work.no_room))
                self._served = work.asked
            elif not work.full and (any(c.people for c in work.claimed) or not self._more_to_look_at(work)):
                self._served = work.asked
                if not any(c.people for c in work.claimed):
                    self._tell(Dry(work.asked))

    def _more_to_look_at(self, work: _Round) -> bool:
        """Nobody was found, but only because shards were passed over, or so many people skipped."""
        return work.passed or work.skipped >= _SKIPPED_AT_ONCE

    def _finish_campaigns(self, db: Database, work: _Round) -> None:
        """In a transaction after that of the last record: of two workers at the end, one sees both."""
        try:
            for campaign in {hold.campaign.id for hold in work.freed}:
                if not campaigns.unfinished(db, campaign):
                    with db.transaction():
                        campaigns.finish(db, campaign)
        except StoreAway:
            pass  # the dispatcher's rescue sweep does it
        if not self._holds and self.journal.size > _LARGE_JOURNAL:
            self.journal.keep()
            self.journal = self._new_journal()

    def _run_errand(self, db: Database, errand: tuple[str, ...], work: _Round) -> None:
        kind, *args = errand
        if kind == "token":
            work.tokens.append(TokenRead(args[0], tokens.load(db, args[0])))
        elif kind == "pause":
            campaigns.move(db, args[0], "running", "paused", cause=args[1], reason=args[2])
        elif kind == "pause_account":
            campaigns.pause_account(db, *args)
        elif kind == "rest":
            quotas.rest(db, args[0], int(args[1]), int(args[2]), wall_ms())
        elif kind == "reopen":
            quotas.reopen(db, args[0], int(args[1]))
            shards.unpark(db, args[0])
        elif kind == "explain":
            campaigns.explain(db, args[0], args[1] or None, args[2] or None)

    def _new_journal(self) -> Journal:
        self._serial += 1
        return Journal(self._journals, f"{self._name}-{self._serial}")

    def _tell(self, word: Word) -> None:
        self.inbox.append(word)
        os.eventfd_write(self.wake_fd, 1)


def _add(ended: dict[str, Ended], account: str, more: Ended) -> None:
    ended.setdefault(account, Counter()).update(more)


def _opened(url: str) -> Database:
    """Raises StoreAway also while a worker of a new program is ahead of its dispatcher, which brings the tables."""
    db = open_store(url)
    if int(meta.read(db, "version") or 0) < VERSION:
        db.close()
        raise StoreAway(f"store {db.place}: its tables are not of this version yet")
    return db
