"""``fanoutd campaign recurring``: what was submitted with --cron."""

from __future__ import annotations

import json

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings


@click.group(cls=Group)
def recurring() -> None:
    """Campaigns that come again: list them, remove one."""


@recurring.command("list")
@click.option("--json", "as_json", is_flag=True, help="The recurring campaigns as objects, one a line.")
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """When each comes next, and what came of it last."""
    with connected(settings.reach()) as connection:
        found = connection.call("recurring.list")["recurring"]
    for each in found:
        if as_json:
            click.echo(json.dumps(each, ensure_ascii=False))
        else:
            following = (each["next_at"] or "never")[:16].replace("T", " ")
            last = each["last_campaign"] or "-"
            click.echo(f"{each['id']:<28} {each['cron']:<16} next {following} UTC  {each['message']}  last {last}")


@recurring.command()
@click.argument("recurring_id", metavar="ID")
@pass_settings
def remove(settings: Settings, recurring_id: str) -> None:
    """Let no campaign come of it any more; those that came are not touched."""
    with connected(settings.reach()) as connection:
        click.echo(connection.call("recurring.remove", recurring=recurring_id)["recurring"])
