"""A campaign on its way: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanoutd.client import FINAL
from fanoutd.outcome import describe
from fanoutd.plain import plain
from fanoutd.times import duration

#: Plain output: a line at the latest after so many seconds, or so much of the whole.
_EVERY_SECONDS = 10.0
_EVERY_SHARE = 0.05

ACCENT = "green"

#: Columns where nobody looks: a program that reads what is piped to it wants no line folded.
UNFOLDED = 10_000

WORDS = {
    "sent_custom": "sent as customer-service message",
    "sent_template": "sent as template message",
    "sent_subscribe": "sent as subscription notification",
    "failed": "failed",
    "skipped": "skipped",
    "unknown": "unknown: handed over, no answer seen",
    "pending": "waiting",
}


def console() -> Console:
    """For stdout."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=UNFOLDED)


def ended(campaign: dict[str, Any]) -> int:
    """People who are through, whatever came of it."""
    total: int = campaign["total"] or 0
    pending: int = campaign["counts"]["pending"] or 0
    return total - pending


def reached(campaign: dict[str, Any]) -> int:
    return sum(count or 0 for state, count in campaign["counts"].items() if state.startswith("sent_"))


def word(value: Any, form: str = "{}") -> str:
    """As people see it; ``-`` for what is not known."""
    return "-" if value is None else form.format(value)


def line(campaign: dict[str, Any]) -> str:
    """The campaign in one line."""
    counts = ", ".join(f"{state} {count:,}" for state, count in campaign["counts"].items() if count)
    words = f"{word(campaign['id'])} {word(campaign['state'])}: {_share(campaign)}"
    if counts:
        words += f" ({counts})"
    if campaign["rate"]:
        words += f", {campaign['rate']:,.0f}/s"
    if campaign["eta_seconds"]:
        words += f", {duration(campaign['eta_seconds'])} left"
    return words + (f"; {plain(campaign['reason'])}" if campaign["reason"] else "")


def _share(campaign: dict[str, Any]) -> str:
    return f"{ended(campaign):,} of {word(campaign['total'], '{:,}')}"


def outcomes(campaign: dict[str, Any]) -> Table:
    """People by outcome, and the refusals in words."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", min_width=8)
    table.add_column()
    for state, count in campaign["counts"].items():
        if count and state != "pending":
            style = "" if state.startswith("sent_") else "yellow"
            table.add_row(Text(f"{count:,}", style="bold"), Text(WORDS.get(state, state), style=style))
    for code, count in sorted((campaign["errors"] or {}).items(), key=lambda each: -each[1]):
        table.add_row(Text(f"{count:,}", style="dim"), Text(f"  {code} · {describe(code)}", style="dim"))
    return table


def picture(campaign: dict[str, Any], width: int) -> RenderableType:
    """The live view."""
    head = Text.assemble((word(campaign["id"]), "bold"), "  ", (word(campaign["state"]), ACCENT))
    figures = _share(campaign)
    if campaign["rate"]:
        figures += f"   {campaign['rate']:,.0f}/s"
    if campaign["eta_seconds"]:
        figures += f"   {duration(campaign['eta_seconds'])} left"
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(
            total=max(1, campaign["total"] or 0), completed=ended(campaign), width=max(10, min(44, width - 40)),
            complete_style=ACCENT, finished_style=ACCENT,
        ),
        figures,
    )  # fmt: skip
    parts: list[RenderableType] = [head, bar, outcomes(campaign)]
    if campaign["reason"]:
        parts.append(Text(plain(campaign["reason"]), style="yellow"))
    return Group(*parts)


def follow(objects: Iterator[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Show each object as it comes; the last one, which is the caller's to show. Stops at a paused campaign too."""
    if console.is_terminal:
        return _follow_live(objects, console)
    return _follow_plain(objects, console)


def _follow_live(objects: Iterator[dict[str, Any]], console: Console) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for last in objects:
            live.update(picture(last, console.width), refresh=True)
            if last["state"] == "paused":
                break
    return last


def _follow_plain(objects: Iterator[dict[str, Any]], console: Console) -> dict[str, Any]:
    last: dict[str, Any] = {}
    said_at, said, why = -_EVERY_SECONDS, -1, None
    for last in objects:
        if last["state"] in (*FINAL, "paused"):
            break
        step = max(1, round((last["total"] or 0) * _EVERY_SHARE))
        if time.monotonic() - said_at >= _EVERY_SECONDS or ended(last) >= said + step or last["reason"] != why:
            said_at, said, why = time.monotonic(), ended(last), last["reason"]
            # As it is: a reason may hold what would be markup, as "[daemon] …" does.
            console.print(line(last), highlight=False, markup=False, emoji=False, soft_wrap=True)
    return last
