"""Who is called next, as far as each account's rate, token and channels let it, and what is looked at just before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fanoutd import failpoint
from fanoutd.boot import uptime_ms
from fanoutd.bucket import now
from fanoutd.message import RenderError
from fanoutd.outcome import RENDER, Progress, State, channel_name, overdue
from fanoutd.times import wall_ms
from fanoutd.worker.desk import Desk
from fanoutd.worker.journals import Journals
from fanoutd.worker.lane import STARVED, Job, Lane
from fanoutd.worker.lanes import Lanes
from fanoutd.worker.watch import Watch
from fanoutd.worker.wire import Wire


class Starts:
    """``say`` speaks to the master; ``close`` is told of whoever needs no call any more."""

    def __init__(
        self, lanes: Lanes, wire: Wire, desk: Desk, journals: Journals, watch: Watch,
        say: Callable[[dict[str, object]], None], close: Callable[[Lane, Job, Progress], None],
    ) -> None:  # fmt: skip
        self._lanes, self._wire, self._desk, self._journals = lanes, wire, desk, journals
        self._watch, self._say, self._close = watch, say, close

    def send(self) -> None:
        """Start what may be started now."""
        at = now()
        for lane in self._lanes:
            lane.due(at)
            self._lanes.hand_back(lane.shut_out(wall_ms()))
            if lane.should_ask_token(at):
                self._desk.read_token(lane.account.name)
                self._say({"t": "token_refused", "account": lane.account.name, "token": lane.refused_token})
            lane.trials.sift(lane.ready)
            if lane.bucket.starved_since is not None or lane.trouble == STARVED:
                self._lanes.explain(lane)
            for _ in range(lane.permits(at, self._wire.free)):
                if not lane.ready:  # their campaign was stopped just now
                    break
                self._start(lane, lane.ready.popleft(), at)

    def _start(self, lane: Lane, job: Job, at: float) -> None:
        if self._may_start(lane, job, at):
            channel = job.channel
            body = self._body(lane, job, channel)
            if body is not None:
                self._call(lane, job, channel, body)

    def _may_start(self, lane: Lane, job: Job, at: float) -> bool:
        """False: seen to."""
        if at > job.hold.deadline:  # our lease may be over, and they be called unknown: say that they never left
            self._desk.put(job.hold, job.person.pos, job.progress)
        elif self._watch.stopped(job.hold.campaign.id):
            self._lanes.hand_back([job])
            self._lanes.let_go(job.hold.campaign.id)
        elif lane.shuts(job, wall_ms()):
            self._lanes.hand_back([job])
        elif overdue(job.progress, uptime_ms()):
            self._close(lane, job, replace(job.progress, state=State.UNKNOWN))
        else:
            return True
        return False

    def _body(self, lane: Lane, job: Job, channel: int) -> bytes | None:
        """None: it cannot be rendered, and the person has failed."""
        try:
            return job.body(channel)
        except RenderError:
            refused = Progress(State.FAILED, None, RENDER, None, job.progress.attempts, job.progress.generation)
            self._close(lane, job, refused)
            return None

    def _call(self, lane: Lane, job: Job, channel: int, body: bytes) -> None:
        token = lane.token
        assert token is not None
        target = (lane.account.name, channel_name(channel) or "", token.text)
        lane.breaker.started()
        lane.trials.started((job.hold.campaign.id, channel))
        self._wire.start(
            target, lane.account, body, (lane, job, channel, token.fingerprint),
            lambda: self._leave(lane.account.name, job, channel),
        )  # fmt: skip

    def _leave(self, account: str, job: Job, channel: int) -> None:
        """The body is about to leave."""
        self._journals.current.sending(job.attempt, channel, job.who)
        self._desk.called(account, channel)
        failpoint.reach("after_S")
