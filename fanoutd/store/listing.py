"""Which campaigns are meant by a question, and these in parts, newest first."""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.store.campaigns import COLUMNS, Campaign, as_campaign
from fanoutd.store.database import Database


@dataclass(frozen=True, slots=True)
class Filter:
    """Which campaigns are meant; None and False: any. ``since`` and ``until`` are milliseconds since 1970 between which
    they were created, the first inclusive; ``reference`` is a part of theirs. ``problems``: paused, failed, or with
    people who failed or are unknown."""

    state: str | None = None
    since: int | None = None
    until: int | None = None
    account: str | None = None
    message: str | None = None
    reference: str | None = None
    problems: bool = False


#: Of ``Filter``, by field: a condition on its value.
_MEANT = {
    "state": "state = %s",
    "since": "created_at >= %s",
    "until": "created_at < %s",
    "account": "account = %s",
    "message": "message = %s",
    "reference": "INSTR(reference, %s) > 0",
}

_PROBLEMS = (
    "(state IN ('paused', 'failed') OR EXISTS (SELECT 1 FROM fanout_shard s WHERE s.campaign = fanout_campaign.id "
    "AND (s.failed > 0 OR s.unknown > 0)))"
)


def listed(db: Database, which: Filter, limit: int, before: Campaign | None) -> list[Campaign]:
    """Newest first, at most ``limit``, those older than ``before``: read in the order of an index until there are
    enough."""
    wanted = {field: value for field in _MEANT if (value := getattr(which, field)) is not None}
    where, args = ["1 = 1", *(_MEANT[field] for field in wanted)], list(wanted.values())
    if which.problems:
        where.append(_PROBLEMS)
    if before is not None:
        where.append("created_at <= %s AND (created_at < %s OR id < %s)")
        args += [before.created_at, before.created_at, before.id]
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_campaign WHERE {' AND '.join(where)} "
        "ORDER BY created_at DESC, id DESC LIMIT %s",
        *args, limit,
    )  # fmt: skip
    return [as_campaign(row) for row in rows]
