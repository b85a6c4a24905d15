"""What a submission would come to before anybody is sent to, and a word when today's quota is too small for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.audience import AudienceAway, excluded, stream
from fanoutd.dispatcher.importer import build
from fanoutd.dispatcher.planner import heeded, take, unseen
from fanoutd.dispatcher.queries import RpcError
from fanoutd.errors import FanoutdError
from fanoutd.outcome import channel_number
from fanoutd.quiet import seconds_lost
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, counters
from fanoutd.store.campaigns import Campaign
from fanoutd.store.quotas import left
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: Seconds for counting an audience; the client is told to try again after them.
PATIENCE = 60.0
_DAY_S = 86_400
#: People looked up in one piece.
_AT_ONCE = 1000

INVALID, NOT_NOW = -32602, -32005

Lost = Callable[[float], float]
"""For how long work of so many seconds lies still in quiet hours, in seconds."""


def forecast(
    people: int, channels: Sequence[str], rate: float, left: Mapping[str, int | None], lost: Lost
) -> dict[str, Any]:
    """The plan of a campaign that calls so many people.

    Everybody is called on the first channel; ``_most`` is when all of them need every further one. It
    ``fits_today`` when it does so even then, not when the first channel has too few calls left, and null between.
    """
    most = people * len(channels)
    return {
        "calls": people,
        "calls_most": most,
        "seconds": round(people / rate, 1),
        "seconds_most": round(most / rate, 1),
        "rate": rate,
        "quota_left": {channel: left[channel] for channel in channels},
        "fits_today": _fits(people, [left[channel] for channel in channels]),
        "quiet_hours_crossed": lost(min(most / rate, _DAY_S)) > 0,
    }


def _fits(people: int, left: Sequence[int | None]) -> bool | None:
    enough = [room is None or people <= room for room in left]
    return False if not enough[0] else True if all(enough) else None


def answer(db: Database, config: Config, spool: Spool, node: str, params: dict[str, Any]) -> dict[str, Any]:
    """``campaign.submit`` with ``dry_run``: {plan}. Nothing is kept. Raises RpcError."""
    document = params["document"]
    at = max(wall_ms(), document["send_at"] or 0)
    try:
        campaign = replace(build(document, config, node), started_at=at)
        tally = _Tally(stream(campaign, config, spool, document, PATIENCE), time.monotonic() + PATIENCE)
        people = unseen(tally.rows(), excluded(campaign, config, PATIENCE))
        while some := take(people, _AT_ONCE):
            tally.take(heeded(db, campaign, some))
    except AudienceAway as e:
        if (upload := document["upload"]) is not None:
            raise RpcError(INVALID, f"upload {upload!r} is not there (any more)", _about("upload")) from None
        raise RpcError(NOT_NOW, f"{e}; try again", _about("audience")) from None
    except FanoutdError as e:
        raise RpcError(INVALID, str(e)) from None
    return {"plan": {
        "total": tally.total,
        **_forecast(db, config, campaign, tally.total - tally.refused - tally.skipped, at),
        "duplicates": tally.seen - tally.total,
        "refused": tally.refused,
        "skipped": tally.skipped,
        "duplicate": params["duplicate"],
    }}  # fmt: skip


def _about(field: str) -> dict[str, str]:
    return {"field": field}


class _Tally:
    """People counted as they go by."""

    def __init__(self, people: Iterator[Planned], deadline: float) -> None:
        self.seen = self.total = self.refused = self.skipped = 0
        self._people, self._deadline = people, deadline

    def rows(self) -> Iterator[Planned]:
        for person in self._people:
            self.seen += 1
            if not self.seen % 1000 and time.monotonic() > self._deadline:
                raise RpcError(NOT_NOW, f"there are more people than can be counted in {PATIENCE:.0f} s")
            yield person

    def take(self, people: list[Planned]) -> None:
        self.total += len(people)
        self.refused += sum(each.failed for each in people)
        self.skipped += sum(each.skipped and not each.failed for each in people)


def _forecast(db: Database, config: Config, campaign: Campaign, people: int, at: int) -> dict[str, Any]:
    account = config.accounts[campaign.account]
    channels = campaign.definition["channels"]
    rooms = {channel: left(db, account.name, channel_number(channel), at) for channel in channels}
    hours = None if campaign.definition["test"] else account.quiet_hours
    return forecast(people, channels, account.rate, rooms, lambda s: seconds_lost(hours, account.timezone, at, s))


def room(db: Database, campaign: Campaign) -> int | None:
    """Calls that its first channel has left today; None when no limit is known."""
    channels = campaign.definition.get("channels")
    return left(db, campaign.account, channel_number(channels[0]), wall_ms()) if channels else None


def warn(db: Database, campaign: str, had: int | None) -> None:
    """Say of a campaign that is planned now that it does not fit into the ``had`` calls of today."""
    found = campaigns.get(db, campaign)
    if had is None or found is None or not found.planned or found.state != "running":
        return
    total = counters.counts(db, campaign).total
    if total > had:
        channel = found.definition["channels"][0]
        words = f"{total} people, {had} calls left today on {channel}: the rest goes out when there is quota again"
        log.warning("campaign %s: %s", campaign, words)
        with db.transaction():
            db.execute(
                "UPDATE fanout_campaign SET cause = 'quota', reason = %s "
                "WHERE id = %s AND state = 'running' AND reason IS NULL",
                words, campaign,
            )  # fmt: skip

