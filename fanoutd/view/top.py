"""The picture of ``fanoutd top``: a daemon, its campaigns and its processes in so many lines of so many columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from fanoutd.times import duration, parse_when
from fanoutd.view import status as words_of
from fanoutd.view import workers
from fanoutd.view.columns import Column, clean, fit, lines, width_of
from fanoutd.view.progress import ACCENT, UNFOLDED, ended, word

Status = dict[str, Any]
Campaign = dict[str, Any]

#: States whose campaigns are shown, in this order.
STATES = ("running", "planning", "paused")

#: Lines that a condition has at most.
_WORDS = 2

#: Widths of a bar, the most and the least.
_BAR = 30, 6


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a daemon last, whenever that was.

    ``status`` and ``campaigns`` are the daemon's own objects, and ``older`` is why the campaigns are those of an
    earlier look, None if they are of this one. ``more``: a state has more campaigns than were asked for. ``away`` is
    why the daemon cannot be asked now, None if it can be, and ``away_ms`` since when, by this machine's clock.
    """

    status: Status
    campaigns: Sequence[Campaign] = ()
    older: str | None = None
    more: bool = False
    away: str | None = None
    away_ms: int = 0


@dataclass(slots=True)
class Part:
    """Lines that belong together, ``least`` of which stay. ``rest`` has words for the rows from there on, which find
    no room. ``apart``: an empty line is before it where there is room."""

    head: list[Text] = field(default_factory=list)
    rows: list[list[Text]] = field(default_factory=list)
    least: int = 0
    rest: Callable[[int], str] | None = None
    apart: bool = False

    def __len__(self) -> int:
        return len(self.head) + sum(map(len, self.rows))

    def cut(self, height: int) -> list[Text]:
        """At most so many lines."""
        if len(self) <= height:
            return [*self.head, *(line for row in self.rows for line in row)]
        kept, at = list(self.head), 0
        while at < len(self.rows) and len(kept) + len(self.rows[at]) < height:
            kept += self.rows[at]
            at += 1
        rest = self.rest(at) if self.rest else f"{len(self.rows) - at:,} more"
        return [*kept, Text(f"… and {rest}", "dim")][:height]


def frame(seen: Seen, now_ms: int, width: int = UNFOLDED, height: int | None = None, live: bool = False) -> list[Text]:
    """The lines from the top; ``height`` None: all that there is. ``now_ms`` is this machine's clock.

    ``live``: on a terminal that is drawn anew, with bars and how to leave.
    """
    status = seen.status
    head = Part([*_head(seen, now_ms)])
    parts = [_troubles(status, width), Part([_totals(seen, width, live)]), *_facts(status, now_ms),
             _campaigns(seen, width, live), _crew(status["workers"], width)]  # fmt: skip
    if seen.away is not None:
        for line in (line for part in parts for row in (part.head, *part.rows) for line in row):
            line.stylize("dim")
    return [fit(line, width) for line in _stacked([head, *parts], height)]


def _stacked(parts: Sequence[Part], height: int | None) -> list[Text]:
    """One below the other. Where there is no room empty lines go first, then rows, those of the last part first."""
    parts = [each for each in parts if len(each)]
    sizes = [len(each) for each in parts]
    if height is None:
        height = sum(sizes) + len(parts)
    for leasts in [each.least or len(each) for each in parts], [1] * len(parts), [0] * len(parts):
        for at in reversed(range(len(parts))):
            sizes[at] -= max(0, min(sizes[at] - leasts[at], sum(sizes) - height))
    room = height - sum(sizes)
    made: list[Text] = []
    for part, size in zip(parts, sizes, strict=True):
        if part.apart and room > 0 and made:
            made.append(Text())
            room -= 1
        made += part.cut(size)
    return made


# ---- the daemon


def _head(seen: Seen, now_ms: int) -> Iterator[Text]:
    status = seen.status
    promise = word(status["promise"])
    exact = promise if promise in ("exact", "-") else "not exact"
    up = None if status["started_at"] is None else max(0, now_ms - parse_when(status["started_at"])) / 1000
    here = words_of.state(status).append(f"  up {'-' if up is None else duration(up)}", "none")
    yield Text.assemble(
        ("fanoutd ", "bold"), word(status["version"]), "  ", here if seen.away is None else ("away", "bold red"),
        f"  generation {word(status['generation'])}  ",
        (f"promise {exact}", "" if exact == promise else "yellow"), f"  node {word(status['node'])}",
    )  # fmt: skip
    if seen.away is not None:
        past = duration(max(0, now_ms - seen.away_ms) / 1000)
        yield Text(f"not reachable since {words_of.clock(seen.away_ms)} ({past}): {clean(seen.away)}", "bold red")


def _troubles(status: Status, width: int) -> Part:
    """What is broken, then what was refused, then what is not kept."""
    found = [*words_of.conditions(status), *words_of.refusals(status)]
    if status["promise"] not in (None, "exact"):
        found.append(Text(f"promise: {clean(status['promise'])}", "yellow"))
    ruler = Console(width=width)
    rows = [list(line.wrap(ruler, width))[:_WORDS] for line in found]
    for row, line in zip(rows, found, strict=True):
        if sum(len(each) for each in row) + len(row) < len(line):
            row[-1].append(" …")
    return Part([], rows, least=min(4, sum(map(len, rows))))


