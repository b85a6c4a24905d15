"""What was done to a campaign, by whom: people by the peer of their connection, ourselves by nobody.

A line is written in the transaction of the change that it tells, so neither is there without the other. A handful a
campaign: what happens to people stands in their own rows.
"""

from __future__ import annotations

import logging
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fanoutd.store.database import Database

_log = logging.getLogger(__name__)

#: Lines that are given at once, the newest; a campaign that a failing token stopped and let go all week has more.
MOST = 1000

#: Characters of a detail that are kept: a reason with WeChat's own words in it may be long.
_LONGEST = 2000

_node = ""


@dataclass(frozen=True, slots=True)
class By:
    """Who did it. ``who`` is the name that ``uid`` had on its node; all None: we ourselves, without being told."""

    uid: int | None = None
    who: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        return "itself" if self.uid is None else f"uid={self.uid} ({self.who or '?'}) pid={self.pid}"


OURSELVES = By()


@dataclass(frozen=True, slots=True)
class Line:
    """``at`` is milliseconds since 1970, by the database's clock; ``detail`` is for people, None for nothing to add."""

    at: int
    action: str
    node: str
    by: By
    detail: str | None


def peer(said: Mapping[str, Any] | None) -> By:
    """The peer {uid, pid} of an order or of a submission; None, or one that lacks them: ourselves."""
    uid, pid = (said or {}).get("uid"), (said or {}).get("pid")
    return OURSELVES if uid is None else By(uid, _name(uid), pid)


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name[:64]
    except (KeyError, OverflowError):  # deleted since, or a number that no user has
        return None


def people(count: int) -> str:
    """``1 person``, ``1,500 people``."""
    return f"{count:,} {'person' if count == 1 else 'people'}"


def speak_for(node: str) -> None:
    """What this process does is done on this node."""
    global _node
    _node = node


def note(
    db: Database, campaign: str, action: str, by: By = OURSELVES, detail: str | None = None, at: int | None = None
) -> None:
    """Write a line; ``at`` None: now. Nobody waits for it: it goes along with what the transaction says next."""
    if by == OURSELVES:  # what people order is logged where it is carried out
        _log.info("campaign %s: %s%s", campaign, action, f", {detail}" if detail else "")
    db.later(
        "INSERT INTO fanout_history (campaign, at, node, action, uid, who, pid, detail) "
        f"VALUES (%s, COALESCE(%s, {db.NOW_MS}), %s, %s, %s, %s, %s, %s)",
        campaign, at, _node, action, by.uid, by.who, by.pid, detail and detail[:_LONGEST],
    )  # fmt: skip


def note_account(db: Database, account: str, state: str, action: str, detail: str | None) -> None:
    """A line for each campaign of the account in that state, as they are now."""
    db.later(
        "INSERT INTO fanout_history (campaign, at, node, action, detail) "
        f"SELECT id, {db.NOW_MS}, %s, %s, %s FROM fanout_campaign WHERE account = %s AND state = %s",
        _node, action, detail and detail[:_LONGEST], account, state,
    )  # fmt: skip


def lines(db: Database, campaign: str) -> list[Line]:
    """Oldest first. Nodes number theirs each by itself on some servers, so time comes first."""
    rows = db.rows(
        "SELECT at, action, node, uid, who, pid, detail FROM fanout_history WHERE campaign = %s "
        "ORDER BY at DESC, id DESC LIMIT %s",
        campaign, MOST,
    )  # fmt: skip
    return [Line(at, action, node, By(uid, who, pid), detail) for at, action, node, uid, who, pid, detail in rows[::-1]]


def forget(db: Database, campaign: str) -> None:
    """With its campaign. In a transaction."""
    db.later("DELETE FROM fanout_history WHERE campaign = %s", campaign)
