"""Mail addresses as the configuration has them: ``ops@example.com``, or ``Operations <ops@example.com>``."""

from __future__ import annotations

import re

from fanoutd.config import values

#: What goes through every server: the unquoted form of RFC 5321, in ASCII.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_LOCAL}@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f.:IPv]+\])")
_NAMED = re.compile(r"\s*(?P<name>[^<>]*?)\s*<(?P<address>[^<>]+)>")

_RIGHT = 'wants a mail address like "ops@example.com" or "Operations <ops@example.com>"'


def address(value: object) -> str:
    """One address, as written. Raises ValueError."""
    line = values.word(value)
    split(line)
    return line


def addresses(value: object) -> tuple[str, ...]:
    """A list of them; each person once. Raises ValueError."""
    lines = values.words(value)
    bare = [split(line)[1].lower() for line in lines]
    if twice := next((each for each in bare if bare.count(each) > 1), None):
        raise ValueError(f"has {twice[:80]} twice")
    return lines


def split(line: str) -> tuple[str, str]:
    """(name, address), the name empty if there is none. Raises ValueError."""
    found = _NAMED.fullmatch(line)
    name, bare = (_plain(found["name"]), found["address"]) if found else ("", line)
    local = bare.rpartition("@")[0]
    if not _ADDRESS.fullmatch(bare) or len(bare) > 254 or len(local) > 64:
        raise ValueError(f"{_RIGHT}, not {line[:80]!r}")
    return name, bare


def _plain(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return re.sub(r"\\(.)", r"\1", name[1:-1])
    return name
