"""Outcomes on their way into the store: the rows of an attempt, and the counters of its shard with them.

A result is a fact about one attempt and is taken as long as that attempt is open.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fanoutd.outcome import DOUBTFUL, ENDED, MOVES, Ended, Progress, State
from fanoutd.store import campaigns, counters, deliveries, shard_leases
from fanoutd.store.database import Database, Later

Result = tuple[int, Progress]
"""(position, how far this person has come)."""


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """What came of people of one shard in the lease of ``token``."""

    shard: int
    token: int
    results: Sequence[Result]
    ended: Ended = field(default_factory=Counter)
    """Filled in as they are written: those of them who came into a final state by it."""


def record(db: Database, shard: int, token: int, results: Iterable[Result], ended: Ended | None = None) -> bool:
    """Write outcomes of the attempt ``token``, and the shard's counters with them. False as in ``record_all``.

    Late results, of an attempt that was given up as unknown in the meantime, are taken too. ``ended`` is filled in.
    """
    attempt = Attempt(shard, token, list(results), Counter() if ended is None else ended)
    return not record_all(db, ask_to_record(db, [attempt]))


Recording = list[tuple[Attempt, Later]]
"""Attempts with the rows of their shards, which are held."""


def ask_to_record(db: Database, attempts: Iterable[Attempt]) -> Recording:
    """Begin to write outcomes: see ``Database.later``."""
    return [
        (each, db.later(f"SELECT token, campaign, errors FROM fanout_shard WHERE id = %s{db.LOCK}", each.shard))
        for each in sorted(attempts, key=lambda each: each.shard)  # one order of locks for all
    ]


def record_all(db: Database, recording: Recording) -> list[Attempt]:
    """As ``record``, for several shards. Those are given back, unwritten, whose lease the store has never seen: it is
    an older store than that in which they were taken."""
    unseen: list[Attempt] = []
    writing: list[tuple[_Writing, str]] = []
    for each, head in recording:
        row = head.one()
        if row is None or row[0] < each.token:
            unseen.append(each)
        else:
            found = partial(_found, row[0] != each.token)
            writing.append((_Writing(each, row[2], found), row[1]))
    _write(db, [each for each, _ in writing])
    for written, campaign in writing:
        if written.changed["pending"] > 0 or written.changed["resend"] > 0:
            # It was done for want of these, who turn out never to have been sent to. Not only by a late word: whoever
            # takes a shard over leaves its token as it is, and nobody may have leased it since.
            campaigns.move(db, campaign, "done", "running", finished_at=None)
    return unseen


def _found(late: bool, new: State) -> dict[State, bool]:
    """The states in which this attempt may find its rows, and whether they must bear its token.

    A late word other than "sent" says nothing about a row that is being sent again.
    """
    if not late:
        return {State.PENDING: False, State.RESEND: False, State.UNKNOWN: True}
    return dict.fromkeys(DOUBTFUL if new is State.SENT else (State.UNKNOWN,), True)


def correct(db: Database, shard: int, token: int, results: Iterable[Result]) -> None:
    """Write what rows have come to, whatever they were; under ``token`` from here on."""
    row = db.one(f"SELECT errors FROM fanout_shard WHERE id = %s{db.LOCK}", shard)
    if row is not None:
        attempt = Attempt(shard, token, list(results))
        _write(db, [_Writing(attempt, row[0], lambda _new: dict.fromkeys(State, False))])


class _Writing:
    """One shard's results on their way: the shard's row is held."""

    def __init__(self, attempt: Attempt, errors: str, found: Callable[[State], dict[State, bool]]) -> None:
        self.attempt = attempt
        self.errors = Counter({code: int(count) for code, count in json.loads(errors).items()})
        self.changed: Counter[str] = Counter()
        """By how much each counter of the shard has changed."""
        self._groups = [
            (progress, group, [each for each in found(progress.state).items() if (each[0], progress.state) in MOVES])
            for progress, group in _groups(attempt.results).items()
        ]
        self._left = [len(group) for _, group, _ in self._groups]

    def ask(self, db: Database, turn: int) -> list[tuple[int, State, Later]]:
        """Try the next state in which rows may be that have not been found."""
        return [
            (at, sources[turn][0], deliveries.write(
                db, self.attempt.shard, self.attempt.token, sources[turn][0], progress, group, sources[turn][1]
            ))
            for at, (progress, group, sources) in enumerate(self._groups)
            if self._left[at] and turn < len(sources)
        ]  # fmt: skip

    def hear(self, at: int, source: State, count: int) -> None:
        progress = self._groups[at][0]
        self._left[at] -= count
        counters.tally(self.changed, self.errors, source, None, -count)
        counters.tally(self.changed, self.errors, progress.state, progress, count)
        if count and progress.state in ENDED and progress.state is not source:
            self.attempt.ended[progress.state, progress.channel, progress.errcode] += count


def _write(db: Database, writing: Sequence[_Writing]) -> None:
    for turn in range(len(State)):
        asked = [(each, *answer) for each in writing for answer in each.ask(db, turn)]
        for each, at, source, answer in asked:
            each.hear(at, source, answer.count())
    for each in writing:
        counters.adjust(
            db, each.attempt.shard, each.changed, each.errors,
            f", lease_until = CASE WHEN owner IS NULL THEN lease_until ELSE {db.NOW_MS} + {shard_leases.LEASE_MS} END",
        )  # fmt: skip


def _groups(results: Iterable[Result]) -> dict[Progress, list[tuple[int, int | None]]]:
    """Equal outcomes together: one statement each, whatever their number. msgids stay apart."""
    groups: dict[Progress, list[tuple[int, int | None]]] = defaultdict(list)
    for pos, p in results:
        groups[p if p.msgid is None else replace(p, msgid=None)].append((pos, p.msgid))
    return groups
