"""A report as the HTML of a mail: tables and inline styles, for mail clients show nothing else. No script, no picture,
nothing that is fetched."""

from __future__ import annotations

from collections.abc import Iterator

from fanoutd.report.build import Report
from fanoutd.report.html import COLOURS, escaped
from fanoutd.report.words import clock, number, step

#: Rows of the chart.
_STEPS = 14

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,'PingFang SC','Microsoft YaHei',sans-serif"
_TABLE = '<table role="presentation" cellpadding="0" cellspacing="0" border="0" width="100%"'
_CELL = f"{_FONT};font-size:14px;line-height:20px;color:#1f2933;padding:4px 0"
_DIM = f"{_FONT};font-size:13px;line-height:20px;color:#616e7c;padding:4px 0"
_HEAD = f"{_FONT};font-size:15px;line-height:22px;color:#1f2933;font-weight:bold;padding:22px 0 6px"
_CODE = "font-family:Menlo,Consolas,monospace;font-size:13px;color:#1f2933;background:#f0f3f5;padding:3px 6px"


def mail_html(report: Report, note: str = "") -> str:
    """A whole document. ``note``: what stands before all else."""
    return (
        '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body style="margin:0;padding:0;background:#f5f7f9">'
        f'{_TABLE} style="background:#f5f7f9"><tr><td align="center" style="padding:16px 8px">'
        '<table role="presentation" cellpadding="0" cellspacing="0" border="0" width="640" '
        'style="max-width:640px;width:100%;background:#ffffff;border-collapse:collapse"><tr>'
        f'<td style="background:{COLOURS[report.tone]};height:6px;font-size:1px;line-height:6px">&nbsp;</td></tr>'
        f'<tr><td style="padding:20px 24px 24px">{"".join(_parts(report, note))}</td></tr></table>'
        "</td></tr></table></body></html>"
    )


def _parts(report: Report, note: str) -> Iterator[str]:
    if note:
        yield f'<div style="{_DIM};padding-bottom:10px">{escaped(note)}</div>'
    yield f'<div style="{_DIM}">Campaign {escaped(report.id)} &middot; <b style="color:{COLOURS[report.tone]}">' \
        f"{escaped(report.state)}</b></div>"  # fmt: skip
    yield f'<div style="{_FONT};font-size:20px;line-height:28px;color:#1f2933;padding:4px 0 12px">' \
        f"{escaped(report.headline)}</div>"  # fmt: skip
    if report.reason:
        yield f'<div style="{_CELL};padding:8px 12px;background:#fdf3f2">{escaped(report.reason)}</div><br>'
    yield _bar(report)
    yield _receipt(report)
    yield from _errors(report)
    yield from _steps(report)
    yield from _chart(report)
    yield from _facts(report)


def _bar(report: Report) -> str:
    """The outcomes side by side, as wide as they are many."""
    if not report.total:
        return ""
    cells = "".join(
        f'<td width="{width}%" title="{escaped(line.words)}" '
        f'style="background:{COLOURS[line.key]};height:14px;font-size:1px;line-height:14px">&nbsp;</td>'
        for line, width in zip(report.receipt, widths([line.count for line in report.receipt]), strict=True)
    )
    return f"{_TABLE}><tr>{cells}</tr></table>"


def widths(counts: list[int]) -> list[int]:
    """Percent, of counts that are not all 0: a hundred together, and nobody is so few that they are not seen."""
    found = [_percent(count, sum(counts)) for count in counts]
    found[counts.index(max(counts))] += 100 - sum(found)
    return found


def _percent(count: int, most: int) -> int:
    """At least one: nobody is so few that they are not seen."""
    return max(1, round(100 * count / most)) if count else 0


