"""``fanoutd campaign list``: which campaigns there are, and which of them somebody should look at."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from fanoutd.cli.common import Settings, connected, pass_settings
from fanoutd.client import Client
from fanoutd.times import iso, wall_ms

_AGO = re.compile(r"(\d{1,9})([smhd])")
_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

#: Campaigns that the daemon gives at once.
_PAGE = 200


def moment(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of ``2h`` (ago), or of a time as ISO 8601 has it: without an offset it is local time.

    Raises ValueError that says how to write it.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return max(0, now_ms - int(ago[1]) * _MS[ago[2]])
    try:
        return max(0, int(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:40]!r} is no time; write 2h, 3d, 2026-01-02 or 2026-01-02T15:04:05+08:00") from None


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else iso(moment(value, wall_ms()))
    except (ValueError, OverflowError) as e:
        raise click.BadParameter(str(e), ctx, param) from None


@click.command("list")
@click.option("--state", help="Only those in this state.")
@click.option("--problems", is_flag=True, help="Only those paused or failed, or with people who failed or are unknown.")
@click.option("--since", metavar="TIME", callback=_moment, help="Only those submitted since: 2h, 3d, or ISO 8601.")
@click.option("--until", metavar="TIME", callback=_moment, help="Only those submitted before then.")
@click.option("--account", help="Only those of this account.")
@click.option("--message", help="Only those of this kind of message.")
@click.option("--reference", help="Only those whose reference is this, or has it in it.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The campaign objects, one a line.")
@pass_settings
def list_(settings: Settings, /, limit: int, as_json: bool, **which: Any) -> None:
    """The newest campaigns: on a terminal a table, piped a line each."""
    with connected(settings.reach()) as connection:
        found = _pages(connection, which, limit)
        if as_json or not sys.stdout.isatty():
            from fanoutd.view.campaigns import line

            for each in found:
                click.echo(json.dumps(each, ensure_ascii=False) if as_json else line(each))
            return
        rows = list(found)
    from fanoutd.view.campaigns import table
    from fanoutd.view.progress import console

    for text in table(rows, console().width, wall_ms()):
        click.echo(text)


def _pages(connection: Client, which: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    before = None
    while limit > 0:
        size = min(limit, _PAGE)
        page = connection.call("campaign.list", **which, limit=size, before=before)["campaigns"]
        yield from page
        if len(page) < size:
            return
        before, limit = page[-1]["id"], limit - size
