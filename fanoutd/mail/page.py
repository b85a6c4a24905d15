"""A mail's HTML: what mail programs show alike, so styles in line, no images, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,'PingFang SC','Microsoft YaHei',sans-serif"
_TEXT = "margin:0 0 16px;white-space:pre-wrap;word-break:break-word"

#: Those that text has no use for; tabs and line breaks stay.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with line breaks of one kind, and other control characters as ``�``."""
    return _CONTROLS.sub("�", text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n"))


def of_text(text: str) -> str:
    """Its paragraphs and lines as they are."""
    return f'<p style="{_TEXT}">{escape(text.strip())}</p>'


def of_list(lines: Iterable[str]) -> str:
    items = "".join(f'<li style="margin:0 0 4px">{escape(line)}</li>' for line in lines)
    return f'<ul style="margin:0 0 16px;padding-left:20px">{items}</ul>'


def of_heading(text: str) -> str:
    return f'<h2 style="margin:24px 0 8px;font-size:16px">{escape(text)}</h2>'


def whole(body: str, foot: str) -> str:
    """The page around a body; one that is a page already stays as it is."""
    if re.match(r"\s*(<!doctype|<html)", body, re.IGNORECASE):
        return body
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"></head>\n'
        '<body style="margin:0;padding:24px 16px;background:#ffffff;color:#1f2328;font-size:15px;line-height:1.5;'
        f'{_FONT}">\n<div style="max-width:680px;margin:0 auto">\n{body}\n'
        f'<p style="margin:24px 0 0;padding-top:8px;border-top:1px solid #d0d7de;color:#656d76;font-size:12px">'
        f"{escape(foot)}</p>\n</div></body></html>\n"
    )
