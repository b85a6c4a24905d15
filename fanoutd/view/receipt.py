"""A campaign as a receipt: sums that add up, why people failed and what to do about it, and who did what to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.text import Text

from fanoutd.client import FINAL
from fanoutd.errcodes import describe, meaning
from fanoutd.plain import plain
from fanoutd.times import duration, iso
from fanoutd.view.progress import ACCENT, WORDS, console, ended, word

Line = tuple[str, str]
"""A line and its style."""

#: Errcodes that are told one by one.
_TOP = 8

#: What a history says when a node died with people under way: see dispatcher/recovery.
_LEFT_BY = re.compile(r"from node (\S+?); unknown by its death: ")


def lines(campaign: dict[str, Any], events: list[dict[str, Any]], zone: str | None, now_ms: int) -> Iterator[Line]:
    """Times are in the time zone ``zone``, that of the account, or in this machine's for None."""
    yield f"{word(campaign['id'])}  {word(campaign['state'])}", f"bold {ACCENT}"
    yield f"  {_about(campaign)}", "dim"
    if campaign["reason"]:
        yield f"  {plain(campaign['reason'])}", "yellow"
    yield "", ""
    yield from ((f"  {name:<9} {words}", "") for name, words in _times(campaign, zone, now_ms))
    yield "", ""
    yield from _sums(campaign)
    yield from _errors(campaign)
    if events:
        yield "", ""
        yield "  what was done to it", "dim"
        yield from ((f"  {_event(each, zone)}", "") for each in events)


def print_to_stdout(found: Iterator[Line]) -> None:
    screen = console()
    for text, style in found:
        screen.print(Text(text, style=style), soft_wrap=True)


def _about(campaign: dict[str, Any]) -> str:
    given = [("message", "message"), ("account", "account"), ("audience", "audience"), ("reference", "reference"),
             ("key", "key")]  # fmt: skip
    return " · ".join(f"{name} {plain(campaign[field])}" for name, field in given if campaign[field] is not None)


def _times(campaign: dict[str, Any], zone: str | None, now_ms: int) -> Iterator[tuple[str, str]]:
    yield "submitted", local(campaign["created_at"], zone)
    if campaign["send_at"]:
        yield "due", local(campaign["send_at"], zone)
    if not campaign["started_at"]:
        return
    yield "started", local(campaign["started_at"], zone)
    until = campaign["finished_at"] or (iso(now_ms) if campaign["state"] not in FINAL else None)
    if until is None:
        return
    span = (datetime.fromisoformat(until) - datetime.fromisoformat(campaign["started_at"])).total_seconds()
    pace = f", {ended(campaign) / span:,.1f} people a second" if span > 0 and ended(campaign) else ""
    if campaign["finished_at"]:
        yield "finished", f"{local(until, zone)}, after {duration(max(0.0, span))}{pace}"
    else:
        yield "until now", f"{duration(max(0.0, span))}{pace}"
        if campaign["rate"]:
            left = f", {duration(campaign['eta_seconds'])} left" if campaign["eta_seconds"] else ""
            yield "now", f"{campaign['rate']:,.1f} people a second{left}"


def local(moment: str | None, zone: str | None) -> str:
    """``2026-01-02 15:04:05 CST``, with the offset where the zone has no name."""
    if moment is None:
        return "-"
    return f"{datetime.fromisoformat(moment).astimezone(ZoneInfo(zone) if zone else None):%Y-%m-%d %H:%M:%S %Z}"


def _sums(campaign: dict[str, Any]) -> Iterator[Line]:
    """Each state with its share, and below it the sum."""
    counts = {state: count for state, count in campaign["counts"].items() if count}
    total = campaign["total"] or 0
    width = max(8, len(f"{total:,}"))
    for state, count in sorted(counts.items(), key=lambda each: _place(each[0])):
        style = "" if state.startswith("sent_") else "dim" if state == "pending" else "yellow"
        yield f"  {count:>{width},}  {_share(count, total):>8}  {WORDS.get(state, state)}", style
    yield f"  {'─' * width}", "dim"
    yield f"  {total:>{width},}  {'':>8}  people in all", "bold"


def _place(state: str) -> int:
    return list(WORDS).index(state) if state in WORDS else -1


def _share(count: int, total: int) -> str:
    """In percent; what is there is never 0.0, and what lacks something never 100.0."""
    share = 100 * count / total if total else 0.0
    if count < total and share > 99.95:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def _errors(campaign: dict[str, Any]) -> Iterator[Line]:
    errors = sorted((campaign["errors"] or {}).items(), key=lambda each: (-each[1], each[0]))
    failed = campaign["counts"].get("failed") or 0
    if not failed:
        return
    yield "", ""
    yield "  why they failed", "dim"
    for code, count in errors[:_TOP]:
        yield f"  {count:>8,}  {code} · {describe(code)}", ""
        if remedy := meaning(code).remedy.replace(" ID ", f" {word(campaign['id'])} "):
            yield f"            → {remedy}", "dim"
    if rest := sum(count for _, count in errors[_TOP:]):
        yield f"  {rest:>8,}  {len(errors) - _TOP} other errcodes", ""
    if (without := failed - sum(count for _, count in errors)) > 0:
        yield f"  {without:>8,}  no errcode: by an operator's word or a receipt", ""


def _event(event: dict[str, Any], zone: str | None) -> str:
    words = f"{local(event['at'], zone)}  {event['action']}"
    if event["uid"] is not None:
        words += f" by {event['user'] or '?'} (uid {event['uid']}{_pid(event['pid'])})"
    if event["node"]:
        words += f" on {event['node']}"
    return words + (f": {plain(event['detail'])}" if event["detail"] else "")


def _pid(pid: int | None) -> str:
    return "" if pid is None else f", pid {pid}"


def next_steps(campaign: dict[str, Any], events: list[dict[str, Any]], living: set[str] | None) -> Iterator[str]:
    """What can be done now, a line each. ``living``: the nodes that were heard of lately; None: not known."""
    id, state, counts = word(campaign["id"]), campaign["state"], campaign["counts"]
    if counts.get("unknown"):
        gone = [node for node in _left_by(events) if living is not None and node not in living]
        if gone:
            yield f"Node {', '.join(gone)} died and left some unknown: when it is back, its journal settles them"
        yield (
            f"Who is unknown: `fanoutd campaign export {id} --state unknown`; then `fanoutd campaign retry {id} "
            f"--unknown`, which may reach them twice, or `fanoutd campaign resolve {id} --sent` or `--failed`"
        )
    if counts.get("failed"):
        again = f"; once what was wrong is mended: `fanoutd campaign retry {id} --failed`"
        yield f"Who failed: `fanoutd campaign export {id} --state failed`{again if state in ('done', 'paused') else ''}"
    if state == "paused" and "campaign repair" not in (campaign["reason"] or ""):
        yield f"To let it go on: `fanoutd campaign resume {id}`; to end it: `fanoutd campaign cancel {id}`"
    if state == "cancelled" and counts.get("pending"):
        yield f"Who was not tried: `fanoutd campaign export {id} --state pending`"


def _left_by(events: list[dict[str, Any]]) -> list[str]:
    found = (_LEFT_BY.match(event["detail"] or "") for event in events if event["action"] == "taken over")
    return sorted({match[1] for match in found if match})
