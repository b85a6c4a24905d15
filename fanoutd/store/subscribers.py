"""Subscribers in the store: read, changed and written back in one transaction. The rules are in ``fanoutd.standing``.

Everything is found by the primary key (account, openid), clustered: a window's people by one IN list, an
audience by keyset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from fanoutd.standing import HOOKS, LESSONS, Standing, State, learnt
from fanoutd.store import outbox
from fanoutd.store.database import Database, Row, holes

#: openids in one statement.
AT_ONCE = 500

_COLUMNS = "state, listed, since, gone_until, window_kind, window_until, window_left, event_at, sync, person"

Change = Callable[[Standing], Standing | None]
"""From what is known to what is so now; None leaves it as it was."""


def get(db: Database, account: str, openid: str) -> Standing | None:
    return load(db, account, [openid]).get(openid)


def load(db: Database, account: str, openids: Collection[str], lock: str = "") -> dict[str, Standing]:
    """What is known of these; who is unknown is not there. ``lock``: ``db.LOCK`` for whoever acts on what he sees."""
    return _load(db, account, openids, "", lock)


def notable(db: Database, account: str, openids: Collection[str]) -> dict[str, Standing]:
    """Those of them of whom something is known that a sender must heed. Costs one look when there is nobody at all."""
    return ask_notable(db, account, openids)()


def ask_notable(db: Database, account: str, openids: Collection[str]) -> Callable[[], dict[str, Standing]]:
    """The same, read when it is looked at: see ``Database.later``."""
    if not openids or not (db.shared or any_known(db, account)):  # two looks would take twice as long where it is far
        return dict
    only = " AND (state <> 0 OR gone_until IS NOT NULL OR window_kind IS NOT NULL)"
    return _ask(db, account, openids, only)


def any_known(db: Database, account: str) -> bool:
    return db.one("SELECT 1 FROM fanout_subscriber WHERE account = %s LIMIT 1", account) is not None


def _load(db: Database, account: str, openids: Collection[str], only: str, lock: str = "") -> dict[str, Standing]:
    return _ask(db, account, openids, only, lock)()


def _ask(
    db: Database, account: str, openids: Collection[str], only: str, lock: str = ""
) -> Callable[[], dict[str, Standing]]:
    answers = [
        db.later(
            f"SELECT openid, {_COLUMNS} FROM fanout_subscriber "
            f"WHERE account = %s AND openid IN ({holes(len(some))}){only}{lock}",
            account, *some,
        )
        for some in _some(openids)
    ]  # fmt: skip
    return lambda: {row[0]: _standing(row[1:]) for answer in answers for row in answer.rows()}


def change(
    db: Database, account: str, openids: Collection[str], now: int, how: Change, seen: dict[str, Standing] | None = None
) -> dict[str, Standing]:
    """Apply a rule to each of these, known or not; those whom it changed, as they are then. In a transaction.

    ``seen`` gets those who were known, as they were: whoever reads them himself before may see less.
    """
    changed: dict[str, Standing] = {}
    for some in _some(openids):
        known = _load(db, account, some, "", db.LOCK)
        if seen is not None:
            seen.update(known)
        for openid in some:
            before = known.get(openid)
            after = how(before or Standing(since=now))
            if after is not None and after != before:
                changed[openid] = after
        _save(db, account, {openid: changed[openid] for openid in some if openid in changed}, known)
    return changed


def _save(db: Database, account: str, standings: Mapping[str, Standing], known: Collection[str]) -> None:
    """In place of those who are ``known``. Of two that find somebody unknown one's INSERT fails, and its transaction is
    repeated: a DELETE of whoever is there would undo the other's word."""
    there = [openid for openid in standings if openid in known]
    for some in _some(there):
        db.later(
            f"DELETE FROM fanout_subscriber WHERE account = %s AND openid IN ({holes(len(some))})", account, *some
        )
    for some in _some(standings):
        values = ", ".join([f"({holes(12)})"] * len(some))
        db.later(
            f"INSERT INTO fanout_subscriber (account, openid, {_COLUMNS}) VALUES {values}",
            *(each for openid in some for each in (account, openid, *_row(standings[openid]))),
        )  # fmt: skip


def forget(db: Database, account: str, openid: str) -> None:
    """As if they had never been: their opt-out too."""
    db.execute("DELETE FROM fanout_subscriber WHERE account = %s AND openid = %s", account, openid)


