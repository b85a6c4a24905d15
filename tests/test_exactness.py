"""A state machine over store and journals: whatever happens in whatever order, nobody twice and nobody forgotten.

The model is a handful of dicts that know the truth: what the API has accepted, under which keys, and what an operator
has decided. Workers, their deaths, their journals and recovery are the real code; the wire is simulated.

    scripts/machine [EXAMPLES]      as many as you have patience for
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fanoutd.dispatcher import commands, recovery
from fanoutd.dispatcher.epoch import Epoch
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.repair import repair
from fanoutd.ids import client_msg_id
from fanoutd.journal import HEADER_SIZE, RECORD_SIZE, Journal, Orphan, adopt, in_use, tag
from fanoutd.outcome import (
    OPEN,
    Progress,
    State,
    Verdict,
    answered,
    channel_name,
    next_channel,
    overdue,
    repeatable,
    unanswered,
)
from fanoutd.standing import opted_in, opted_out
from fanoutd.store import (
    Database,
    campaigns,
    counters,
    finishing,
    free_shards,
    open_store,
    records,
    shard_leases,
    shards,
    subscribers,
    windows,
)
from fanoutd.store.campaigns import DISTRUSTED, Campaign
from fanoutd.store.deliveries import Person
from fanoutd.store.schema import migrate
from fanoutd.store.shard_leases import LEASE_MS, Lease
from fanoutd.store.shards import Planned
from fanoutd.worker.sift import sift
from support.mariadb import MariaDb
from support.stores import ours, refill

PEOPLE = [f"oPERSON{i:02d}" for i in range(8)]
CAMPAIGN = "c-1"
#: WeChat remembers a key so long, milliseconds.
KEY_MEMORY = 600_000
#: What may be answered: accepted, not on this channel, not to this person, busy, token.
ANSWERS = (0, 0, 0, 45015, 43004, -1, 40001)


class Killed(BaseException):
    """The dispatcher died at this place."""


@dataclass
class Job:
    """One claimed person in a worker's hands. ``wire`` is None, or (channel, the key or None)."""

    lease: Lease
    deadline: int
    person: Person
    progress: Progress
    wire: tuple[int, str | None] | None = None
    left: int = 0
    processed: int | None = None
    """The API's answer, once it has dealt with the call."""


