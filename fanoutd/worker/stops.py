"""When a worker itself has a campaign pause, for what WeChat answers, and how that is done."""

from __future__ import annotations

from collections.abc import Callable

from fanoutd.bucket import now
from fanoutd.outcome import Verdict, describe
from fanoutd.worker.desk import Desk
from fanoutd.worker.holds import Hold
from fanoutd.worker.lane import Job, Lane
from fanoutd.worker.lanes import Lanes
from fanoutd.worker.verdicts import Stop, for_everyone
from fanoutd.worker.watch import Watch
from fanoutd.worker.wire import Answer


class Stops:
    """``say`` speaks to the master."""

    def __init__(self, lanes: Lanes, desk: Desk, watch: Watch, say: Callable[[dict[str, object]], None]) -> None:
        self._lanes, self._desk, self._watch, self._say = lanes, desk, watch, say

    def campaign(self, hold: Hold, stop: Stop) -> None:
        """Pause it, and have every worker of this node start nothing more of it; once for all that is on the wire."""
        if hold.lost:
            return
        self._desk.pause(hold.campaign.id, stop.cause, stop.reason)
        self._watch.stop(hold.campaign.id)
        self._lanes.let_go(hold.campaign.id)

    def for_everyone(self, lane: Lane, job: Job, verdict: Verdict, answer: Answer) -> None:
        """What was answered would be the same for all of the campaign, or of the account."""
        stop = for_everyone(verdict, answer.errcode or 0, answer.errmsg)
        others = []
        if verdict is Verdict.STOP_ACCOUNT and not job.hold.lost:
            self._desk.pause_account(lane.account.name, stop.cause, stop.reason)
            others = self._desk.holds_of(lane.account.name)
        for hold in (job.hold, *others):
            self.campaign(hold, stop)

    def refused_tokens(self, lane: Lane, job: Job, fingerprint: str, answer: Answer) -> None:
        """Another token is no better."""
        reason = (f"WeChat refused two access tokens one after the other ({answer.errcode}: {answer.errmsg}); "
                  "look at the account's app_id and at who else fetches its tokens")  # fmt: skip
        self._account(lane, job, fingerprint, reason, token=True)

    def refused_account(self, lane: Lane, job: Job, fingerprint: str, answer: Answer) -> None:
        reason = f"WeChat refuses the account: {describe(answer.errcode or 0)} ({answer.errcode} {answer.errmsg})"
        self._account(lane, job, fingerprint, reason, token=False)
        self._lanes.let_go(job.hold.campaign.id)

    def _account(self, lane: Lane, job: Job, fingerprint: str, reason: str, token: bool) -> None:
        """The campaign pauses; the dispatcher has it go on when the account may call again."""
        self._desk.pause(job.hold.campaign.id, "token", reason)
        if lane.should_complain(now()):
            self._say({"t": "token_refused", "account": lane.account.name, "token": fingerprint, "reason": reason,
                       "token_refused": token})  # fmt: skip
