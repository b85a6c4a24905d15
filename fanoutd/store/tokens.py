"""Access tokens as all processes see them: token and expiry in one row, changed in one step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from fanoutd.store.database import Database, holes

#: ``expires_at`` of a token whose end nobody knows: it stands in somebody else's table.
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; ``expires_at`` and ``fetched_at`` in milliseconds since 1970.

    ``fetched_at`` is when it was first handed out to us, or when WeChat vouched for it after a refusal.
    """

    text: str = field(repr=False)
    expires_at: int
    fetched_at: int

    @property
    def fingerprint(self) -> str:
        """A short name for the token as it was handed out this time: one that WeChat vouched for after it
        had refused it is another one."""
        return fingerprint(f"{self.text} {self.fetched_at}")

    @property
    def expiry(self) -> int | None:
        """``expires_at``, None when it is not known."""
        return None if self.expires_at == NEVER else self.expires_at

    def good(self, now: int) -> bool:
        """Whether it lives at ``now``, milliseconds since 1970, as far as anybody knows."""
        return self.expires_at > now


def fingerprint(token: str) -> str:
    """A short name for a token that may travel and be logged; the token cannot be had from it."""
    return hashlib.blake2b(token.encode(), digest_size=6).hexdigest()


def replaces(new: Token, old: Token | None, dead: str = "") -> bool:
    """Whether ``new`` may stand where ``old`` stands: never an older token over a newer one.

    Two answers of WeChat may arrive out of order; the earlier one then works on for minutes and is refused until it
    ends. What lives longer and came later wins. ``dead`` is the text of a token that is known to be
    refused: anything may replace it.
    """
    if old is None or old.text == dead or not old.good(new.fetched_at):
        return True
    return new.fetched_at >= old.fetched_at and (new.text == old.text or new.expires_at >= old.expires_at)


def load(db: Database, account: str, lock: str = "") -> Token | None:
    row = db.one(f"SELECT token, expires_at, fetched_at FROM fanout_token WHERE account = %s{lock}", account)
    return Token(*row) if row else None


def load_all(db: Database, accounts: Sequence[str]) -> dict[str, Token]:
    """Of those of them that have one."""
    if not accounts:
        return {}
    rows = db.rows(
        f"SELECT account, token, expires_at, fetched_at FROM fanout_token WHERE account IN ({holes(len(accounts))})",
        *accounts,
    )
    return {name: Token(*rest) for name, *rest in rows}


def save(db: Database, account: str, token: Token, dead: str = "") -> bool:
    """Replace the account's token if that is allowed, see ``replaces``; says whether it was. Inside a transaction."""
    had = load(db, account, db.LOCK)
    if not replaces(token, had, dead):
        return False
    if had is None:  # of two that find none, one's INSERT fails, and its transaction is repeated
        sql = "INSERT INTO fanout_token (token, expires_at, fetched_at, account) VALUES (%s, %s, %s, %s)"
    else:
        sql = "UPDATE fanout_token SET token = %s, expires_at = %s, fetched_at = %s WHERE account = %s"
    db.execute(sql, token.text, token.expires_at, token.fetched_at, account)
    return True


def forget(db: Database, account: str) -> None:
    """The account has no token; inside a transaction."""
    db.execute("DELETE FROM fanout_token WHERE account = %s", account)
