"""A report as a page of its own: one file that needs nothing else, light or dark as the reader's screen, and printable.

It has no script and fetches nothing: it can be kept for years, sent on, and opened anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from fanoutd.report.build import Report
from fanoutd.report.html import escaped
from fanoutd.report.timeline import Timeline
from fanoutd.report.words import clock, number, step

_STYLE = """
:root{color-scheme:light dark;--ground:#f5f7f9;--paper:#fff;--ink:#1f2933;--dim:#616e7c;--line:#d9e0e6;--code:#eef2f5;
--sent_custom:#1a7f4b;--sent_template:#3aa675;--sent_subscribe:#7cc7a2;--sent:#1a7f4b;--failed:#c0392b;
--skipped:#95a0aa;--unknown:#d98e04;--pending:#cfd6dc;--good:#1a7f4b;--warn:#b7791f;--bad:#c0392b}
@media(prefers-color-scheme:dark){:root{--ground:#12171c;--paper:#1b2229;--ink:#e4e9ed;--dim:#9aa7b3;--line:#323d47;
--code:#26303a;--sent_custom:#3fae76;--sent_template:#66c497;--sent_subscribe:#a3dcc0;--sent:#3fae76;--failed:#e0695c;
--skipped:#77828c;--unknown:#eaa831;--pending:#414c56;--good:#3fae76;--warn:#e0a43c;--bad:#e0695c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif}
main{max-width:820px;margin:32px auto;background:var(--paper);border-radius:10px;border-top:6px solid var(--tone);
padding:28px 36px 36px;box-shadow:0 1px 3px rgba(0,0,0,.12)}
.good{--tone:var(--good)}.warn{--tone:var(--warn)}.bad{--tone:var(--bad)}
.name{color:var(--dim);overflow-wrap:anywhere}.name b{color:var(--tone)}
h1{font-size:26px;line-height:1.3;font-weight:600;margin:4px 0 18px}
h2{font-size:16px;margin:32px 0 10px}
.reason{border-left:4px solid var(--tone);background:var(--code);padding:10px 14px;margin:0 0 20px;
overflow-wrap:anywhere}
.bar{display:flex;height:18px;border-radius:5px;overflow:hidden;gap:1px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.bar i{min-width:3px}
table{width:100%;border-collapse:collapse;margin-top:12px}
td,th{padding:6px 0;vertical-align:top;text-align:left;font-weight:400;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums;padding-left:18px;white-space:nowrap}
.sum>*{border-top:2px solid var(--line);font-weight:600}
.dim,.facts th{color:var(--dim)}.facts th{width:11em;padding-right:16px}
.facts td{overflow-wrap:anywhere}
.d{width:21px}
.dot{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:10px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
code{font:13px/1.4 ui-monospace,Menlo,Consolas,monospace;background:var(--code);border-radius:5px;padding:3px 8px;
margin-bottom:4px;display:inline-block;overflow-wrap:anywhere}
.do p{margin:10px 0 4px}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--dim);font-size:11px;font-family:inherit}
footer{color:var(--dim);font-size:13px;margin-top:32px;border-top:1px solid var(--line);padding-top:12px}
@media(max-width:600px){main{margin:0;border-radius:0;padding:20px 18px}h1{font-size:21px}}
@media print{body{background:#fff}main{box-shadow:none;margin:0;max-width:none;padding:0 0 12px}
h2,tr,svg{break-inside:avoid}h2{break-after:avoid}}
"""


def page(report: Report, made_by: str) -> str:
    """``made_by``: the last line, in which stands what made it and when."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Campaign {escaped(report.id)}: {escaped(report.state)}</title><style>{_STYLE}</style></head>"
        f'<body><main class="{report.tone}">{"".join(_parts(report))}<footer>{escaped(made_by)}</footer></main>'
        "</body></html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    yield f'<div class="name">Campaign {escaped(report.id)} · <b>{escaped(report.state)}</b></div>'
    yield f"<h1>{escaped(report.headline)}</h1>"
    if report.reason:
        yield f'<div class="reason">{escaped(report.reason)}</div>'
    yield from _receipt(report)
    yield from _errors(report)
    yield from _steps(report)
    if report.timeline is not None and len(report.timeline) > 1:
        yield f"<h2>Deliveries over time</h2>{chart(report.timeline, report.timezone)}"
    facts = [*report.facts, *([("begins", report.excerpt)] if report.excerpt else [])]
    rows = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in facts)
    yield f'<h2>Facts</h2><table class="facts">{rows}</table>'


def _receipt(report: Report) -> Iterator[str]:
    if report.total:
        parts = "".join(
            f'<i style="flex:{line.count};background:var(--{line.key})" title="{number(line.count)} '
            f'{escaped(line.words)}"></i>'
            for line in report.receipt
        )
        yield f'<div class="bar" role="img" aria-label="outcomes">{parts}</div>'
    rows = "".join(
        f'<tr><td class="d"><span class="dot" style="background:var(--{line.key})"></span></td>'
        f"<td>{escaped(line.words)}</td>"
        f'<td class="n">{number(line.count)}</td><td class="n dim">{escaped(line.share)}</td></tr>'
        for line in report.receipt
    )
    total = f'<tr class="sum"><td></td><td>total</td><td class="n">{number(report.total)}</td><td></td></tr>'
    yield f"<table>{rows}{total}</table>"


def _errors(report: Report) -> Iterator[str]:
    if not report.errors:
        return
    rows = "".join(
        f'<tr><td class="dim" style="width:5em">{escaped(error.errcode)}</td><td>{escaped(error.words)}'
        f'{f"<div class=dim>{escaped(error.mend)}</div>" if error.mend else ""}</td>'
        f'<td class="n">{number(error.count)}</td><td class="n dim">{escaped(error.share)}</td></tr>'
        for error in report.errors
    )
    if report.more_errors:
        rows += f'<tr><td></td><td>for other reasons</td><td class="n">{number(report.more_errors)}</td><td></td></tr>'
    yield f"<h2>Why they failed</h2><table>{rows}</table>"


def _steps(report: Report) -> Iterator[str]:
    if not report.steps:
        return
    yield '<h2>What to do</h2><div class="do">'
    for each in report.steps:
        if each.words:
            yield f"<p>{escaped(each.words)}</p>"
        if each.command:
            yield f"<code>{escaped(each.command)}</code> "
    yield "</div>"


#: The chart's size, and the room for its numbers and times, in its own units.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 748, 220, 56, 24, 10


def chart(timeline: Timeline, timezone: str) -> str:
    """Columns, a step each, of what was sent, failed and stayed unknown."""
    totals = timeline.totals()
    most = max(max(totals), 1)
    slot = (_WIDTH - _LEFT) / len(totals)
    unit = (_HEIGHT - _BOTTOM - _TOP) / _ceiling(most)
    parts = [*_scale(_ceiling(most), unit)]
    for i in range(len(totals)):
        x, y = _LEFT + i * slot, float(_HEIGHT - _BOTTOM)
        at = clock(timeline.start + i * timeline.step, timezone, timeline.step)
        bars = ""
        for kind, values in timeline.series.items():
            if values[i]:
                height = max(1.0, values[i] * unit)
                y -= height
                bars += f'<rect x="{x + slot * 0.08:.1f}" y="{y:.1f}" width="{max(1, slot * 0.84):.1f}" ' \
                    f'height="{height:.1f}" style="fill:var(--{kind})"/>'  # fmt: skip
        told = ", ".join(f"{number(values[i])} {kind}" for kind, values in timeline.series.items() if values[i])
        parts.append(f"<g><title>{at}: {told or 'nobody'}</title>{bars}</g>" if bars else "")
    every = max(1, -(-len(totals) // 6))
    for i in range(0, len(totals), every):
        at = clock(timeline.start + i * timeline.step, timezone, timeline.step)
        parts.append(f'<text x="{_LEFT + i * slot:.1f}" y="{_HEIGHT - 6}">{at}</text>')
    label = f"in steps of {step(timeline.step / 1000)}, {timezone}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Deliveries {escaped(label)}">' \
        f'{"".join(parts)}</svg><div class="dim">people {escaped(label)}{_legend(timeline)}</div>'  # fmt: skip


def _legend(timeline: Timeline) -> str:
    return "".join(
        f' · <span class="dot" style="background:var(--{kind});margin:0 5px 0 2px"></span>{kind}'
        for kind, values in timeline.series.items() if any(values)
    )  # fmt: skip


def _ceiling(most: int) -> int:
    """The next round number."""
    power = 1
    while power * 10 < most:
        power *= 10
    return next(power * factor for factor in (1, 2, 4, 5, 8, 10) if power * factor >= most)


def _scale(top: int, unit: float) -> Iterator[str]:
    lines = [0, top // 2, top] if top >= 2 else [0, top]
    for value in lines:
        y = _HEIGHT - _BOTTOM - value * unit
        yield f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" style="stroke:var(--line)"/>' \
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'  # fmt: skip
