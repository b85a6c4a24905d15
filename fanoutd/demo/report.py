"""The demo's last screen."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fanoutd.demo.audit import Audit
from fanoutd.outcome import describe
from fanoutd.times import duration
from fanoutd.view.progress import ACCENT, reached


def seconds_taken(campaign: dict[str, Any]) -> float:
    """From the submission's acceptance to the last outcome."""
    begin, end = (datetime.fromisoformat(campaign[key]) for key in ("created_at", "finished_at"))
    return (end - begin).total_seconds()


def report(campaign: dict[str, Any], audit: Audit, latency: float, folder: str | None) -> RenderableType:
    """``latency`` of the API in seconds; ``folder`` when it is kept."""
    parts: list[RenderableType] = [
        Rule("what happened", style="dim", align="left"),
        _people(campaign),
        Rule("how fast", style="dim", align="left"),
        _speed(campaign, audit, latency),
        Rule("is it true? the API's own ledger, person by person", style="dim", align="left"),
        _truth(audit),
        Rule("what now", style="dim", align="left"),
        _next(folder),
    ]
    return Group(*parts)


def show(console: Console, *what: Any) -> None:
    console.print(report(*what))


def _table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", min_width=9)
    table.add_column()
    return table


def _people(campaign: dict[str, Any]) -> RenderableType:
    counts, table = campaign["counts"], _table()
    everybody = Text(f"of {campaign['total']:,} followers reached", style="bold")
    table.add_row(Text(f"{reached(campaign):,}", style=f"bold {ACCENT}"), everybody)
    table.add_row(f"{counts['sent_custom']:,}", "by customer-service message (客服消息)")
    table.add_row(f"{counts['sent_template']:,}", "by template message (模板消息), after WeChat refused the first")
    table.add_row("", "")
    table.add_row(Text(f"{counts['failed']:,}", style="bold"), Text("not reached", style="bold"))
    for code, count in sorted(campaign["errors"].items(), key=lambda each: -each[1]):
        table.add_row(f"{count:,}", f"{describe(code)} ({code})")
    if counts["unknown"]:
        table.add_row(f"{counts['unknown']:,}", "unknown: handed to WeChat, its answer never seen")
    return Padding(table, (0, 0, 1, 0))


def _speed(campaign: dict[str, Any], audit: Audit, latency: float) -> RenderableType:
    seconds = max(0.001, seconds_taken(campaign))
    alone = audit.calls * latency
    table = _table()
    table.add_row(
        Text(duration(seconds), style=f"bold {ACCENT}"),
        f"for {audit.calls:,} calls at {latency * 1000:.0f} ms each: {audit.calls / seconds:,.0f} calls a second",
    )
    table.add_row(duration(alone), f"one after the other, as a simple loop sends: {alone / seconds:,.0f} times as long")
    return Padding(table, (0, 0, 1, 0))


def _truth(audit: Audit) -> RenderableType:
    table = _table()
    table.add_row(f"{audit.people:,}", "followers in the table")
    table.add_row(f"{audit.accepted:,}", "messages accepted by the API")
    for people, words in (
        (audit.twice, "were sent to twice"),
        (audit.forgotten, "were forgotten"),
        (audit.untrue, "stand in the daemon's book otherwise than in the API's"),
    ):
        style = f"bold {ACCENT}" if not people else "bold red"
        table.add_row(Text(f"{len(people):,}", style=style), words)
    if audit.unknown:
        table.add_row(Text(f"{audit.unknown:,}", style="bold red"), "have an outcome that nobody saw")
    return Padding(table, (0, 0, 1, 0))


def _program() -> str:
    """As it can be called from here: in a checkout it is not where the shell looks."""
    own = Path(sys.argv[0])
    if own.name != "fanoutd":
        return "python3 -m fanoutd"
    found = shutil.which("fanoutd")
    return "fanoutd" if found and Path(found).samefile(own) else os.path.relpath(own)


def _next(folder: str | None) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    program = _program()
    table.add_row(f"{program} init", Text("write a configuration; README.md says more", style="dim"))
    table.add_row(f"{program} serve", Text("run it", style="dim"))
    if folder:
        table.add_row(folder, Text("what this demo wrote: log, ledger, store, configuration", style="dim"))
    return Padding(table, (0, 0, 0, 2))
