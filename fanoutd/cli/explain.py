"""``fanoutd explain``: one person's life in the campaigns."""

from __future__ import annotations

import json

import click

from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.errors import BadInput
from fanoutd.ids import OPENID


@click.command()
@click.argument("openid")
@click.option("--campaign", metavar="ID", help="Only this campaign.")
@click.option("--json", "as_json", is_flag=True, help="The events, one a line.")
@pass_settings
def explain(settings: Settings, openid: str, campaign: str | None, as_json: bool) -> None:
    """What happened to OPENID, call by call. Store and journals are asked."""
    if not OPENID.fullmatch(openid):
        raise BadInput(f"{openid[:80]!r} is no openid: 6 to 64 of A-Z a-z 0-9 _ -")
    with connected(settings.reach(), 60.0) as connection:
        if campaign is not None:
            connection.campaign(campaign)
        events = connection.call("delivery.explain", openid=openid, campaign=campaign)["events"]
    from fanoutd.view.life import lines

    if not events and not as_json:
        say(f"{openid} is in no campaign" if campaign is None else f"{openid} is not in campaign {campaign}")
    for text in (json.dumps(each, ensure_ascii=False) for each in events) if as_json else lines(events):
        click.echo(text)
