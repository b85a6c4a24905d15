"""``fanoutd campaign show``: one campaign as a receipt, and what can be done about it."""

from __future__ import annotations

import json
from typing import Any

import click

from fanoutd import client
from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.client import Client
from fanoutd.times import wall_ms

#: A node that was heard of so lately is at work, in seconds.
_LIVING = 15.0


@click.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The campaign object.")
@pass_settings
def show(settings: Settings, campaign_id: str, as_json: bool) -> None:
    """One campaign: how many were reached, how, why not, and who did what to it."""
    config = settings.reach()
    with connected(config) as connection:
        found = connection.campaign(campaign_id)
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False))
            return
        events = _events(connection, campaign_id)
        living = _living(connection) if found["counts"]["unknown"] else None
    from fanoutd.view import receipt

    account = config.accounts.get(found["account"])
    receipt.print_to_stdout(receipt.lines(found, events, account.timezone if account else None, wall_ms()))
    for step in receipt.next_steps(found, events, living):
        say(step)


def _events(connection: Client, campaign: str) -> list[dict[str, Any]]:
    """Empty also from a daemon that was started before it knew them."""
    try:
        events: list[dict[str, Any]] = connection.call("campaign.history", campaign=campaign)["events"]
    except client.BadRequest:
        return []
    return events


def _living(connection: Client) -> set[str] | None:
    """The nodes that were heard of lately; None when nobody can tell."""
    known = connection.call("daemon.status")["nodes"]
    return {each["node"] for each in known if (each["heartbeat_age"] or 0) < _LIVING} if known else None
