"""Shards: leases, windows and records. The durable half of a worker's promise.

A worker leases a shard, claims a window of its people, and only then may send to them: a row is
in flight when it is pending and below the shard's ``next``. Intents are fenced by the lease's
token; a result is a fact about one attempt and is taken as long as that attempt is open.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fanoutd.boot import boot_tag
from fanoutd.outcome import (
    CHANNELS,
    DOUBTFUL,
    ENDED,
    LONG_AGO,
    MOVES,
    NEVER_HEARD,
    OPEN,
    RENDER,
    Ended,
    Progress,
    State,
    channel_name,
    errcode_word,
)
from fanoutd.store import campaigns
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import Database, Later, Row, holes

#: How long a lease holds without being renewed by a further window or record.
LEASE_MS = 30_000

#: Free shards that are looked at together where other processes look too, and how many of them one may take.
_CANDIDATES, _AT_ONCE = 16, 8

Result = tuple[int, Progress]
"""(position, how far this person has come)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in a worker's hands."""

    shard: int
    token: int
    campaign: str
    owner: str


@dataclass(frozen=True, slots=True)
class Person:
    """A claimed row: whom to send to, and how far earlier attempts came."""

    pos: int
    openid: str
    progress: Progress
    person: str | None
    """Their own variables as JSON text, or None."""
    attempt: int = 0
    """The fencing token under which ``progress`` was written down, 0 for never."""
    skip_custom: bool = False
    """Their window is known to be shut: begin with the channel after it."""
    counted: bool = False
    """A custom message takes one from their window."""


_PERSON = (
    "d.pos, d.openid, d.state, d.channel, d.errcode, d.msgid, d.attempts, d.generation, d.tries, d.since, d.boot, "
    "d.person, d.attempt"
)
_OPEN = ", ".join(str(int(state)) for state in OPEN)


@dataclass(frozen=True, slots=True)
class Planned:
    """A row to be: frozen with the plan."""

    openid: str
    person: str | None = None
    failed: bool = False
    """Nothing can be sent to this openid; it is counted all the same."""
    skipped: bool = False
    """Takes no messages."""

    @property
    def state(self) -> State:
        return State.FAILED if self.failed else State.SKIPPED if self.skipped else State.PENDING


def add(db: Database, campaign: str, idx: int, people: Sequence[Planned]) -> int:
    """Put the people into a new shard, ready to be leased; its number."""
    states = Counter(p.state for p in people)
    failed = states[State.FAILED]
    shard = db.insert(
        "INSERT INTO fanout_shard (campaign, idx, size, pending, failed, skipped, errors) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        campaign, idx, len(people), states[State.PENDING], failed, states[State.SKIPPED],
        json.dumps({"render": failed} if failed else {}),
    )  # fmt: skip
    db.insert_many(
        "INSERT INTO fanout_delivery (shard, pos, openid, person, state, errcode) VALUES (%s, %s, %s, %s, %s, %s)",
        [
            (shard, pos, p.openid, p.person, p.state, RENDER if p.failed else None)
            for pos, p in enumerate(people)
        ],
    )
    return shard


def lease(db: Database, owner: str) -> Lease | None:
    """Take the oldest free shard of a running campaign, or None when there is none."""
    taken = take(db, owner, 1)
    return taken[0][0] if taken else None


Taken = tuple[Lease, Campaign, "Window"]
"""A shard that was leased, and who comes first in it."""


def take(db: Database, owner: str, people: int, free: Later | None = None) -> list[Taken]:
    """Lease some free shards of running campaigns, the oldest first: as many as have so many people, if one may take
    that many of them. Empty when there are none, or others were faster (see ``ready``). ``free`` is what ``ask_free``
    gave in this transaction.
    """
    beyond = 0
    # What was looked at early does not show what this transaction has given back since.
    while rows := [row for row in (free.rows() if free else []) or ask_free(db).rows() if row[0] > beyond]:
        free = None
        asked = [
            (campaigns.asked(db, held.campaign), _look(db, held, people, _ask_for(db, held)))
            for held in [
                Lease(shard, token + 1, campaign, owner)
                for shard, token, campaign, _ in sorted(_enough(rows, people))  # one order of locks for all
            ]
        ]
        taken = [(window.held, found(), window) for found, window in asked if window.holds.count()]
        if taken:
            return taken
        beyond = asked[-1][1].held.shard  # others' by now, but we waited for them, and hold their rows to the end
    return []


