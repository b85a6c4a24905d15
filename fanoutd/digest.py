"""The daily mail about everything, as text and HTML: from figures to words, nothing is looked up here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from fanoutd.errcodes import describe
from fanoutd.times import sql_now
from fanoutd.view.quota import calls_today

#: Of anything that there may be many of, so many are told one by one.
MOST = 10

_SENT = "sent_"
_WORDS = {"failed": "failed", "skipped": "skipped", "unknown": "unknown", "pending": "never tried"}
_STATES = ("done", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Campaign:
    """One of which there is something to say. ``counts`` as in the campaign object; ``at``: when it ended, or is due,
    in milliseconds since 1970."""

    id: str
    message: str
    reference: str | None
    state: str
    reason: str | None
    counts: Mapping[str, int]
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """Times in milliseconds since 1970, shown in ``timezone``. ``ended``: between ``since`` and ``until``; all else is
    as it is now. ``overdue``: campaigns kept beyond retention for their unknown deliveries. ``quotas``: by account
    {channel: {limit, used, left}}, or None. ``conditions``: what is broken, a line each. ``restarts`` of workers, since
    the daemon's start. Of what is not known: None, or nothing."""

    node: str
    since: int
    until: int
    timezone: str
    ended: Sequence[Campaign] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    running: Sequence[Campaign] = ()
    paused: Sequence[Campaign] = ()
    unknown: Sequence[Campaign] = ()
    overdue: int = 0
    coming: Sequence[tuple[int, str]] = ()
    quotas: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    opted_out: Mapping[str, int] = field(default_factory=dict)
    conditions: Sequence[str] = ()
    nodes: Sequence[str] = ()
    workers: int | None = None
    restarts: int | None = None
    spool: int | None = None
    disk: tuple[int, int] | None = None
    store: tuple[int, int] | None = None
    """(bytes, of them free for what comes)"""


def subject(d: Digest) -> str:
    """``digest: 3 campaigns ended, 1,234 sent, 2 failed, …``."""
    total = _total(d.ended)
    sent = sum(count for state, count in total.items() if state.startswith(_SENT))
    parts = [
        f"{_number(len(d.ended), 'campaign')} ended" if d.ended else "no campaign ended",
        f"{sent:,} sent" if sent else "", f"{total['failed']:,} failed" if total["failed"] else "",
        f"{_unknown(d.unknown):,} unknown" if d.unknown else "", f"{len(d.paused)} paused" if d.paused else "",
        f"{_number(len(d.conditions), 'condition')} broken" if d.conditions else "",
    ]  # fmt: skip
    return f"digest: {', '.join(part for part in parts if part)}"


def text(d: Digest) -> str:
    """The plain part of the mail."""
    blocks = [_head(d)]
    for title, lines in _sections(d):
        blocks.append("\n".join([title, "-" * len(title), *(f"{label}: {words}" if label else words
                                                            for label, words in lines)]))  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def html(d: Digest) -> str:
    """The same, for readers that show HTML; every value is escaped."""
    parts = [f"<p>{escape(_head(d))}</p>"]
    for title, lines in _sections(d):
        rows = "".join(
            f'<tr><td style="padding:2px 16px 2px 0;vertical-align:top;white-space:nowrap">{escape(label)}</td>'
            f'<td style="padding:2px 0">{escape(words)}</td></tr>' if label else
            f'<tr><td colspan="2" style="padding:2px 0">{escape(words)}</td></tr>'
            for label, words in lines
        )  # fmt: skip
        parts.append(
            f'<h3 style="margin:20px 0 6px">{escape(title)}</h3><table style="border-collapse:collapse">{rows}</table>'
        )
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html><html><head><meta charset="utf-8"></head>'
        f'<body style="font-family:sans-serif;font-size:14px">\n{body}\n</body></html>\n'
    )


Lines = list[tuple[str, str]]
"""(label, words); an empty label for words alone."""


def _head(d: Digest) -> str:
    return f"From {_minute(d.since, d.timezone)} to {_minute(d.until, d.timezone)} ({d.timezone})."


