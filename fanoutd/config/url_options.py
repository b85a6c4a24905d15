"""What stands behind the ``?`` of a server's URL: options that are known, once each."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl


def options(query: str, known: Collection[str], switches: Collection[str]) -> dict[str, str]:
    """By name; ``switches`` are those of ``known`` that are on or off. Raises ValueError, in words for people."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"has no option {name!r}; there are {', '.join(known)}")
        if name in found:
            raise ValueError(f"has {name} twice")
        if name in switches and value not in ("on", "off"):
            raise ValueError(f"option {name}: wants on or off")
        found[name] = value
    return found
