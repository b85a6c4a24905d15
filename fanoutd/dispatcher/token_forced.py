"""Forced refreshes are counted in the store: WeChat counts them by the day, whoever restarts meanwhile."""

from __future__ import annotations

import json

from fanoutd.dispatcher.token_sources import Refused
from fanoutd.dispatcher.token_standing import FORCED_A_DAY, too_often
from fanoutd.store import Database, meta, tokens


def note(db: Database, account: str, now: int) -> None:
    """One more at ``now``, milliseconds since 1970. Raises Refused when WeChat would not do it."""
    name = f"token_forced_{tokens.fingerprint(account)}"
    with db.transaction():
        before = json.loads(meta.hold(db, name, "[]"))
        if words := too_often(before, now):
            raise Refused(words, fatal=True)
        meta.write(db, name, json.dumps([*before, now][-FORCED_A_DAY:]))
