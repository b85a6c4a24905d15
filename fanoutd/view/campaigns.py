"""Campaigns in a list: a table for people, a line each for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from fanoutd.plain import plain
from fanoutd.view.progress import reached, word

_HEADS = ("ID", "STATE", "AGE", "PEOPLE", "SENT", "FAIL", "SKIP", "UNKN", "LEFT")
_OTHERS = ("failed", "skipped", "unknown", "pending")
_TO_THE_LEFT = 2


def table(campaigns: Sequence[dict[str, Any]], width: int, now_ms: int) -> Iterator[str]:
    """At most ``width`` columns; the reason, if there is one, below its campaign, as far as it fits.

    PEOPLE is the sum of what stands behind it. The columns are as wide as what is in them.
    """
    rows = [_HEADS, *(_cells(each, now_ms) for each in campaigns)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, campaign in zip(rows, [None, *campaigns], strict=True):
        cells = [
            cell.ljust(size) if at < _TO_THE_LEFT else cell.rjust(size)
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        yield _cut(" ".join(cells), width)
        if campaign and campaign["reason"]:
            yield _cut(f"  {plain(campaign['reason'])}", width)


def _cells(campaign: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    counts = campaign["counts"]
    sums = campaign["total"], reached(campaign), *(counts[name] for name in _OTHERS)
    return (
        word(campaign["id"]), word(campaign["state"]), _age(campaign["created_at"], now_ms),
        *(word(each) for each in sums),
    )  # fmt: skip


def _age(created: str | None, now_ms: int) -> str:
    """``12s``, ``5m``, ``3h``, ``12d``."""
    if created is None:
        return "-"
    seconds = max(0, now_ms // 1000 - int(datetime.fromisoformat(created).timestamp()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def line(campaign: dict[str, Any]) -> str:
    """One campaign, whole, for whoever reads line by line."""
    counts = " ".join(f"{name}={count}" for name, count in campaign["counts"].items() if count)
    created = word(campaign["created_at"])[:19]
    head = f"{word(campaign['id']):<28} {word(campaign['state']):<9} {created:<19}"
    words = f"{head}  {word(campaign['message'])}  total={word(campaign['total'])} {counts}".rstrip()
    return words + (f"  {plain(campaign['reason'])}" if campaign["reason"] else "")
