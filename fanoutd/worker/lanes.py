"""The people whom a worker has in hand, a lane for each account: who goes on, who waits, who is handed back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fanoutd.bucket import Bucket, bucket_path
from fanoutd.config import Config, sqlite_path
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms
from fanoutd.worker.desk import Desk
from fanoutd.worker.lane import Job, Lane
from fanoutd.worker.trials import Key


class Lanes:
    """``halted``: campaigns of which nothing may be started. ``stopping``: the worker ends, and starts nothing at all.
    ``room`` is for ``Trials``."""

    def __init__(self, config: Config, desk: Desk, room: Callable[[Key], int | None], halted: set[str]) -> None:
        self._config, self._desk, self._room, self.halted = config, desk, room, halted
        self._lanes: dict[str, Lane] = {}
        self.stopping = False

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, name: str) -> Lane | None:
        """The account's; None: it is not configured any more."""
        if name not in self._lanes:
            account = self._config.accounts.get(name)
            if account is None:
                return None
            path = bucket_path(self._config.daemon.state_dir, name)
            shared = sqlite_path(self._config.store_url) is None
            self._lanes[name] = Lane(account, Bucket(path, account.rate, shared), self._room)
            self._desk.read_token(name)
        return self._lanes[name]

    def token_read(self, name: str, token: Token | None) -> None:
        """The account's, as the store has it."""
        lane = self._lanes.get(name)
        if lane is not None:
            lane.accept(token, wall_ms())

    @property
    def waiting(self) -> int:
        """People here who are not on the wire."""
        return sum(len(lane) for lane in self)

    @property
    def on_hand(self) -> int:
        """Those of them who may be started now, as far as their account lets them."""
        return sum(len(lane.ready) for lane in self)

    def explain(self, lane: Lane) -> None:
        """Say what the account's campaigns wait for, if that has changed."""
        trouble = lane.waits_for()
        if trouble != lane.trouble:
            lane.trouble = trouble
            self._desk.explain(lane.account.name, "api" if trouble else "", trouble)

    # ---- on

    def again_now(self, lane: Lane, job: Job) -> None:
        if self._must_leave(lane, job):
            self.hand_back([job])
        else:
            lane.ready.appendleft(job)

    def later(self, lane: Lane, job: Job, at: float, least: float = 0.0) -> None:
        """After a pause; see ``Lane.again``."""
        if self._must_leave(lane, job):
            self.hand_back([job])
        else:
            lane.again(job, at, least)

    def _must_leave(self, lane: Lane, job: Job) -> bool:
        stopped = self.stopping or job.hold.lost or job.hold.campaign.id in self.halted
        return stopped or lane.shuts(job, wall_ms())

    # ---- back

    def hand_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.changed or job.hold.taken:
                self._desk.put(job.hold, job.person.pos, job.progress)
            else:
                self._desk.put_back(job.hold)
        if jobs:
            self._desk.flush()

    def withdraw(self, wanted: Callable[[Job], bool]) -> None:
        """Hand back those of them who are not on the wire."""
        for lane in self:
            self.hand_back(lane.withdraw(wanted))

    def let_go(self, campaign: str) -> None:
        """Start nothing more of it, and claim nothing more of the shards in hand."""
        self.withdraw(lambda job: job.hold.campaign.id == campaign)
        self._desk.let_go(campaign)

    def rest(self, lane: Lane | None, channels: Mapping[int, int]) -> None:
        """Whoever is due on one of them waits in the store; the others go on."""
        if lane is not None:
            lane.rests = channels
            self.hand_back(lane.withdraw(lambda job: job.channel in channels and not job.probe))

    def stop(self) -> None:
        """From here on nobody goes on; what is on the wire ends."""
        self.stopping = True
        self.withdraw(lambda _job: True)
