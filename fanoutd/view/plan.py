"""What a submission would come to, for people: `fanoutd send --dry-run`."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from fanoutd.times import duration

_FITS = {
    True: ("yes", "green"),
    False: ("no: what is left over goes out when there is quota again", "yellow"),
    None: ("unless too many need the second channel", "yellow"),
}


def table(plan: dict[str, Any]) -> Table:
    """A line a fact."""
    found = Table.grid(padding=(0, 2))
    found.add_column(style="dim")
    found.add_column()
    for name, words, style in _rows(plan):
        found.add_row(name, Text(words, style=style))
    return found


def _rows(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = [("people", _people(plan), "bold"), ("calls", _range(f"{plan['calls']:,}", f"{plan['calls_most']:,}"), "")]
    took = _range(duration(plan["seconds"]), duration(plan["seconds_most"]))
    rows.append(("time", f"{took}, at {plan['rate']:g} calls a second", ""))
    for channel, left in plan["quota_left"].items():
        rows.append((f"{channel} today", "no limit known" if left is None else f"{left:,} calls left", ""))
    rows.append(("fits today", *_FITS[plan["fits_today"]]))
    crossed = plan["quiet_hours_crossed"]
    rows.append(("quiet hours", "crossed: nothing is sent in them" if crossed else "not touched", "yellow" * crossed))
    if plan["duplicate"]:
        rows.append(("key", "known already: nothing would be sent", "yellow"))
    return rows


def _people(plan: dict[str, Any]) -> str:
    more = [f"{plan[name]:,} {words}" for name, words in (
        ("duplicates", "named twice"), ("refused", "no openids"), ("skipped", "not to be sent to"),
    ) if plan[name]]  # fmt: skip
    return f"{plan['total']:,}" + (f" ({', '.join(more)})" if more else "")


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
