"""``fanoutd campaign``: what there is, what became of it, who got it."""

from __future__ import annotations

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings
from fanoutd.cli.export import export
from fanoutd.cli.listing import list_
from fanoutd.cli.orders import ORDERS
from fanoutd.cli.recurring import recurring
from fanoutd.cli.report import report
from fanoutd.cli.send import judge, see_through
from fanoutd.cli.showing import show


@click.group(cls=Group)
def campaign() -> None:
    """List campaigns, show and export one, pause it, let it go on."""


for _each in (list_, show, export, *ORDERS, recurring, report):
    campaign.add_command(_each)


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@pass_settings
def watch(settings: Settings, campaign_id: str) -> None:
    """Follow a campaign until it ends."""
    config = settings.reach()
    with connected(config) as connection:
        connection.campaign(campaign_id)
    judge(see_through(config, campaign_id))
