"""A report as plain text: for a terminal, and for mail clients that show no HTML."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from fanoutd.report.build import Report
from fanoutd.report.words import clock, number, step

#: Columns of a bar, and steps of the time line.
_BAR, _STEPS = 30, 20


def text(report: Report, note: str = "") -> str:
    """Lines of about 80 columns. ``note``: what stands before all else."""
    return "\n".join(line.rstrip() for line in _lines(report, note)) + "\n"


def _lines(report: Report, note: str) -> Iterator[str]:
    if note:
        yield note
        yield ""
    yield f"Campaign {report.id}: {report.state}"
    yield report.headline
    if report.reason:
        yield f"Reason: {report.reason}"
    yield ""
    yield from _receipt(report)
    yield from _errors(report)
    yield from _steps(report)
    yield from _timeline(report)
    width = max((len(name) for name, _ in report.facts), default=0)
    yield from (f"  {name:<{width}}  {value}" for name, value in report.facts)
    if report.excerpt:
        yield f"  {'begins':<{width}}  {report.excerpt}"


def _receipt(report: Report) -> Iterator[str]:
    for line in report.receipt:
        yield f"  {_padded(line.words, 38)} {number(line.count):>11}  {line.share:>7}"
    yield f"  {'total':<38} {number(report.total):>11}"
    yield ""


def _errors(report: Report) -> Iterator[str]:
    if not report.errors:
        return
    yield "Why they failed"
    for error in report.errors:
        yield f"  {number(error.count):>9}  {error.errcode:>6}  {error.words}"
        if error.mend:
            yield f"                     {error.mend}"
    if report.more_errors:
        yield f"  {number(report.more_errors):>9}  for other reasons"
    yield ""


def _steps(report: Report) -> Iterator[str]:
    if not report.steps:
        return
    yield "What to do"
    for each in report.steps:
        if each.words:
            yield f"  {each.words}"
        if each.command:
            yield f"      {each.command}"
    yield ""


def _timeline(report: Report) -> Iterator[str]:
    if report.timeline is None or len(report.timeline) < 2:
        return
    shown = report.timeline.coarser(_STEPS)
    totals = shown.totals()
    most = max(totals)
    yield f"Deliveries in steps of {step(shown.step / 1000)}"
    for i, count in enumerate(totals):
        bar = "#" * (-(-count * _BAR // most))
        bad = [(kind, shown.series[kind][i]) for kind in ("failed", "unknown")]
        troubled = [f"{number(some)} {kind}" for kind, some in bad if some]
        words = f" ({', '.join(troubled)})" if troubled else ""
        yield f"  {clock(shown.start + i * shown.step, report.timezone, shown.step)}  {bar:<{_BAR}}  " \
            f"{number(count)}{words}"  # fmt: skip
    yield ""


def _padded(words: str, columns: int) -> str:
    """Chinese takes two columns a character."""
    width = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in words)
    return words + " " * max(0, columns - width)