def _sections(d: Digest) -> Iterator[tuple[str, Lines]]:
    if d.conditions:
        yield "Broken now", [("", words) for words in d.conditions]
    if d.unknown or d.overdue:
        yield "Waits for your decision", _decisions(d)
    if d.paused:
        yield "Paused", _each(d.paused, lambda c: c.reason or "by an operator")
    yield "Ended", _ended(d)
    if d.errors:
        most = sorted(d.errors.items(), key=lambda each: (-each[1], each[0]))
        yield "Why deliveries failed", [
            (f"{count:,}", f"{describe(code)} ({code})") for code, count in most[:MOST]
        ]  # fmt: skip
    if d.running:
        yield "Running", _each(d.running, _progress)
    if d.coming:
        yield "Comes next", [(_minute(at, d.timezone), words) for at, words in sorted(d.coming)[:MOST]]
    yield "Accounts", _accounts(d)
    yield "The daemon", _daemon(d)


def _decisions(d: Digest) -> Lines:
    def words(c: Campaign) -> str:
        age = f", {_days(d.until - c.at)} old" if c.at is not None else ""
        return f"{c.counts['unknown']:,} deliveries whose answer was never seen{age}"

    lines = _each(sorted(d.unknown, key=lambda c: c.at or 0), words) if d.unknown else []
    if d.overdue:
        lines.append(("", f"{_number(d.overdue, 'campaign')} older than retention: kept until these are decided."))
    lines.append(("", (
        "Were they sent? `fanoutd campaign resolve --sent ID` or `--failed ID` takes your word; "
        "`fanoutd campaign retry --unknown ID` sends again, and may reach somebody twice."
    )))  # fmt: skip
    return lines


def _ended(d: Digest) -> Lines:
    if not d.ended:
        return [("", "No campaign ended.")]
    states = Counter(c.state for c in d.ended)
    total = _total(d.ended)
    said = ", ".join(f"{states[state]} {state}" for state in _STATES if states[state])
    lines = [("Campaigns", said), ("Deliveries", _outcome(total))]
    return lines + _each(
        d.ended, lambda c: f"{c.state}: {_outcome(Counter(c.counts))}" + (f"; {c.reason}" if c.reason else "")
    )


def _accounts(d: Digest) -> Lines:
    lines = []
    for account, quota in d.quotas.items():
        out = d.opted_out.get(account, 0)
        lines.append((account, calls_today(quota) + (f"; {out:,} opted out" if out else "")))
    return lines


def _daemon(d: Digest) -> Lines:
    lines = [("Node", d.node if len(d.nodes) < 2 else f"{d.node}, of {', '.join(d.nodes)}")]
    if d.workers is not None:
        restarts = f", {_number(d.restarts, 'restart')} since the start" if d.restarts else ""
        lines.append(("Workers", f"{d.workers}{restarts}"))
    if d.spool:
        lines.append(("Spool", f"{_number(d.spool, 'submission')} waiting"))
    if d.disk is not None:
        free, whole = d.disk
        lines.append(("Disk", f"{_size(free)} free of {_size(whole)} ({free * 100 // max(1, whole)} %)"))
    if d.store is not None:
        size, free = d.store
        lines.append(("Store", _size(size) + (f", {_size(free)} of them free for new campaigns" if free else "")))
    return lines


def _each(found: Sequence[Campaign], words: Any) -> Lines:
    lines = [(c.id, f"{words(c)}{_about(c)}") for c in found[:MOST]]
    if len(found) > MOST:
        lines.append(("", f"and {len(found) - MOST:,} more"))
    return lines


def _about(c: Campaign) -> str:
    reference = f", {c.reference[:60]}" if c.reference else ""
    return f" ({c.message}{reference})"


def _progress(c: Campaign) -> str:
    total = sum(c.counts.values())
    share = f"{total - c.counts['pending']:,} of {total:,}"
    return f"{share}; {c.reason}" if c.reason else share


def _total(found: Sequence[Campaign]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in found:
        total.update(each.counts)
    return total


def _unknown(found: Sequence[Campaign]) -> int:
    return sum(c.counts["unknown"] for c in found)


def _outcome(counts: Counter[str]) -> str:
    reached = {state.removeprefix(_SENT): n for state, n in counts.items() if n and state.startswith(_SENT)}
    sent = [f"{n:,} sent by {channel}" for channel, n in reached.items()]
    other = [f"{counts[state]:,} {words}" for state, words in _WORDS.items() if counts[state]]
    return ", ".join(sent + other) or "nobody"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _days(ms: int) -> str:
    hours = max(0, ms) // 3_600_000
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"


def _minute(ms: int, timezone: str) -> str:
    return sql_now(ms, timezone)[:16]
