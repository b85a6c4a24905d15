"""The counters of shards: by them is known how many people are in which state, without anybody being counted."""

from __future__ import annotations

import json
from collections import Counter

from fanoutd.outcome import CHANNELS, Progress, State, channel_name, errcode_word
from fanoutd.store.database import Database


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
