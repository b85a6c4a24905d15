"""The day's calls of an account in words, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def calls_today(quota: Mapping[str, Any] | None) -> str:
    """``quota`` as ``accounts[].quota`` of the status has it: {channel: {limit, used, left}}, null when not known."""
    used = [
        f"{channel} {'-' if each['used'] is None else format(each['used'], ',')}"
        + (f" of {each['limit']:,}" if each["limit"] is not None else "")
        for channel, each in (quota or {}).items()
    ]  # fmt: skip
    return f"calls today: {', '.join(used)}" if used else "no calls today"