def page(db: Database, account: str, after: str | None, limit: int) -> list[tuple[str, Standing]]:
    """The next ``limit`` in the order of their openids."""
    rows = db.rows(
        f"SELECT openid, {_COLUMNS} FROM fanout_subscriber WHERE account = %s AND openid > %s ORDER BY openid LIMIT %s",
        account, after or "", limit,
    )  # fmt: skip
    return [(row[0], _standing(row[1:])) for row in rows]


def audience(db: Database, account: str, page_size: int = 1000) -> Iterator[list[tuple[str, str | None]]]:
    """(openid, person) of everyone listed who takes messages, page by page; a page may be empty."""
    after: str | None = ""
    while after is not None:
        rows = db.rows(
            "SELECT openid, person, listed = 1 AND state = 0 AND (gone_until IS NULL OR gone_until <= %s) "
            "FROM fanout_subscriber WHERE account = %s AND openid > %s ORDER BY openid LIMIT %s",
            db.now_ms(), account, after, page_size,
        )  # fmt: skip
        after = rows[-1][0] if len(rows) == page_size else None
        yield [(openid, person) for openid, person, wanted in rows if wanted]


def count_seen(db: Database, account: str, since: int) -> int:
    """Those whom a sync that began then, or a later one, has seen."""
    row = db.one("SELECT COUNT(*) FROM fanout_subscriber WHERE account = %s AND sync >= %s", account, since)
    return int(row[0]) if row else 0


def unseen(db: Database, account: str, began: int, after: str, limit: int) -> tuple[list[str], str | None]:
    """Of the next ``limit``: those listed whom the sync has not seen and who did nothing since; and where to go on."""
    rows = db.rows(
        "SELECT openid, listed = 1 AND COALESCE(sync, 0) < %s AND COALESCE(event_at, 0) < %s "
        "FROM fanout_subscriber WHERE account = %s AND openid > %s ORDER BY openid LIMIT %s",
        began, began, account, after, limit,
    )  # fmt: skip
    return [openid for openid, missing in rows if missing], rows[-1][0] if len(rows) == limit else None


# ---- what a campaign adds


def learn(db: Database, account: str, answers: Mapping[str, int], hooks: Collection[str]) -> None:
    """What WeChat has answered, openid to errcode, becomes known; in the transaction of the outcomes.

    ``hooks`` are the statements that some audience has: an errand for each person of whom it is news.
    """
    lessons = sorted(set(answers.values()) & set(LESSONS))
    now = db.now_ms() if lessons else 0
    for errcode in lessons:
        lesson = LESSONS[errcode]
        people = [openid for openid, code in answers.items() if code == errcode]
        hook = HOOKS.get(lesson)
        before: dict[str, Standing] = {}
        after = change(db, account, people, now, partial(learnt, lesson=lesson, now=now), before)
        if hook in hooks:
            for openid, each in after.items():
                if each.word(now) != (before[openid].word(now) if openid in before else "active"):
                    tell(db, str(hook), account, openid)


def use(db: Database, account: str, openids: Sequence[str]) -> None:
    """A custom message went through to each of these: their windows hold one less."""
    for some in _some(openids):
        db.later(
            "UPDATE fanout_subscriber SET window_left = window_left - 1 "
            f"WHERE account = %s AND openid IN ({holes(len(some))}) AND window_left > 0",
            account, *some,
        )  # fmt: skip


def tell(db: Database, hook: str, account: str, openid: str) -> None:
    """Have the audiences' ``on_…`` statement executed for this person."""
    outbox.add(db, hook, {"account": account, "openid": openid})


def _some(openids: Collection[str]) -> Iterator[list[str]]:
    known = sorted(set(openids))
    for at in range(0, len(known), AT_ONCE):
        yield known[at : at + AT_ONCE]


def _standing(row: Row) -> Standing:
    state, listed, since, gone_until, kind, until, left, event_at, seen, person = row
    return Standing(since, State(state), bool(listed), gone_until, kind, until, left, event_at, seen, person)


def _row(s: Standing) -> Row:
    return (
        int(s.state), int(s.listed), s.since, s.gone_until, s.window_kind, s.window_until, s.window_left, s.event_at,
        s.seen, s.person,
    )  # fmt: skip
