"""The five sums: what the API accepted, held against what the daemon says, person by person.

It reads two things only, the sandbox's ledger and the campaign with its export, and shares no code with
the daemon: what both had wrong in the same way would be seen by nobody.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: People who are named of each violation.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Sums:
    """What was found. ``unknown_accepted``: those of the unknown whom the API did accept a message for."""

    people: int
    sent: int
    failed: int
    unknown: int
    unknown_accepted: int
    violations: tuple[str, ...]


def accepted(ledger: Path) -> dict[str, list[dict[str, Any]]]:
    """The API's lines by person: one for each accepted message, a repeated client_msg_id none."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    if ledger.exists():
        with ledger.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                found[row["openid"]].append(row)
    return dict(found)


def check(
    audience: Sequence[str], ledger: Path, campaign: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], allowed: int
) -> Sums:
    """Of a campaign that is over. ``rows`` is its whole export, ``allowed`` how many may be unknown."""
    book = accepted(ledger)
    states = {row["openid"]: row["state"] for row in rows}
    by_state = Counter(row["state"] for row in rows)
    violations = [
        *_everybody_once(audience, rows, campaign),
        *_words("accepted twice", (p for p, lines in book.items() if len(lines) > 1)),
        *_words("accepted and not in the campaign", (p for p in book if p not in states)),
        *_words("sent and not as the ledger has it", (r["openid"] for r in rows if not _true(r, book))),
        *_words("accepted and neither sent nor unknown",
                (p for p, state in states.items() if state not in ("sent", "unknown") and p in book)),
        *_words("still pending", (p for p, state in states.items() if state == "pending")),
    ]  # fmt: skip
    if by_state["unknown"] > allowed:
        violations.append(f"{by_state['unknown']} unknown, where at most {allowed} can be explained")
    return Sums(
        len(rows), by_state["sent"], by_state["failed"], by_state["unknown"],
        sum(state == "unknown" and p in book for p, state in states.items()), tuple(violations),
    )  # fmt: skip


def _everybody_once(
    audience: Sequence[str], rows: Sequence[Mapping[str, Any]], campaign: Mapping[str, Any]
) -> list[str]:
    times = Counter(row["openid"] for row in rows)
    found = [
        *_words("forgotten", (p for p in audience if p not in times)),
        *_words("in the campaign more than once", (p for p, n in times.items() if n > 1)),
        *_words("in the campaign and not in the audience", times.keys() - set(audience)),
    ]
    counted = Counter(f"sent_{row['channel']}" if row["state"] == "sent" else row["state"] for row in rows)
    told = {name: count for name, count in campaign["counts"].items() if count}
    if told != dict(counted):
        found.append(f"the campaign counts {told}, its export {dict(counted)}")
    if campaign["total"] != len(audience) or sum(told.values()) != len(audience):
        found.append(f"total {campaign['total']}, counts {sum(told.values())}, audience {len(audience)}")
    return found


def _true(row: Mapping[str, Any], book: Mapping[str, list[dict[str, Any]]]) -> bool:
    """Whether a delivery that counts as sent was accepted on that channel, under that msgid."""
    if row["state"] != "sent":
        return True
    lines = book.get(row["openid"], [])
    return any(line["channel"] == row["channel"] and _text(line.get("msgid")) == row["msgid"] for line in lines)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _words(what: str, people: Iterable[str]) -> list[str]:
    found = sorted(people)
    if not found:
        return []
    more = " …" if len(found) > _NAMED else ""
    return [f"{len(found)} {what}: {', '.join(found[:_NAMED])}{more}"]
