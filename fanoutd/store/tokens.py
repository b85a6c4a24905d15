"""Access tokens as all processes see them: token and expiry in one row, changed in one step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from fanoutd.store.database import Database


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; ``expires_at`` and ``fetched_at`` in milliseconds since 1970."""

    text: str = field(repr=False)
    expires_at: int
    fetched_at: int

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.text)


def fingerprint(token: str) -> str:
    """A short name for a token that may travel and be logged; the token cannot be had from it."""
    return hashlib.blake2b(token.encode(), digest_size=6).hexdigest()


def load(db: Database, account: str) -> Token | None:
    row = db.one("SELECT token, expires_at, fetched_at FROM fanout_token WHERE account = %s", account)
    return Token(*row) if row else None


def save(db: Database, account: str, token: Token) -> None:
    """Replace the account's token; inside a transaction."""
    db.execute("DELETE FROM fanout_token WHERE account = %s", account)
    db.execute(
        "INSERT INTO fanout_token (account, token, expires_at, fetched_at) VALUES (%s, %s, %s, %s)",
        account, token.text, token.expires_at, token.fetched_at,
    )  # fmt: skip
