"""An account's token in a line."""

from __future__ import annotations

from typing import Any

from fanoutd import times


def line(found: dict[str, Any]) -> str:
    """``main: 92_a…wxyz, stable, 12 min old, good for 1 h 48 min``."""
    words = [found["token"] or "no token", found["source"]]
    if found["fetched_at"]:
        age = max(0.0, (times.wall_ms() - times.parse_when(found["fetched_at"])) / 1000)
        words.append(f"{times.duration(age)} old")
    return f"{found['account']}: {', '.join([*words, _use(found)])}"


def _use(found: dict[str, Any]) -> str:
    if not found["ok"]:
        return "not to be used"
    left = found["expires_in"]
    return "good, its end is not known" if left is None else f"good for {times.duration(left)}"
