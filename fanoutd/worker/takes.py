"""What becomes of people whom the recorder has claimed: they line up, with their campaign's message."""

from __future__ import annotations

from fanoutd.config import Config
from fanoutd.store.campaigns import Campaign
from fanoutd.values import message_values
from fanoutd.worker.desk import Desk
from fanoutd.worker.holds import Hold
from fanoutd.worker.lane import Job, Lane, Message, compile_message
from fanoutd.worker.lanes import Lanes
from fanoutd.worker.watch import Watch
from fanoutd.worker.words import Claimed


class Takes:
    def __init__(self, config: Config, lanes: Lanes, desk: Desk, watch: Watch) -> None:
        self._config, self._lanes, self._desk, self._watch = config, lanes, desk, watch
        self._messages: dict[str, Message] = {}

    def take(self, claimed: Claimed) -> None:
        hold = claimed.hold
        lane = self._lanes.of(hold.campaign.account)
        jobs = [Job(hold, p, p.progress, self._message(hold.campaign)) for p in claimed.people]
        for job in jobs:
            job.probe = job.channel == claimed.probe
        if hold.campaign.id in self._lanes.halted:
            self._lanes.hand_back(jobs)
            self._desk.let_go(hold.campaign.id)
        elif lane is None or self._lanes.stopping or hold.lost:
            self._lanes.hand_back(jobs)
        else:
            self._line_up(lane, hold, jobs)
        if lane is None:
            self._desk.pause(
                hold.campaign.id, "config", f"account {hold.campaign.account} is not configured any more"
            )

    def _line_up(self, lane: Lane, hold: Hold, jobs: list[Job]) -> None:
        if jobs:
            jobs[0].message.shut = lane.shut
        self._watch.begins(hold.campaign.id, hold.lease.token, hold.lease.shard)
        lane.trials.line_up(jobs, lane.ready)

    def _message(self, campaign: Campaign) -> Message:
        if campaign.id not in self._messages:
            account = self._config.accounts.get(campaign.account)
            values = message_values(campaign, account.timezone if account else "UTC")
            self._messages[campaign.id] = compile_message(campaign.definition, values)
        return self._messages[campaign.id]

    def forget(self) -> None:
        """Nobody is in hand: messages are compiled anew for whoever comes next."""
        self._messages.clear()