def ask_free(db: Database) -> Later:
    """Shards that might be leased, with the number of their people."""
    return db.later(
        "SELECT s.id, s.token, s.campaign, s.pending + s.resend "
        "FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        f"WHERE s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0) "
        "AND c.state = 'running' ORDER BY c.created_at, s.campaign, s.idx LIMIT %s",
        _CANDIDATES if db.shared else 1,
    )


def _enough(rows: list[Row], people: int) -> list[Row]:
    """Many who look at once would all want the first, and wait for each other to find it taken."""
    chosen: list[Row] = []
    for each in random.sample(rows, len(rows)):
        if people > 0 and len(chosen) < _AT_ONCE:
            chosen.append(each)
            people -= each[3]
    return chosen


def _ask_for(db: Database, held: Lease) -> Later:
    """Whoever has leased it since may be writing: the row is looked at without a lock first, so that nobody waits for
    what is not to be had, in the worst case for each other. Who pauses the campaign waits for us, or we see it."""
    before = held.shard, held.token - 1
    return db.later(
        f"UPDATE fanout_shard SET owner = %s, token = token + 1, next = 0, lease_until = {db.NOW_MS} + %s "
        "WHERE id = %s AND token = %s AND owner IS NULL AND id = (SELECT id FROM ("
        "SELECT DISTINCT id FROM fanout_shard WHERE id = %s AND token = %s AND owner IS NULL) AS free) "
        f"AND {_runs(db)}",
        held.owner, LEASE_MS, *before, *before,
    )  # fmt: skip


def _runs(db: Database) -> str:
    """The shard's campaign does, and will until the transaction ends."""
    return f"EXISTS (SELECT 1 FROM fanout_campaign c WHERE c.id = campaign AND c.state = 'running'{db.LOCK_SHARED})"


@dataclass(slots=True, eq=False)
class Window:
    """The next people of a leased shard, asked for and not claimed yet. See ``Database.later``."""

    held: Lease
    limit: int
    holds: Later
    """No row: the lease is not to be had, or lost."""
    found: Later

    def people(self) -> list[Person] | None:
        """At most ``limit``; None as in ``claim``."""
        return [_person(*row) for row in self.found.rows()] if self.holds.count() else None


def ask(db: Database, held: Lease, limit: int) -> Window:
    """Renew the lease, and look who is next in it."""
    return _look(db, held, limit, asked_to_renew(db, held))


def _look(db: Database, held: Lease, limit: int, holds: Later) -> Window:
    return Window(held, limit, holds, db.later(
        f"SELECT {_PERSON} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos >= s.next AND d.state IN ({_OPEN}) ORDER BY d.pos LIMIT %s",
        held.shard, limit,
    ))  # fmt: skip


def lock(db: Database, ids: Iterable[int]) -> None:
    """Hold these rows until the transaction ends. Who is about to change several begins so: in order, as all others."""
    if db.LOCK and (chosen := sorted(ids)):
        db.later(f"SELECT id FROM fanout_shard WHERE id IN ({holes(len(chosen))}) ORDER BY id{db.LOCK}", *chosen)


