"""Secrets taken out of what is about to be read by people."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Secrets that are not known beforehand: in the addresses of calls to WeChat, in its answers, and in database URLs.
_SECRET = re.compile(
    r"""((?:access_token|secret)(?:=|["']\s*:\s*["']))[^&\s'"@]+|(://[^/\s:@]*:)[^\s'"]+(?=@)"""
)


def ordered(hidden: Iterable[str]) -> tuple[str, ...]:
    """As ``without`` wants them: one that is part of another after it."""
    return tuple(sorted(filter(None, hidden), key=len, reverse=True))


def without(text: str, hidden: tuple[str, ...]) -> str:
    """The text with ``***`` for these, and for what looks like a secret."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return _SECRET.sub(r"\1\2***", text)
