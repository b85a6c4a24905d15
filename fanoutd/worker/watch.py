"""What a worker's answers say about their campaigns, noted where all workers of the node see it."""

from __future__ import annotations

from pathlib import Path

from fanoutd.boot import uptime_ms
from fanoutd.outcome import Progress, State, Verdict, meaning, row_of
from fanoutd.worker.tallies import Tallies
from fanoutd.worker.trials import Key
from fanoutd.worker.verdicts import NO_ANSWER, Stop, detail, in_a_row

#: Outcomes that are noted together, if nobody failed.
_TOGETHER = 16

#: A campaign that was stopped so long ago and is sent again was let go on elsewhere, milliseconds.
_LET_GO_AFTER = 5_000

#: Verdicts on this one call alone: they neither make nor break a row.
_NEUTRAL = (
    Verdict.RETRY, Verdict.TOKEN, Verdict.REST, Verdict.QUOTA, Verdict.ACCOUNT, Verdict.STOP_CAMPAIGN,
    Verdict.STOP_ACCOUNT,
)  # fmt: skip


class Watch:
    def __init__(self, path: Path, workers: int) -> None:
        self._tallies = Tallies(path)
        self._workers = workers
        self._ended: dict[str, list[int]] = {}
        self._leases: dict[int, int] = {}

    def stopped(self, campaign: str) -> bool:
        """Some worker has seen that nothing more of it should be sent."""
        return self._tallies.find(campaign).tripped != 0

    def stop(self, campaign: str) -> None:
        self._ended.pop(campaign, None)
        tally = self._tallies.find(campaign)
        self._tallies.locked(lambda: tally.trip(uptime_ms()))

    def begins(self, campaign: str, token: int, shard: int) -> None:
        """People were claimed by this lease; if it is a new one, the campaign runs."""
        if self._leases.get(shard) == token:
            return
        if len(self._leases) > 1000:
            self._leases.clear()
        self._leases[shard] = token
        tally = self._tallies.find(campaign)
        if tally.tripped and not 0 <= uptime_ms() - tally.tripped < _LET_GO_AFTER:
            self._tallies.locked(tally.clear)

    def room(self, key: Key) -> int | None:
        """For ``Trials``: requests that may be on the wire; None when the channel has proven itself.

        Of a stopped campaign everybody may come, to be handed back.
        """
        tally = self._tallies.find(key[0])
        return None if tally.tripped or tally.proven(key[1]) else tally.room(key[1], self._workers)

    def answered(self, key: Key, errcode: int, errmsg: str, verdict: Verdict) -> Stop | None:
        """Note WeChat's answer; why the campaign must stop now, if it must."""
        if verdict in _NEUTRAL or meaning(errcode).about == "W":
            return None
        campaign, channel = key
        tally, row = self._tallies.find(campaign), row_of(errcode, verdict)
        if tally.unremarkable(channel, row):
            return None
        full = self._tallies.locked(lambda: tally.heard(channel, row, detail(row, errmsg), uptime_ms()))
        return in_a_row(row, errcode, errmsg) if full else None

    def ended(self, campaign: str, progress: Progress, share: float) -> Stop | None:
        """Note a delivery that has ended; why the campaign must stop, if more than ``share`` failed lately."""
        if share >= 1:
            return None
        code = {State.SENT: 0, State.UNKNOWN: NO_ANSWER}.get(progress.state, progress.errcode)
        codes = self._ended.setdefault(campaign, [])
        codes.append(NO_ANSWER if code is None else code)
        return self._note(campaign, share) if codes[-1] or len(codes) >= _TOGETHER else None

    def _note(self, campaign: str, share: float) -> Stop | None:
        tally = self._tallies.find(campaign)
        try:
            stop = self._tallies.locked(lambda: tally.ended(self._ended[campaign], share), must=False)
        except BlockingIOError:
            return None  # with the next ones
        self._ended[campaign] = []
        self._tallies.touch(campaign)
        return stop
