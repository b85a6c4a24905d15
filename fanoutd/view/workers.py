"""The daemon's processes in a table that fits its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from fanoutd.view.columns import Column, lines, width_of
from fanoutd.view.progress import ACCENT, word

_STYLES = {"busy": ACCENT, "booting": "yellow", "draining": "yellow", "dead": "red", "backoff": "red"}

#: Who heard nothing of itself for so long is worth a look, in seconds; its beat is one a second.
_SILENT = 10.0

#: Columns that are left out rather than an id cut.
_LUXURY = 6

#: Characters of a campaign's id that tell it from others: its beginning is the time.
_TAIL = 8


def table(workers: Sequence[dict[str, Any]], width: int) -> list[Text]:
    """The heads and a line for each row of the status; columns that do not fit are left out."""
    found = _columns(workers, word)
    if width_of([each for each in found if each.leave < _LUXURY]) > width:
        found = _columns(workers, _short)
    return lines(found, width)


def in_trouble(worker: dict[str, Any]) -> bool:
    return worker["state"] in ("dead", "backoff")


def _columns(workers: Sequence[dict[str, Any]], name: Callable[[Any], str]) -> list[Column]:
    def plain(key: str, form: str = "{}") -> list[Text]:
        return [Text(word(each[key], form)) for each in workers]

    return [
        Column("process", [Text(_name(each)) for each in workers]),
        Column("pid", plain("pid"), right=True, leave=2),
        Column("state", [Text(word(each["state"]), _STYLES.get(each["state"], "")) for each in workers]),
        Column("sent", plain("sent", "{:,}"), right=True, leave=1),
        Column("failed", plain("failed", "{:,}"), right=True, leave=3),
        Column("rate", plain("rate", "{:.0f}/s"), right=True),
        Column("mem", [Text(_memory(each["rss_bytes"])) for each in workers], right=True, leave=4),
        Column("cpu", plain("cpu_percent", "{:.0f}%"), right=True, leave=6),
        Column("restarts", [Text(word(each["restarts"]), "yellow" if each["restarts"] else "") for each in workers],
               right=True, leave=5),
        Column("beat", [_beat(each["heartbeat_age"]) for each in workers], right=True, leave=7),
        Column("campaign", [Text(name(each["campaign"])) for each in workers]),
    ]  # fmt: skip


def _name(worker: dict[str, Any]) -> str:
    """As in the log: ``dispatcher``, ``worker 3``, ``mold``."""
    role, slot = word(worker["role"]), worker["slot"]
    return role if slot == 0 else f"{role} {word(slot)}"


def _short(campaign: str | None) -> str:
    return word(campaign) if campaign is None or len(campaign) <= _TAIL else f"…{campaign[-_TAIL:]}"


def _memory(rss: int | None) -> str:
    """``48M``"""
    return word(rss and rss / 2**20, "{:.0f}M")


def _beat(age: float | None) -> Text:
    return Text(word(age, "{:.0f}s"), "" if age is None or age < _SILENT else "red")
