"""What becomes of a person after a call: by WeChat's answer, or for want of one."""

from __future__ import annotations

import logging
from dataclasses import replace

from fanoutd import failpoint
from fanoutd.boot import uptime_ms
from fanoutd.bucket import now
from fanoutd.figures_file import Meter
from fanoutd.outcome import (
    OPEN,
    Progress,
    State,
    Verdict,
    answered,
    channel_name,
    classify,
    describe,
    meaning,
    repeatable,
    unanswered,
)
from fanoutd.standing import LESSONS
from fanoutd.store import quotas
from fanoutd.times import wall_ms
from fanoutd.worker.desk import Desk
from fanoutd.worker.display import Figures
from fanoutd.worker.journals import Journals
from fanoutd.worker.lane import Job, Lane
from fanoutd.worker.lanes import Lanes
from fanoutd.worker.stops import Stops
from fanoutd.worker.watch import Watch
from fanoutd.worker.wire import Answer

log = logging.getLogger("fanoutd.worker")

#: Answers after which it is certain that the channel has calls left today.
_TAKEN = (Verdict.SENT, Verdict.NEXT_CHANNEL, Verdict.FAILED)

Context = tuple[Lane, Job, int, str]
"""Of a call: whose it is, on which channel, and its token's fingerprint."""


class Answers:
    def __init__(
        self, lanes: Lanes, desk: Desk, journals: Journals, watch: Watch, stops: Stops, meter: Meter, figures: Figures
    ) -> None:
        self._lanes, self._desk, self._journals = lanes, desk, journals
        self._watch, self._stops, self._meter, self._figures = watch, stops, meter, figures

    def ended(self, context: Context, answer: Answer) -> None:
        """A call has."""
        lane, job, channel, fingerprint = context
        at = now()
        result = answer.failure if answer.errcode is None else answer.errcode
        self._meter.request(
            lane.account.name, channel_name(channel) or "", result, answer.seconds if answer.left else None
        )
        lane.trials.ended((job.hold.campaign.id, channel))
        if answer.errcode is None:
            lane.breaker.failed(at)
            self._unanswered(lane, job, channel, answer)
        else:
            lane.breaker.answered()
            lane.bucket.tally(busy=classify(answer.errcode) is Verdict.RETRY)
            self._answered(lane, job, channel, fingerprint, answer, at)
        self._lanes.explain(lane)

    def close(self, lane: Lane, job: Job, progress: Progress) -> None:
        """Nobody is called any more for this person's sake."""
        self._desk.put(job.hold, job.person.pos, progress)
        self._figures.count(progress, job.hold.campaign.id)
        stop = self._watch.ended(job.hold.campaign.id, progress, lane.account.max_failures)
        if stop:
            self._stops.campaign(job.hold, stop)

    def _unanswered(self, lane: Lane, job: Job, channel: int, answer: Answer) -> None:
        if answer.left:
            job.progress = unanswered(job.progress, channel, answer.left)
            if repeatable(job.progress, uptime_ms(), lane.account.on_unknown == "resend"):
                job.progress = replace(job.progress, state=State.RESEND)
                self._lanes.later(lane, job, now())
            else:
                self.close(lane, job, job.progress)
        else:  # proved by the journal's silence: nothing was sent
            self._lanes.again_now(lane, job)

    def _answered(
        self, lane: Lane, job: Job, channel: int, fingerprint: str, answer: Answer, at: float
    ) -> None:
        assert answer.errcode is not None
        failpoint.reach("after_reply")
        self._journals.current.answer(job.attempt, channel, job.who, answer.errcode, answer.msgid)
        failpoint.reach("after_R")
        self._learn(job, channel, answer.errcode)
        last = channel == job.message.channels[-1]
        job.progress, verdict = answered(
            job.progress, channel, answer.errcode, answer.msgid, last, personal=job.personal
        )
        if job.probe and verdict in _TAKEN:
            job.probe = False
            self._desk.reopen(lane.account.name, channel)
        stop = self._watch.answered((job.hold.campaign.id, channel), answer.errcode, answer.errmsg, verdict)
        if stop:
            self._stops.campaign(job.hold, stop)
        if job.progress.state not in OPEN:
            self.close(lane, job, job.progress)
        elif verdict is Verdict.NEXT_CHANNEL:
            self._next_channel(lane, job, channel, answer, at)
        elif verdict is Verdict.RETRY:
            self._lanes.later(lane, job, at, meaning(answer.errcode).pause)
        else:
            self._not_about_them(lane, job, fingerprint, verdict, answer)

    def _learn(self, job: Job, channel: int, errcode: int) -> None:
        """What the answer says about the person, whatever becomes of the message."""
        counted = errcode == 0 and job.person.counted and channel_name(channel) == "custom"
        if counted or errcode in LESSONS:
            self._desk.learn(job.hold.campaign.account, job.person.openid, errcode)

    def _next_channel(self, lane: Lane, job: Job, channel: int, answer: Answer, at: float) -> None:
        errcode = answer.errcode or 0
        if meaning(errcode).for_all and lane.shut.heard(channel, at):
            log.warning("account %s: %s (%d %s); it is left out for 10 minutes", lane.account.name,
                        describe(errcode), errcode, answer.errmsg)  # fmt: skip
        lane.trials.expect([job.key])
        self._lanes.again_now(lane, job)

    def _not_about_them(self, lane: Lane, job: Job, fingerprint: str, verdict: Verdict, answer: Answer) -> None:
        """Nothing is said about this person: they go on when the campaign does, or when the account may call again."""
        if verdict in (Verdict.STOP_CAMPAIGN, Verdict.STOP_ACCOUNT):
            self._stops.for_everyone(lane, job, verdict, answer)
        elif verdict is Verdict.TOKEN:
            if job.refused_token not in (None, fingerprint):
                self._stops.refused_tokens(lane, job, fingerprint, answer)
            job.refused_token = fingerprint
            lane.refused(fingerprint)
        elif verdict is Verdict.ACCOUNT:
            self._stops.refused_account(lane, job, fingerprint, answer)
        elif verdict is Verdict.QUOTA:
            self._used_up(lane, job)
        else:
            lane.bucket.rest()
        self._lanes.again_now(lane, job)

    def _used_up(self, lane: Lane, job: Job) -> None:
        """45009: the channel rests until WeChat counts anew, or an hour when that was tried just now."""
        name, channel, at = lane.account.name, job.channel, wall_ms()
        until = at + quotas.REFUSED_MS if job.probe else quotas.reopening(name, channel, at)
        job.probe = False
        self._desk.rest(name, channel, until)
        self._lanes.rest(lane, {**lane.rests, channel: until})
