"""How accounts stand with their tokens, as all nodes of a store know it.

Each node sees refusals of its own workers. What they mean together (who was asked when, what was refused already) is in
the store, so that a token is fetched as often for five nodes as for one. Times there are the database's.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from fanoutd.dispatcher.token_standing import Standing
from fanoutd.store import Database, meta, tokens
from fanoutd.times import wall_ms

#: Times of a standing: CLOCK_MONOTONIC here, milliseconds since 1970 there.
_TIMES = ("next_at", "replaced_at", "probed_at", "fetched_at")


def load(db: Database, account: str) -> Standing:
    """As the last node left it."""
    return _read(meta.read(db, _name(account)))


def save(db: Database, account: str, standing: Standing) -> None:
    """For the other nodes; inside a transaction, by whoever has the account's lease."""
    document = asdict(standing)
    ahead = wall_ms() - time.monotonic() * 1000
    document.update({name: round(document[name] * 1000 + ahead) for name in _TIMES})
    meta.write(db, _name(account), json.dumps(document, ensure_ascii=False))


def _read(text: str | None) -> Standing:
    if text is None:
        return Standing()
    document = json.loads(text)
    ahead = wall_ms() - time.monotonic() * 1000
    known = {name: value for name, value in document.items() if name in Standing.__dataclass_fields__}
    return Standing(**known | {name: (document[name] - ahead) / 1000 for name in _TIMES})


def _name(account: str) -> str:
    return f"token_standing_{tokens.fingerprint(account)}"
