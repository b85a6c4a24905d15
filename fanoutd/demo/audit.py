"""The API's own ledger against the daemon's word, person by person."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Audit:
    """What the comparison found; ``good`` when every follower is accounted for."""

    people: int
    accepted: int
    calls: int
    twice: tuple[str, ...]
    forgotten: tuple[str, ...]
    """Not in the campaign, or not in a final state."""
    untrue: tuple[str, ...]
    """Sent by the daemon's word and not in the ledger, or the other way round."""
    unknown: int

    @property
    def good(self) -> bool:
        return not (self.twice or self.forgotten or self.untrue or self.unknown)


def ledger(path: Path) -> Counter[str]:
    """How often the API accepted a message for each person. A line that is just being written counts next time, and
    ends it: its other half would look like a line."""
    with path.open(encoding="utf-8") as lines:
        whole = takewhile(lambda line: line.endswith("\n"), lines)
        return Counter(json.loads(line)["openid"] for line in whole)


def compare(audience: Iterable[str], rows: Iterable[Mapping[str, Any]], accepted: Counter[str]) -> Audit:
    """Hold all three against each other. ``rows`` as campaign.deliveries gives them."""
    states = {row["openid"]: row for row in rows}
    people = set(audience)
    return Audit(
        people=len(people),
        accepted=sum(accepted.values()),
        calls=sum(row["attempts"] for row in states.values()),
        twice=tuple(sorted(p for p, times in accepted.items() if times > 1)),
        forgotten=tuple(sorted(p for p in people if p not in states or states[p]["state"] == "pending")),
        untrue=tuple(
            sorted(
                p for p, row in states.items()
                if row["state"] != "unknown" and (row["state"] == "sent") != (accepted[p] > 0)
            )
        ) + tuple(sorted(accepted.keys() - states.keys())),
        unknown=sum(row["state"] == "unknown" for row in states.values()),
    )  # fmt: skip
