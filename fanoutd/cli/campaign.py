"""``fanoutd campaign``: what there is, what became of it, who got it."""

from __future__ import annotations

import csv
import json
import sys

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings, say
from fanoutd.cli.orders import ORDERS
from fanoutd.cli.recurring import recurring
from fanoutd.cli.report import report
from fanoutd.cli.send import judge, see_through

COLUMNS = ("openid", "state", "channel", "errcode", "msgid", "attempts", "updated_at")


@click.group(cls=Group)
def campaign() -> None:
    """List campaigns, show one, export its people, pause it and let it go on."""


for _order in (*ORDERS, recurring, report):
    campaign.add_command(_order)


@campaign.command("list")
@click.option("--state", help="Only those in this state.")
@click.option("--limit", type=int, default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The campaign objects, one a line.")
@pass_settings
def list_(settings: Settings, state: str | None, limit: int, as_json: bool) -> None:
    """The newest campaigns."""
    with connected(settings.load()) as connection:
        found = connection.call("campaign.list", state=state, limit=limit)["campaigns"]
    from fanoutd.view.progress import row

    for each in found:
        click.echo(json.dumps(each, ensure_ascii=False) if as_json else row(each))


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The campaign object.")
@pass_settings
def show(settings: Settings, campaign_id: str, as_json: bool) -> None:
    """One campaign: how many were reached, how, and why not."""
    with connected(settings.load()) as connection:
        found = connection.campaign(campaign_id)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from fanoutd.view.progress import console, picture

    screen = console()
    screen.print(picture(found, screen.width))
    if found["counts"]["unknown"]:
        say(f"Who they are: `fanoutd campaign export {campaign_id} --state unknown`; then `campaign retry --unknown`, "
            "which may reach them twice, or `campaign resolve --sent` or `--failed`")  # fmt: skip


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@pass_settings
def watch(settings: Settings, campaign_id: str) -> None:
    """Follow a campaign until it ends."""
    config = settings.load()
    with connected(config) as connection:
        connection.campaign(campaign_id)
    judge(see_through(config, campaign_id))


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--state", help="Only people in this state: sent, failed, skipped, unknown, pending.")
@pass_settings
def export(settings: Settings, campaign_id: str, form: str, state: str | None) -> None:
    """Everybody of a campaign, in sending order, on stdout."""
    with connected(settings.load()) as connection:
        rows = connection.deliveries(campaign_id, state)
        if form == "jsonl":
            for row in rows:
                click.echo(json.dumps(row, ensure_ascii=False))
            return
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow(["" if row[name] is None else row[name] for name in COLUMNS])