def _totals(seen: Seen, width: int, live: bool) -> Text:
    rows = [each for each in seen.status["workers"] if each["role"] == "worker"]
    rate, sent, failed = (sum(each[key] or 0 for each in rows) for key in ("rate", "sent", "failed"))
    waiting = sum(each["counts"]["pending"] or 0 for each in seen.campaigns if each["state"] == "running")
    line = Text.assemble(
        (f"{rate:,.0f}/s now", "bold"), f"   {waiting:,}{'+' if seen.more else ''} people waiting   ",
        f"{sent:,} sent   ", (f"{failed:,} failed", "yellow" if failed else ""), " by these workers",
    )  # fmt: skip
    leave = "q leaves"
    if live and (room := width - line.cell_len - len(leave)) > 1:
        line.append(" " * room + leave, "dim")
    return line


def _facts(status: Status, now_ms: int) -> Iterator[Part]:
    """Accounts, and the rest."""
    found = [*words_of.facts(status), ("jobs", words_of.jobs_line(status["jobs"], now_ms))]
    lines = [(name, [Text.assemble((f"{name:<9}", "dim"), words)]) for name, words in found]
    accounts = [line for name, line in lines if name in ("account", "quota")]
    nodes = [line for name, line in lines if name == "node"]
    others = [line for name, line in lines if name not in ("account", "quota", "node")]
    yield Part([], accounts, least=min(2, len(accounts)), apart=True)
    yield Part([], others + nodes, least=min(len(others) + 1, len(others + nodes)), apart=not accounts)


# ---- campaigns


def _campaigns(seen: Seen, width: int, live: bool) -> Part:
    older = f"  as they were: {clean(seen.older)}" if seen.older else ""
    found = sorted(seen.campaigns, key=_rank)
    if not found:
        return Part([Text(f"campaigns{older}" if older else "no campaign runs, none is paused", "dim")], apart=True)
    head, *rows = lines(_columns(found, width, live), width)
    if older:
        head = Text(f"campaigns{older}", "yellow")
    groups = [[row, *_below(each)] for row, each in zip(rows, found, strict=True)]

    def rest(shown: int) -> str:
        return f"{_counted(found[shown:])}{', and others' if seen.more else ''}"

    return Part([head], groups, least=min(4, 1 + sum(map(len, groups))), rest=rest, apart=True)


def _rank(campaign: Campaign) -> tuple[int, bool]:
    """What is being sent, then what waits, then what was stopped."""
    state = campaign["state"]
    return STATES.index(state) if state in STATES else len(STATES), not campaign["rate"]


def _below(campaign: Campaign) -> Iterator[Text]:
    """Whose it is and what it waits for."""
    reference, reason = (clean(campaign[key] or "") for key in ("reference", "reason"))
    if reference or reason:
        between = "; " if reference and reason else ""
        yield Text.assemble("  ", (reference + between, "dim"), (reason, "yellow"))


def _columns(campaigns: Sequence[Campaign], width: int, live: bool) -> list[Column]:
    def texts(of: Callable[[Campaign], str]) -> list[Text]:
        return [Text(of(each)) for each in campaigns]

    def left(campaign: Campaign) -> str:
        return duration(campaign["eta_seconds"]) if campaign["eta_seconds"] else "-"

    found = [
        Column("campaign", texts(lambda each: word(each["id"]))),
        Column("state", [Text(word(each["state"]), ACCENT if each["state"] == "running" else "yellow")
                         for each in campaigns]),
        Column("", texts(_percent), right=True),
        Column("through", texts(lambda each: f"{ended(each):,} of {word(each['total'], '{:,}')}"), right=True, leave=1),
        Column("rate", texts(lambda each: word(each["rate"], "{:,.0f}/s")), right=True, leave=2),
        Column("left", texts(left), right=True, leave=3),
    ]  # fmt: skip
    most, least = _BAR
    room = min(most, width - width_of(found, 2) - 2)
    if live and room >= least:
        found.insert(2, Column("", [_bar(each, room) for each in campaigns]))
    return found


def _share(campaign: Campaign) -> float:
    return min(1.0, ended(campaign) / campaign["total"]) if campaign["total"] else 0.0


def _percent(campaign: Campaign) -> str:
    """All of it is 100 %, and nothing less."""
    return f"{int(_share(campaign) * 100)} %" if campaign["total"] else "-"


def _bar(campaign: Campaign, width: int) -> Text:
    full = int(_share(campaign) * width)
    return Text.assemble(("━" * full, ACCENT), ("─" * (width - full), "dim"))


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    """``7 more: 2 running, 5 paused``"""
    states = [word(each["state"]) for each in rows]
    return f"{len(rows):,} more: " + ", ".join(f"{states.count(each):,} {each}" for each in dict.fromkeys(states))


# ---- processes


def _crew(found: Sequence[dict[str, Any]], width: int) -> Part:
    """Those first that are in trouble, if not all can be seen."""
    found = sorted(found, key=lambda each: not workers.in_trouble(each))
    if not found:
        return Part([Text("no processes", "dim")], apart=True)
    head, *rows = workers.table(found, width)
    return Part([head], [[row] for row in rows], least=min(5, 1 + len(rows)),
                rest=lambda shown: _counted(found[shown:]), apart=True)  # fmt: skip