def claim(db: Database, held: Lease, window: int, asked: Window | None = None) -> list[Person] | None:
    """The next ``window`` people, theirs to send to once the transaction is durable.

    Empty at the end of the shard. None when the lease is lost or the campaign does not run: then
    nothing of this shard may be started any more. ``asked``: of this transaction, in which nothing has been claimed
    of the shard yet; it may have been for more people, not for fewer.
    """
    found = (asked or ask(db, held, window)).people()
    if found is None:
        return None
    people = found[:window]
    if people:
        db.later("UPDATE fanout_shard SET next = %s WHERE id = %s", people[-1].pos + 1, held.shard)
    return people


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
            (at, sources[turn][0], _write_group(
                db, self.attempt.shard, self.attempt.token, sources[turn][0], progress, group, sources[turn][1]
            ))
            for at, (progress, group, sources) in enumerate(self._groups)
            if self._left[at] and turn < len(sources)
        ]  # fmt: skip

    def hear(self, at: int, source: State, count: int) -> None:
        progress = self._groups[at][0]
        self._left[at] -= count
        _count(self.changed, self.errors, source, None, -count)
        _count(self.changed, self.errors, progress.state, progress, count)
        if count and progress.state in ENDED and progress.state is not source:
            self.attempt.ended[progress.state, progress.channel, progress.errcode] += count


def _write(db: Database, writing: Sequence[_Writing]) -> None:
    for turn in range(len(State)):
        asked = [(each, *answer) for each in writing for answer in each.ask(db, turn)]
        for each, at, source, answer in asked:
            each.hear(at, source, answer.count())
    for each in writing:
        adjust(
            db, each.attempt.shard, each.changed, each.errors,
            f", lease_until = CASE WHEN owner IS NULL THEN lease_until ELSE {db.NOW_MS} + {LEASE_MS} END",
        )  # fmt: skip