@dataclass
class Worker:
    """As ``fanoutd.worker``, one step at a time."""

    name: str
    journal: Journal
    jobs: list[Job] = field(default_factory=list)
    results: list[tuple[Lease, int, Progress]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    def die(self) -> None:
        os.close(self.journal._fd)


class Exactness(RuleBasedStateMachine):
    @initialize(channels=st.sampled_from([(1, 2), (2,)]))
    def begin(self, channels: tuple[int, ...]) -> None:
        self.channels = channels
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="fanoutd-machine-", dir=base))
        self.journals = self.folder / "journals"
        self.journals.mkdir()
        self.boot, self.uptime, self.wall = 1, 1_000_000, 1_800_000_000_000
        self.patches = [
            mock.patch("fanoutd.journal.CHUNK", 4096), mock.patch("fanoutd.testimony.CHUNK", 4096),
            mock.patch("fanoutd.journal.boot_id", lambda: f"boot-{self.boot}"),
            mock.patch("fanoutd.testimony.boot_id", lambda: f"boot-{self.boot}"),
            mock.patch("fanoutd.store.deliveries.boot_tag", lambda: self.boot),
            mock.patch("fanoutd.journal.uptime_ms", lambda: self.uptime),
            mock.patch("fanoutd.dispatcher.recovery.uptime_ms", lambda: self.uptime),
            mock.patch("fanoutd.dispatcher.recovery.failpoint.reach", self.reach),
            mock.patch("fanoutd.dispatcher.recovery.log"), mock.patch("fanoutd.dispatcher.repair.log"),
        ]
        for each in self.patches:
            each.start()
        self.deadly: int | None = None
        self.url = self.new_store()
        self.db = self.open()
        self.epoch = Epoch(self.folder, "n1", self.url)
        self.epoch.advance(self.db)
        self.workers: list[Worker] = []
        self.serial = 0
        self.saved: dict[str, Any] | None = None
        self.damaged = False
        self.accepted: Counter[str] = Counter()
        self.out: set[str] = set()  # those who have opted out
        self.keys: dict[str, int] = {}
        self.allowed: Counter[str] = Counter()
        """Messages beyond the first that somebody has asked for."""
        self.by_word: set[str] = set()
        """People of whom an operator has said what they are."""
        self.tokens: dict[int, int] = {}
        self.plan()

    def new_store(self) -> str:
        """The URL of an empty one, with all its tables."""
        url = f"sqlite:///{self.folder}/store.db"
        with closing(open_store(url)) as db:
            migrate(db)
        return url

    def open(self) -> Database:
        db = open_store(self.url)
        if db.kind == "sqlite":
            db.rows("PRAGMA synchronous = OFF")
        db.NOW_MS = str(self.wall)  # type: ignore[misc]  # of this connection
        return db

    def plan(self) -> None:
        definition = {"channels": [channel_name(each) for each in self.channels]}
        row = Campaign(
            id=CAMPAIGN, account="main", message="m", audience=None, reference=None, key=None, state="running",
            cause=None, reason=None, created_at=self.wall, send_at=None, started_at=self.wall, finished_at=None,
            planned=True, node="n1", origin="query", definition=definition,
        )  # fmt: skip
        with self.db.transaction():
            campaigns.insert(self.db, row)
            shards.add(self.db, CAMPAIGN, 0, [Planned(openid) for openid in PEOPLE[:3]])
            shards.add(self.db, CAMPAIGN, 1, [Planned(openid) for openid in PEOPLE[3:]])

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        try:
            self.drive_to_the_end()
        finally:
            for worker in self.workers:
                worker.die()
            self.db.close()
            for each in self.patches:
                each.stop()
            shutil.rmtree(self.folder)

    # ---- what a worker does

    @property
    def campaign(self) -> Campaign:
        found = campaigns.get(self.db, CAMPAIGN)
        assert found is not None
        return found

    def job(self, data: st.DataObject, wanted: Any) -> tuple[Worker, Job] | None:
        found = [(worker, job) for worker in self.workers for job in worker.jobs if wanted(job)]
        return data.draw(st.sampled_from(found)) if found else None

    @precondition(lambda self: len(self.workers) < 3)
    @rule(node=st.sampled_from(["n1", "n1", "n1", "n2"]))
    def fork(self, node: str) -> None:
        """A worker of another node has its journal where this one's recovery does not look."""
        self.serial += 1
        folder = self.journals if node == "n1" else self.folder / node
        folder.mkdir(exist_ok=True)
        self.workers.append(Worker(f"{node}/w{self.serial}", Journal(folder, f"w{self.serial}")))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), window=st.integers(1, 3))
    def claim(self, data: st.DataObject, window: int) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        at = self.uptime
        with self.db.transaction():
            held = data.draw(st.sampled_from([*worker.leases, None]))
            if held is None:
                held = free_shards.lease(self.db, worker.name)
                if held is None:
                    return
                worker.journal.lease(held.shard, held.token, held.campaign)
                worker.leases.append(held)
            people = sift(self.db, self.campaign, held, windows.claim(self.db, held, window) or [])
        for person in people:
            assert person.openid not in self.out or person.progress.doubtful, "opted out, and is sent to"
            worker.jobs.append(Job(held, at + LEASE_MS - 5000, person, person.progress))

    @rule(data=st.data(), window=st.integers(1, 5))
    def work(self, data: st.DataObject, window: int) -> None:
        """A worker's ordinary day: people claimed, called, and each answered, unanswered, or still on the wire."""
        if not self.workers:
            self.fork("n1")
        self.claim(data, window)
        for worker in self.workers:
            for job in [job for job in worker.jobs if job.wire is None]:
                self.begin_call(worker, job)
                if job.wire is None:
                    continue
                fate = data.draw(st.sampled_from(["wire", "arrived", "answered", "answered", "lost", "lost later"]))
                errcode = data.draw(st.sampled_from(ANSWERS))
                if fate in ("arrived", "answered"):
                    self.deal(job, errcode)
                if fate == "answered":
                    self.take_answer(worker, job)
                elif fate.startswith("lost"):
                    self.see_nothing(worker, job, fate == "lost later", errcode)

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        found = self.job(data, lambda job: job.wire is None)
        if found is not None:
            self.begin_call(*found)

    def begin_call(self, worker: Worker, job: Job) -> None:
        if self.uptime > job.deadline:
            self.hand_back(worker, job)
        elif overdue(job.progress, self.uptime):
            self.close(worker, job, replace(job.progress, state=State.UNKNOWN))
        else:
            channel = next_channel(job.progress, self.channels)
            openid = job.person.openid
            key = client_msg_id("main", CAMPAIGN, openid, job.progress.generation) if channel == 2 else None
            worker.journal.sending((job.lease.shard, job.person.pos, job.lease.token), channel, tag(openid))
            job.wire, job.left, job.processed = (channel, key), self.uptime, None

    @rule(data=st.data(), errcode=st.sampled_from(ANSWERS))
    def process(self, data: st.DataObject, errcode: int) -> None:
        """The API deals with a call."""
        found = self.job(data, lambda job: job.wire is not None and job.processed is None)
        if found is not None:
            self.deal(found[1], errcode)

    def deal(self, job: Job, errcode: int) -> None:
        assert job.wire is not None
        _, key = job.wire
        job.processed = errcode
        if errcode != 0:
            return
        if key is not None and key in self.keys and 0 <= self.now() - self.keys[key] < KEY_MEMORY:
            return  # dropped as a repeat, and answered as if it were none
        if key is not None:
            self.keys[key] = self.now()
        self.accepted[job.person.openid] += 1

    def now(self) -> int:
        """WeChat's clock: it goes on over our boots, and nobody sets it."""
        return self.boot * 10**12 + self.uptime

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        found = self.job(data, lambda job: job.processed is not None)
        if found is not None:
            self.take_answer(*found)

    def take_answer(self, worker: Worker, job: Job) -> None:
        assert job.wire is not None and job.processed is not None
        channel, errcode = job.wire[0], job.processed
        msgid = 7 if errcode == 0 and channel == 2 else None
        place = (job.lease.shard, job.person.pos, job.lease.token)
        worker.journal.answer(place, channel, tag(job.person.openid), errcode, msgid)
        job.progress, verdict = answered(job.progress, channel, errcode, msgid, channel == self.channels[-1])
        job.wire = job.processed = None
        assert verdict in Verdict
        if job.progress.state not in OPEN:
            self.close(worker, job, job.progress)

    @rule(data=st.data(), arrives=st.booleans(), errcode=st.sampled_from(ANSWERS))
    def lose(self, data: st.DataObject, arrives: bool, errcode: int) -> None:
        """No answer is seen, whether or not the API has dealt with the call."""
        found = self.job(data, lambda job: job.wire is not None)
        if found is not None:
            self.see_nothing(*found, arrives, errcode)

    def see_nothing(self, worker: Worker, job: Job, arrives: bool, errcode: int) -> None:
        assert job.wire is not None
        if arrives and job.processed is None:
            self.deal(job, errcode)
        job.progress = unanswered(job.progress, job.wire[0], job.left)
        job.wire = job.processed = None
        if repeatable(job.progress, self.uptime, False):
            job.progress = replace(job.progress, state=State.RESEND)
        else:
            self.close(worker, job, job.progress)

    def close(self, worker: Worker, job: Job, progress: Progress) -> None:
        worker.jobs.remove(job)
        worker.results.append((job.lease, job.person.pos, progress))

    def hand_back(self, worker: Worker, job: Job) -> None:
        if job.progress.attempts != job.person.progress.attempts:
            self.close(worker, job, job.progress)
        else:
            worker.jobs.remove(job)

    @rule(data=st.data(), count=st.integers(1, 8))
    def record(self, data: st.DataObject, count: int) -> None:
        if self.workers:
            self.write(data.draw(st.sampled_from(self.workers)), count)

    def write(self, worker: Worker, count: int) -> None:
        batch, worker.results = worker.results[:count], worker.results[count:]
        with self.db.transaction():
            for lease, pos, progress in batch:
                records.record(self.db, lease.shard, lease.token, [(pos, progress)])
            for lease in list(worker.leases):
                mine = [*(job.lease for job in worker.jobs), *(result[0] for result in worker.results)]
                if lease not in mine:
                    shard_leases.release(self.db, lease)
                    worker.leases.remove(lease)
        with self.db.transaction():
            finishing.finish(self.db, CAMPAIGN)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A worker that is told to stop, or to let go of the campaign: all that is not on the wire."""
        if self.workers:
            self.let_go(data.draw(st.sampled_from(self.workers)))

    def let_go(self, worker: Worker) -> None:
        for job in [job for job in worker.jobs if job.wire is None]:
            self.hand_back(worker, job)
        self.write(worker, len(worker.results))

    # ---- what befalls it

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        if self.workers:
            self.bury(data, data.draw(st.sampled_from(self.workers)))

    def bury(self, data: st.DataObject | None, worker: Worker) -> None:
        for job in worker.jobs:  # what has left is dealt with, or lost on its way
            if job.wire is not None and job.processed is None and data is not None and data.draw(st.booleans()):
                self.deal(job, data.draw(st.sampled_from(ANSWERS)))
        worker.die()
        self.workers.remove(worker)

    @rule()
    def recover(self) -> None:
        recovery.recover(self.db, self.journals, "n1", lambda _account: False)

    @rule(place=st.integers(1, 3))
    def recover_and_die(self, place: int) -> None:
        """Killed in the middle, and done again: the same comes out."""
        self.deadly = place
        held: list[Orphan | None] = []

        def note(path: Path) -> Orphan | None:
            held.append(adopt(path))
            return held[-1]

        try:
            with mock.patch("fanoutd.dispatcher.recovery.adopt", note):
                self.recover()
        except Killed:
            # None is held while leases without a journal are settled: the last one is put aside by then.
            if held and held[-1] is not None and held[-1].path.exists():
                held[-1].close()  # as its process's end would
        finally:
            self.deadly = None

    def reach(self, _place: str) -> None:
        if self.deadly is not None:
            self.deadly -= 1
            if self.deadly <= 0:
                raise Killed

    @rule()
    def the_other_node_comes_back(self) -> None:
        if (self.folder / "n2").exists():
            recovery.recover(self.db, self.folder / "n2", "n2", lambda _account: False)

    @rule(node=st.sampled_from(["n1", "n2"]))
    def take_over(self, node: str) -> None:
        recovery.take_over(self.db, node)

    @rule(ms=st.sampled_from([1000, 30_000, 70_000, 300_000, 700_000]))
    def wait(self, ms: int) -> None:
        self.uptime += ms
        self.set_wall(self.wall + ms)

    def set_wall(self, wall: int) -> None:
        self.wall = wall
        self.db.NOW_MS = str(wall)

    @rule(ms=st.sampled_from([-86_400_000, -40_000, 40_000]))
    def set_the_clock_by_little_or_back(self, ms: int) -> None:
        """Not forward beyond a lease's margin: of other machines nobody knows more than what the clock says."""
        if ms < 0 or not any(worker.name.startswith("n2") or worker.leases for worker in self.workers):
            self.set_wall(self.wall + ms)

    @precondition(lambda self: not self.saved and self.campaign.cause not in DISTRUSTED)
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "delete"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        """The journal of a dead worker; a store from the past cannot be repaired from such."""
        alive = {worker.journal.path for worker in self.workers}
        found = [path for path in in_use(self.journals) if path not in alive]
        if not found:
            return
        path = data.draw(st.sampled_from(found))
        self.damaged = True
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, max(0, len(content.rstrip(b"\0")) - 1)))
        if how == "delete":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[:at])
        elif content:
            content[at] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)

    @precondition(lambda self: not self.saved and self.campaign.cause not in DISTRUSTED)
    @rule(data=st.data())
    def reboot(self, data: st.DataObject) -> None:
        for worker in list(self.workers):
            if worker.name.startswith("n1"):
                self.bury(data, worker)
        self.damaged = self.damaged or bool(in_use(self.journals))
        for path in in_use(self.journals):  # what was not on the disk is gone
            content = path.read_bytes()
            written = max(0, len(content.rstrip(b"\0")) - HEADER_SIZE + RECORD_SIZE - 1) // RECORD_SIZE
            end = HEADER_SIZE + data.draw(st.integers(0, written)) * RECORD_SIZE
            path.write_bytes(content[:end] + bytes(max(0, len(content) - end)))
        others = [job for worker in self.workers for job in worker.jobs]
        if others:
            return  # the model has one uptime: the other node's would jump with it
        self.boot += 1
        self.uptime = 1_000_000  # it begins anew: times of another boot may look young

    # ---- what an operator does

    def order(self, what: Any, *args: Any) -> None:
        try:
            what(self.db, self.campaign, *args)
        except RpcError:
            pass

    @rule(cancels=st.sampled_from([False, False, False, True]))
    def pause(self, cancels: bool) -> None:
        self.order(commands.cancel if cancels else commands.pause)
        if self.campaign.state in ("paused", "cancelled"):
            for worker in self.workers:
                self.let_go(worker)

    @rule()
    def resume(self) -> None:
        self.order(commands.resume)

    @rule(failed=st.booleans())
    def retry(self, failed: bool) -> None:
        before = self.rows()
        self.order(commands.retry, failed, not failed)
        for openid, row in self.rows().items():
            if before[openid][0] is not row[0]:
                if row[0] is State.RESEND:
                    self.allowed[openid] += 1
                if openid in self.by_word and row[0] is State.PENDING:
                    self.allowed[openid] += 1

    @rule(sent=st.booleans(), who=st.sets(st.sampled_from(PEOPLE), min_size=1, max_size=3))
    def resolve(self, sent: bool, who: set[str]) -> None:
        before = self.rows()
        self.order(commands.settle, "sent" if sent else "failed", sorted(who))
        self.by_word |= {openid for openid, row in self.rows().items() if row[0] is not before[openid][0]}

    @rule(who=st.sampled_from(PEOPLE), out=st.booleans())
    def have_a_word(self, who: str, out: bool) -> None:
        """A person opts out, or in again."""
        with self.db.transaction():
            change = partial(opted_out if out else opted_in, now=self.wall)
            subscribers.change(self.db, "main", [who], self.wall, change)
        (self.out.add if out else self.out.discard)(who)

    # ---- a store that comes back from a backup

    @precondition(lambda self: not self.damaged and self.campaign.cause not in DISTRUSTED)
    @rule()
    def back_up(self) -> None:
        self.saved = ours(self.db)

    @precondition(lambda self: self.saved and not any(w.name.startswith("n2") for w in self.workers))
    @rule(data=st.data(), orderly=st.booleans())
    def restore(self, data: st.DataObject, orderly: bool) -> None:
        for worker in list(self.workers):
            if orderly:
                self.let_go(worker)
            self.bury(data, worker)
        if (self.folder / "n2").exists() and in_use(self.folder / "n2"):
            return  # another machine's journals are not here to repair from
        if orderly:
            self.recover()
            self.epoch.advance(self.db)
        changed = self.rows()
        assert self.saved is not None
        refill(self.db, self.saved)
        self.db.close()
        self.db = self.open()
        self.tokens.clear()
        found = self.epoch.went_back(self.db) or self.epoch.journals_know_more(self.db, self.journals)
        if found:
            commands.pause_unfinished(self.db, "past", "restored")
        self.epoch.advance(self.db)
        self.saved = None
        self.out = {openid for openid, each in subscribers.page(self.db, "main", None, 100) if not each.takes(0)}
        # A decision that the store has forgotten is the operator's to make again.
        self.by_word |= {openid for openid, row in changed.items() if row[0] is not self.rows()[openid][0]
                         and openid in self.by_word}  # fmt: skip
        if self.campaign.state == "running":
            self.recover()

    @precondition(lambda self: self.campaign.cause in DISTRUSTED)
    @rule()
    def mend(self) -> None:
        repair(self.db, self.journals, "n1", self.campaign)

    # ---- what always holds

    def rows(self) -> dict[str, tuple[State, int, int, int]]:
        """openid -> state, shard, position, attempt."""
        return {
            openid: (State(state), shard, pos, attempt)
            for openid, state, shard, pos, attempt in self.db.rows(
                "SELECT openid, state, shard, pos, attempt FROM fanout_delivery"
            )
        }

    @invariant()
    def counters_are_what_the_rows_say(self) -> None:
        if not hasattr(self, "db"):
            return
        names = "pending, sent_custom, sent_template, failed, skipped, unknown, resend, errors"
        before = self.db.rows(f"SELECT id, {names} FROM fanout_shard ORDER BY id")
        with self.db.transaction():
            for shard in before:
                counters.recount(self.db, shard[0])
        after = self.db.rows(f"SELECT id, {names} FROM fanout_shard ORDER BY id")
        assert [row[:-1] for row in before] == [row[:-1] for row in after]
        assert counters.counts(self.db, CAMPAIGN).total == len(PEOPLE)

    @invariant()
    def the_store_tells_the_truth(self) -> None:
        if not hasattr(self, "db") or self.campaign.cause in DISTRUSTED:
            return
        flying = {
            shard: following for shard, following, owner in
            self.db.rows("SELECT id, next, owner FROM fanout_shard") if owner is not None
        }  # fmt: skip
        for openid, (state, shard, pos, _) in self.rows().items():
            times = self.accepted[openid]
            assert times <= 1 + self.allowed[openid], (openid, "was sent to twice")
            if openid in self.by_word or self.allowed[openid]:
                continue
            if state is State.SENT:
                assert times == 1, (openid, "is called sent")
            elif state in (State.FAILED, State.SKIPPED):
                assert times == 0, (openid, "is called failed and has it")
            elif state is State.PENDING and pos >= flying.get(shard, 0):
                assert times == 0, (openid, "is called pending and has it")

    @invariant()
    def tokens_never_go_down(self) -> None:
        if not hasattr(self, "db"):
            return
        for shard, token in self.db.rows("SELECT id, token FROM fanout_shard"):
            assert token >= self.tokens.get(shard, 0)
            self.tokens[shard] = token

    # ---- the end

    def drive_to_the_end(self) -> None:
        """No more trouble: everybody has one final state."""
        for worker in list(self.workers):
            self.let_go(worker)
            self.bury(None, worker)
        for folder, node in ((self.journals, "n1"), (self.folder / "n2", "n2")):
            if folder.exists():
                recovery.recover(self.db, folder, node, lambda _account: False)
        if self.campaign.cause in DISTRUSTED:
            repair(self.db, self.journals, "n1", self.campaign)
        if self.campaign.state == "paused":
            commands.resume(self.db, self.campaign)
        for _ in range(20):
            if self.campaign.state != "running":
                break
            self.send_all()
        self.the_store_tells_the_truth()
        if self.campaign.state != "cancelled":
            held = self.db.rows("SELECT id, owner, next, token, pending, resend FROM fanout_shard")
            assert self.campaign.state == "done", str((self.campaign.state, held, list(self.rows().values())))
            assert not [row for row in self.rows().values() if row[0] in OPEN]

    def send_all(self) -> None:
        self.fork("n1")
        worker = self.workers[-1]
        with self.db.transaction():
            while held := free_shards.lease(self.db, worker.name):
                worker.journal.lease(held.shard, held.token, held.campaign)
                worker.leases.append(held)
                for person in sift(self.db, self.campaign, held, windows.claim(self.db, held, 100) or []):
                    worker.jobs.append(Job(held, self.uptime + LEASE_MS, person, person.progress))
        while worker.jobs:
            job = worker.jobs[0]
            if overdue(job.progress, self.uptime):
                self.close(worker, job, replace(job.progress, state=State.UNKNOWN))
                continue
            channel = next_channel(job.progress, self.channels)
            key = client_msg_id("main", CAMPAIGN, job.person.openid, job.progress.generation)
            worker.journal.sending(
                (job.lease.shard, job.person.pos, job.lease.token), channel, tag(job.person.openid)
            )
            job.wire = (channel, key if channel == 2 else None)
            self.deal(job, 0)
            job.progress, _ = answered(job.progress, channel, 0, None, channel == self.channels[-1])
            self.close(worker, job, job.progress)
        self.write(worker, len(worker.results))
        worker.die()
        self.workers.remove(worker)
        self.recover()


class ExactnessOnMariaDb(Exactness):
    """The same on a server: one database for all examples, emptied before each."""

    def new_store(self) -> str:
        url = _database()
        with closing(open_store(url)) as db:
            refill(db, _as_new(url))
        return url


@functools.cache
def _database() -> str:
    """On a server that does not wait for its disk: what a power cut undoes is another's test."""
    return MariaDb("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin").database()


@functools.cache
def _as_new(url: str) -> dict[str, list[tuple[object, ...]]]:
    with closing(open_store(url)) as db:
        migrate(db)
        return ours(db)


def _settings(examples: int) -> settings:
    """So many, or as many as the environment asks for."""
    return settings(
        max_examples=int(os.environ.get("FANOUTD_EXAMPLES", examples)), stateful_step_count=40, deadline=None,
        derandomize="FANOUTD_EXAMPLES" not in os.environ, database=None,
        phases=[Phase.generate] if os.environ.get("FANOUTD_EXAMPLES") else tuple(Phase), report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )  # fmt: skip


TestExactness = Exactness.TestCase
TestExactness.settings = _settings(80)
TestExactnessOnMariaDb = ExactnessOnMariaDb.TestCase
TestExactnessOnMariaDb.settings = _settings(12)
