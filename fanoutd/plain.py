"""Words of others, as a terminal or a mail may be given them."""

from __future__ import annotations

import unicodedata

#: Would have what follows, or what stands before, read in another direction.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """On one line; a character that would steer a terminal is shown as a question mark."""
    return "".join("?" if _steers(each) else each for each in " ".join(text.split()))


def _steers(each: str) -> bool:
    return not each.isprintable() and (each in _TURNING or unicodedata.category(each) in ("Cc", "Cs"))
