"""What happened to one person, a line an event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fanoutd.outcome import describe

_WORDS = {
    "planned": "taken into the campaign",
    "called": "called, {channel}",
    "answered": "answered",
    "elsewhere": "called by another node, or days ago: `fanoutd explain` on that node tells more",
    "sent": "sent as {channel} message",
    "failed": "failed",
    "skipped": "skipped: nothing was sent",
    "unknown": "unknown: the answer of a {channel} call was never seen",
    "resend": "unknown, and about to be sent again ({channel})",
    "pending": "waits",
}

_NO_TIME = " " * 23


def lines(events: list[dict[str, Any]]) -> Iterator[str]:
    """A heading a campaign, then its events in order."""
    campaign = None
    for event in events:
        if event["campaign"] != campaign:
            campaign = event["campaign"]
            yield f"campaign {campaign}"
        yield "  " + _line(event)


def _line(event: dict[str, Any]) -> str:
    at = (event["at"] or _NO_TIME)[:23].replace("T", " ")
    words = _WORDS.get(event["event"], event["event"]).format(channel=event["channel"] or "unknown")
    if event["errcode"] is not None and event["event"] != "sent":
        words += f": {event['errcode']}, {describe(event['errcode'])}"
    if event["msgid"] is not None and event["event"] != "sent":
        words += f", msgid {event['msgid']}"
    if event["event"] == "called":
        words += f" (lease {event['attempt']}, {event['node']})"
    if event.get("detail"):
        words += f"; {event['detail']}"
    return f"{at}  {words}"
