"""How many people are in which state: the counters of shards, kept with each write, and their sums for a campaign."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fanoutd.outcome import CHANNELS, Progress, State, channel_name, errcode_word
from fanoutd.store.database import Database, Row, holes

#: Campaigns in one question.
_AT_ONCE = 100


def tally(
    changed: Counter[str], errors: Counter[str], state: State, progress: Progress | None, by: int
) -> None:
    """``by`` more deliveries in a state, in the columns of the shard."""
    changed[_column(state, progress.channel if progress else None)] += by
    changed["resend"] += by if state is State.RESEND else 0
    word = errcode_word(progress.errcode) if progress and state is State.FAILED else None
    if word is not None:
        errors[word] += by


def adjust(db: Database, shard: int, changed: Counter[str], errors: Counter[str], more: str = "") -> None:
    """Bring a shard's counters up to date; ``errors`` as they are then."""
    sets = ", ".join(f"{column} = {column} + {int(by)}" for column, by in sorted(changed.items()) if by)
    if sets:
        db.later(
            f"UPDATE fanout_shard SET {sets}, errors = %s{more} WHERE id = %s",
            json.dumps({code: count for code, count in errors.items() if count}), shard,
        )  # fmt: skip


def recount(db: Database, shard: int) -> None:
    """Set the counters to what the rows say."""
    counters: Counter[str] = Counter(
        dict.fromkeys((*(f"sent_{each}" for each in CHANNELS), "pending", "failed", "skipped", "unknown", "resend"), 0)
    )
    errors: Counter[str] = Counter()
    for state, channel, errcode, count in db.rows(
        "SELECT state, channel, errcode, COUNT(*) FROM fanout_delivery WHERE shard = %s "
        "GROUP BY state, channel, errcode",
        shard,
    ):
        tally(counters, errors, State(state), Progress(channel=channel, errcode=errcode), count)
    sets = ", ".join(f"{column} = {int(count)}" for column, count in counters.items())
    db.execute(f"UPDATE fanout_shard SET {sets}, errors = %s WHERE id = %s", json.dumps(errors), shard)


def _column(state: State, channel: int | None) -> str:
    return f"sent_{channel_name(channel)}" if state is State.SENT else state.word


@dataclass(frozen=True, slots=True)
class Counts:
    """People of a campaign by outcome, and the last errcodes of those that failed."""

    pending: int
    sent_custom: int
    sent_template: int
    sent_subscribe: int
    failed: int
    skipped: int
    unknown: int
    errors: dict[str, int]

    @property
    def by_state(self) -> dict[str, int]:
        return {
            "pending": self.pending,
            "sent_custom": self.sent_custom,
            "sent_template": self.sent_template,
            "sent_subscribe": self.sent_subscribe,
            "failed": self.failed,
            "skipped": self.skipped,
            "unknown": self.unknown,
        }

    @property
    def total(self) -> int:
        return sum(self.by_state.values())


def counts(db: Database, campaign: str) -> Counts:
    """Sums over the campaign's shards; their rows are few, the people never counted."""
    return counts_of(db, [campaign])[campaign]


def counts_of(db: Database, wanted: Sequence[str]) -> dict[str, Counts]:
    """The same for several campaigns, asked together."""
    by_campaign: dict[str, list[Row]] = {campaign: [] for campaign in wanted}
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        for row in db.rows(
            "SELECT campaign, errors, pending, sent_custom, sent_template, sent_subscribe, failed, skipped, unknown "
            f"FROM fanout_shard WHERE campaign IN ({holes(len(some))})",
            *some,
        ):  # fmt: skip
            by_campaign[row[0]].append(row[1:])
    return {campaign: _sums(rows) for campaign, rows in by_campaign.items()}


def _sums(rows: list[Row]) -> Counts:
    errors: dict[str, int] = {}
    for row in rows:
        for code, count in json.loads(row[0]).items():
            errors[code] = errors.get(code, 0) + count
    pending, custom, template, subscribe, failed, skipped, unknown = (sum(row[i] for row in rows) for i in range(1, 8))
    return Counts(pending, custom, template, subscribe, failed, skipped, unknown, errors)


def share(db: Database, campaign: str) -> float:
    """Which part of those planned so far has ended, from 0 to 1."""
    now = counts(db, campaign)
    return 1 - now.pending / now.total if now.total else 0.0