def _receipt(report: Report) -> str:
    rows = "".join(
        f'<tr><td width="18" style="{_CELL}"><span style="color:{COLOURS[line.key]}">&#9632;</span></td>'
        f'<td style="{_CELL}">{escaped(line.words)}</td>'
        f'<td align="right" style="{_CELL}"><b>{number(line.count)}</b></td>'
        f'<td align="right" width="80" style="{_DIM}">{escaped(line.share)}</td></tr>'
        for line in report.receipt
    )
    sum = f"{_CELL};border-top:1px solid #d3dae0"
    return (
        f'{_TABLE} style="margin-top:12px">{rows}<tr><td style="{sum}"></td><td style="{sum}">total</td>'
        f'<td align="right" style="{sum}"><b>{number(report.total)}</b></td><td style="{sum}"></td></tr></table>'
    )


def _errors(report: Report) -> Iterator[str]:
    if not report.errors:
        return
    yield f'<div style="{_HEAD}">Why they failed</div>{_TABLE}>'
    for error in report.errors:
        mend = f'<div style="{_DIM}">{escaped(error.mend)}</div>' if error.mend else ""
        yield f'<tr><td valign="top" width="64" style="{_DIM}">{escaped(error.errcode)}</td>' \
            f'<td valign="top" style="{_CELL}">{escaped(error.words)}{mend}</td>' \
            f'<td valign="top" align="right" style="{_CELL}"><b>{number(error.count)}</b></td></tr>'  # fmt: skip
    if report.more_errors:
        yield f'<tr><td style="{_DIM}"></td><td style="{_CELL}">for other reasons</td>' \
            f'<td align="right" style="{_CELL}"><b>{number(report.more_errors)}</b></td></tr>'  # fmt: skip
    yield "</table>"


def _steps(report: Report) -> Iterator[str]:
    if not report.steps:
        return
    yield f'<div style="{_HEAD}">What to do</div>'
    for each in report.steps:
        if each.words:
            yield f'<div style="{_CELL}">{escaped(each.words)}</div>'
        if each.command:
            yield f'<div style="padding:2px 0 6px"><code style="{_CODE}">{escaped(each.command)}</code></div>'


def _chart(report: Report) -> Iterator[str]:
    """Deliveries over time: a row a step, a bar of cells in each."""
    if report.timeline is None or len(report.timeline) < 2:
        return
    shown = report.timeline.coarser(_STEPS)
    totals = shown.totals()
    most = max(totals)
    yield f'<div style="{_HEAD}">Deliveries in steps of {step(shown.step / 1000)}</div>{_TABLE}>'
    for i, count in enumerate(totals):
        at = clock(shown.start + i * shown.step, report.timezone, shown.step)
        yield f'<tr><td width="96" style="{_DIM};padding:1px 0">{at}</td><td style="padding:1px 0">' \
            f'{_row([(kind, values[i]) for kind, values in shown.series.items()], most)}</td>' \
            f'<td align="right" width="80" style="{_DIM};padding:1px 0">{number(count)}</td></tr>'  # fmt: skip
    yield "</table>"


def _row(parts: list[tuple[str, int]], most: int) -> str:
    cells = "".join(
        f'<td width="{_percent(count, most)}%" title="{number(count)} {kind}" '
        f'style="background:{COLOURS[kind]};height:12px;font-size:1px;line-height:12px">&nbsp;</td>'
        for kind, count in parts if count
    )  # fmt: skip
    return f'{_TABLE}><tr>{cells}<td style="height:12px;font-size:1px;line-height:12px">&nbsp;</td></tr></table>'


def _facts(report: Report) -> Iterator[str]:
    facts = [*report.facts, *([("begins", report.excerpt)] if report.excerpt else [])]
    yield f'<div style="{_HEAD}">Facts</div>{_TABLE}>'
    for name, value in facts:
        yield f'<tr><td valign="top" width="150" style="{_DIM}">{escaped(name)}</td>' \
            f'<td style="{_CELL}">{escaped(value)}</td></tr>'  # fmt: skip
    yield "</table>"