def _count(
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
        _count(counters, errors, State(state), Progress(channel=channel, errcode=errcode), count)
    sets = ", ".join(f"{column} = {int(count)}" for column, count in counters.items())
    db.execute(f"UPDATE fanout_shard SET {sets}, errors = %s WHERE id = %s", json.dumps(errors), shard)


def renew(db: Database, held: Lease) -> bool:
    """Hold the shard for another term; False when it is lost or the campaign does not run."""
    return asked_to_renew(db, held).count() > 0


def asked_to_renew(db: Database, held: Lease) -> Later:
    """The same, said by the number of rows.

    Who pauses the campaign waits for our transaction: whatever is claimed after it finds that it does not run.
    """
    return db.later(
        f"UPDATE fanout_shard SET lease_until = {db.NOW_MS} + %s WHERE id = %s AND token = %s AND owner = %s "
        f"AND {_runs(db)}",
        LEASE_MS, held.shard, held.token, held.owner,
    )  # fmt: skip


def release(db: Database, held: Lease, not_before: int = 0) -> None:
    """Give the shard back with nothing on the wire: whoever is pending may be claimed again, from ``not_before`` on
    (milliseconds since 1970), until when nobody leases it."""
    db.later(
        "UPDATE fanout_shard SET owner = NULL, next = 0, lease_until = %s WHERE id = %s AND token = %s",
        not_before, held.shard, held.token,
    )  # fmt: skip


def park(db: Database, campaign: str, not_before: int) -> None:
    """Let nobody lease what is free of the campaign before then."""
    db.execute(
        "UPDATE fanout_shard SET lease_until = %s WHERE campaign = %s AND owner IS NULL AND lease_until < %s",
        not_before, campaign, not_before,
    )  # fmt: skip


def unpark(db: Database, account: str) -> None:
    """Let all that is free of the account be leased again."""
    db.execute(
        f"UPDATE fanout_shard SET lease_until = 0 WHERE owner IS NULL AND lease_until > {db.NOW_MS} "
        "AND campaign IN (SELECT id FROM fanout_campaign WHERE account = %s)",
        account,
    )


def waiting(db: Database, shard: int, whole: bool) -> list[Person]:
    """Its open people; not ``whole``: those who are not claimed yet."""
    rows = db.rows(
        f"SELECT {_PERSON} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos >= {0 if whole else 's.next'} AND d.state IN ({_OPEN})",
        shard,
    )
    return [_person(*row) for row in rows]


def still_held(db: Database, held: Lease, ended_before: int | None = None) -> bool:
    """Whether nobody has changed that lease meanwhile, and it ended so many milliseconds ago; its row is held."""
    ended = "" if ended_before is None else f" AND lease_until < {db.NOW_MS} - {int(ended_before)}"
    return db.one(
        f"SELECT 1 FROM fanout_shard WHERE id = %s AND token = %s AND owner = %s{ended}{db.LOCK}",
        held.shard, held.token, held.owner,
    ) is not None  # fmt: skip


def of_owner(db: Database, owner: str) -> list[Lease]:
    """The shards that a worker held."""
    rows = db.rows("SELECT id, token, campaign FROM fanout_shard WHERE owner = %s ORDER BY id", owner)
    return [Lease(shard, token, campaign, owner) for shard, token, campaign in rows]


def expired(db: Database, since_ms: int) -> list[Lease]:
    """Leases that ended so long ago, by the database's clock."""
    rows = db.rows(
        "SELECT id, token, campaign, owner FROM fanout_shard "
        f"WHERE owner IS NOT NULL AND lease_until < {db.NOW_MS} - %s",
        since_ms,
    )
    return [Lease(*row) for row in rows]


def owners(db: Database) -> list[str]:
    rows = db.rows("SELECT DISTINCT owner FROM fanout_shard WHERE owner IS NOT NULL")
    return [row[0] for row in rows]


def nodes_with(db: Database, campaign: str) -> set[str]:
    """The nodes whose workers hold a shard of the campaign."""
    rows = db.rows("SELECT DISTINCT owner FROM fanout_shard WHERE campaign = %s AND owner IS NOT NULL", campaign)
    return {row[0].partition("/")[0] for row in rows}


def stopped(db: Database, node: str) -> list[str]:
    """Campaigns of which the node's workers hold shards, though nothing of them should be sent."""
    rows = db.rows(
        "SELECT DISTINCT s.campaign FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        "WHERE s.owner >= %s AND s.owner < %s AND c.state IN ('paused', 'cancelled', 'failed')",
        f"{node}/", f"{node}0",  # all owners of the node: "0" comes next after "/"
    )  # fmt: skip
    return [row[0] for row in rows]


def in_flight(db: Database, shard: int) -> list[Person]:
    """Those claimed and not recorded."""
    rows = db.rows(
        f"SELECT {_PERSON} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos < s.next AND d.state IN ({_OPEN}) ORDER BY d.pos",
        shard,
    )
    return [_person(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's row, as far as its leases go."""

    id: int
    campaign: str
    token: int
    next: int
    leased: bool


_SHARD = "SELECT id, campaign, token, next, owner IS NOT NULL FROM fanout_shard"


def of_campaign(db: Database, campaign: str, lock: str = "") -> list[Shard]:
    """In sending order. ``lock``: ``db.LOCK`` for whoever changes them."""
    return [_shard(*row) for row in db.rows(f"{_SHARD} WHERE campaign = %s ORDER BY idx{lock}", campaign)]


def row(db: Database, shard: int) -> Shard | None:
    found = db.one(f"{_SHARD} WHERE id = %s", shard)
    return _shard(*found) if found else None


def _shard(id: int, campaign: str, token: int, following: int, leased: int) -> Shard:
    return Shard(id, campaign, token, following, bool(leased))


def people(db: Database, shard: int) -> list[Person]:
    """All of them, whatever their state."""
    return [_person(*row) for row in db.rows(
        f"SELECT {_PERSON} FROM fanout_delivery d WHERE d.shard = %s ORDER BY d.pos", shard
    )]  # fmt: skip


def retake(db: Database, shard: int, token: int) -> int:
    """Free a shard whoever had it, with a new token beyond ``token`` and its own; that token."""
    db.execute(
        "UPDATE fanout_shard SET owner = NULL, next = 0, lease_until = 0, "
        "token = CASE WHEN token > %s THEN token ELSE %s END + 1 WHERE id = %s",
        token, token, shard,
    )  # fmt: skip
    row = db.one("SELECT token FROM fanout_shard WHERE id = %s", shard)
    return int(row[0]) if row else 0


def given_up(db: Database, shard: int, token: int) -> list[Person]:
    """Those who became unknown because this lease was lost, without a call of theirs being known."""
    rows = db.rows(
        f"SELECT {_PERSON} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        "WHERE d.shard = %s AND s.unknown > 0 AND d.state = %s AND d.attempt = %s AND d.since = %s ORDER BY d.pos",
        shard, State.UNKNOWN, token, NEVER_HEARD,
    )  # fmt: skip
    return [_person(*row) for row in rows]


def campaign_of(db: Database, shard: int) -> Campaign | None:
    row = db.one("SELECT campaign FROM fanout_shard WHERE id = %s", shard)
    return campaigns.get(db, row[0]) if row else None


#: Shards with their campaigns, which SQLite is to look at first: it would read all shards of months for the few of
#: those that run.
_OF_CAMPAIGNS = "fanout_campaign c CROSS JOIN fanout_shard s ON s.campaign = c.id"


def totals(db: Database) -> tuple[int, int]:
    """Shards that wait for a worker, and shards in a worker's hands."""
    waiting = db.rows(
        f"SELECT COUNT(*) FROM {_OF_CAMPAIGNS} "
        "WHERE s.owner IS NULL AND (s.pending > 0 OR s.resend > 0) AND c.state = 'running'"
    )
    leased = db.rows("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL")
    return int(waiting[0][0]), int(leased[0][0])


def ready(db: Database) -> int:
    """Shards that a worker may take now: of those that wait, the ones that are not parked."""
    row = db.one(
        f"SELECT COUNT(*) FROM {_OF_CAMPAIGNS} "
        f"WHERE s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0) "
        "AND c.state = 'running'"
    )
    return int(row[0]) if row else 0


def _person(
    pos: int, openid: str, state: int, channel: int | None, errcode: int | None, msgid: int | None, attempts: int,
    generation: int, tries: int, since: int | None, boot: int | None, person: str | None, attempt: int,
) -> Person:  # fmt: skip
    if since is not None and since > LONG_AGO and boot != boot_tag():
        since = LONG_AGO
    progress = Progress(State(state), channel, errcode, msgid, attempts, generation, tries, since)
    return Person(pos, openid, progress, person, attempt)


def _groups(results: Iterable[Result]) -> dict[Progress, list[tuple[int, int | None]]]:
    """Equal outcomes together: one statement each, whatever their number. msgids stay apart."""
    groups: dict[Progress, list[tuple[int, int | None]]] = defaultdict(list)
    for pos, p in results:
        groups[p if p.msgid is None else replace(p, msgid=None)].append((pos, p.msgid))
    return groups


def _write_group(
    db: Database, shard: int, token: int, source: State, progress: Progress, group: list[tuple[int, int | None]],
    fenced: bool,
) -> Later:  # fmt: skip
    """``fenced``: only rows whose state is this attempt's own doing."""
    with_msgid = [(pos, msgid) for pos, msgid in group if msgid is not None]
    msgid_sql, msgid_args = "NULL", []
    if with_msgid:
        msgid_sql = "CASE pos " + "WHEN %s THEN %s " * len(with_msgid) + "END"
        msgid_args = [value for pair in with_msgid for value in pair]
    guard, guard_args = (" AND attempt = %s", [token]) if fenced else ("", [])
    p = progress
    return db.later(
        "UPDATE fanout_delivery SET state = %s, channel = %s, errcode = %s, attempts = %s, generation = %s, "
        f"tries = %s, since = %s, boot = %s, attempt = %s, msgid = {msgid_sql}, updated_at = {db.NOW_MS} "
        f"WHERE shard = %s AND pos IN ({holes(len(group))}) AND state = %s{guard}",
        p.state, p.channel, p.errcode, p.attempts, p.generation, p.tries, p.since,
        None if p.since is None else boot_tag(), token, *msgid_args, shard, *(pos for pos, _ in group), source,
        *guard_args,
    )  # fmt: skip


def _column(state: State, channel: int | None) -> str:
    return f"sent_{channel_name(channel)}" if state is State.SENT else state.word
