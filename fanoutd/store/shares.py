"""How an account's rate is divided among the nodes of the store; the rules are ``fanoutd.division``'s.

``fanout_rate`` has a row for each account: its lock, and what 45011 has left of the rate. ``fanout_share`` has one for
each node and account: the node itself writes ``beat`` there in a lone statement, everything else is written, and rows
of the dead are dropped, by who has the account's lock. Parts and rates are thousandths of a call a second,
``rest_until`` is milliseconds by the database's clock, ``halved`` thousandths.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fanoutd.division import Deed, Share
from fanoutd.store.database import Database, StoreBusy, holes


@dataclass(frozen=True, slots=True)
class Standing:
    """An account. ``halved`` holds from ``rest_until`` on, and what it has come to since is ``pace.restored``'s."""

    rest_until: int = 0
    halved: int = 1000
    rate: int = 0
    """By which ``halved`` was made: another rate sets it aside."""
    shares: list[Share] = field(default_factory=list)


_SHARE = "s.node, s.part, s.rate, s.wants, s.term, s.beat"


def begin(db: Database, accounts: Iterable[str]) -> None:
    """Have a row for each account."""
    for account in accounts:
        db.upsert("fanout_rate", {"account": account}, {"halved": 1000}, also="halved = halved")


def beat(db: Database, node: str, wants: Mapping[str, int], term: float) -> None:
    """What the node holds of these accounts is good for ``term`` seconds more, from before this. One statement."""
    if wants:
        which = " ".join(["WHEN %s THEN %s"] * len(wants))
        db.execute(
            f"UPDATE fanout_share SET beat = beat + 1, term = %s, wants = CASE account {which} END "
            f"WHERE node = %s AND account IN ({holes(len(wants))})",
            _ms(term), *(each for pair in wants.items() for each in pair), node, *wants,
        )  # fmt: skip


def end(db: Database, account: str, node: str, beat: int, term: float) -> None:
    """The same for the last time, and only if nobody has beaten in this node's name since ``beat``. One statement."""
    db.execute(
        "UPDATE fanout_share SET beat = beat + 1, term = %s WHERE account = %s AND node = %s AND beat = %s",
        _ms(term), account, node, beat,
    )  # fmt: skip


def read(db: Database) -> tuple[int, dict[str, Standing]]:
    """(the database's time, all accounts). One statement."""
    rows = db.rows(
        f"SELECT {db.NOW_MS}, r.account, r.rest_until, r.halved, r.rate, {_SHARE} FROM fanout_rate r "
        "LEFT JOIN fanout_share s ON s.account = r.account"
    )
    found: dict[str, Standing] = {}
    for _, account, rest_until, halved, rate, *share in rows:
        standing = found.setdefault(account, Standing(rest_until, halved, rate))
        if share[0] is not None:
            standing.shares.append(_share(*share))
    return int(rows[0][0]) if rows else 0, found


def lock(db: Database, account: str) -> Standing:
    """The account as it is, and stays until the transaction ends: beats aside."""
    row = db.one(f"SELECT rest_until, halved, rate FROM fanout_rate WHERE account = %s{db.LOCK}", account)
    rest_until, halved, rate = row or (0, 1000, 0)
    # Another statement: what the lock was waited for has changed by now.
    shares = db.rows(f"SELECT {_SHARE} FROM fanout_share s WHERE s.account = %s", account)
    return Standing(rest_until, halved, rate, [_share(*each) for each in shares])


def write(db: Database, account: str, node: str, rate: int, wants: int, term: float, deed: Deed) -> None:
    """Under the lock. Raises StoreBusy when one who was held to be dead beats: nothing of it must stay then.

    A new row's beats begin anywhere, so that nobody takes them for those of one that was dropped.
    """
    for each in deed.gone:
        if not db.execute(
            "DELETE FROM fanout_share WHERE account = %s AND node = %s AND beat = %s", account, each.node, each.beat
        ):
            raise StoreBusy(f"store {db.place}: node {each.node} is back")
    db.upsert(
        "fanout_share", {"account": account, "node": node},
        {"part": deed.part, "rate": rate, "wants": wants, "term": _ms(term), "beat": int.from_bytes(os.urandom(6))},
        also="part = new(part), rate = new(rate), wants = new(wants)",
    )  # fmt: skip


def rest(db: Database, account: str, rest_until: int, halved: int, rate: int) -> None:
    """Under the lock."""
    db.execute(
        "UPDATE fanout_rate SET rest_until = %s, halved = %s, rate = %s WHERE account = %s",
        rest_until, halved, rate, account,
    )  # fmt: skip


def _share(node: str, part: int, rate: int, wants: int, term: int, beat: int) -> Share:
    return Share(node, part, rate, wants, term / 1000, beat)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
