"""What the running campaigns of an account, or of all, wait for: said while it lasts, and taken back."""

from __future__ import annotations

from fanoutd.store.database import Database


def explain(db: Database, account: str, cause: str | None, reason: str | None) -> None:
    """Say of the account's running campaigns what they wait for; None: all is well again."""
    db.execute(
        "UPDATE fanout_campaign SET cause = %s, reason = %s "
        "WHERE account = %s AND state = 'running' AND COALESCE(reason, '') <> %s",
        cause, reason, account, reason or "",
    )  # fmt: skip


def well_again(db: Database, account: str, cause: str) -> None:
    """The account's running campaigns wait for this no more; what else they wait for stays."""
    db.execute(
        "UPDATE fanout_campaign SET cause = NULL, reason = NULL "
        "WHERE account = %s AND state = 'running' AND cause = %s",
        account, cause,
    )  # fmt: skip


def explain_all(db: Database, cause: str, reason: str | None) -> None:
    """The same for every running campaign, of a trouble of this machine; None: it is over."""
    if reason is None:
        db.execute(
            "UPDATE fanout_campaign SET cause = NULL, reason = NULL WHERE state = 'running' AND cause = %s", cause
        )
    else:
        db.execute(
            "UPDATE fanout_campaign SET cause = %s, reason = %s WHERE state = 'running' AND COALESCE(cause, '') <> %s",
            cause, reason, cause,
        )  # fmt: skip
