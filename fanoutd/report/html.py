"""What the two kinds of HTML share: escaping, and the colours of the outcomes."""

from __future__ import annotations

import html
import unicodedata

#: By outcome, and by tone; dark enough for white letters, and told apart by those who see no red or green by their
#: brightness and by the words that stand at each.
COLOURS = {
    "sent_custom": "#1a7f4b", "sent_template": "#3aa675", "sent_subscribe": "#7cc7a2", "failed": "#c0392b",
    "skipped": "#95a0aa", "unknown": "#d98e04", "pending": "#cfd6dc", "sent": "#1a7f4b",
    "good": "#1a7f4b", "warn": "#b7791f", "bad": "#c0392b",
}  # fmt: skip


def escaped(text: str) -> str:
    """As text or as the value of an attribute. What cannot stand in HTML is shown as a question mark."""
    shown = ("?" if unicodedata.category(each) in ("Cc", "Cs") and each not in "\n\t" else each for each in text)
    return html.escape("".join(shown), quote=True)
