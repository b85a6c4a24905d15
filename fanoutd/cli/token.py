"""``fanoutd token``: how an account stands with its access token, and a refresh by hand."""

from __future__ import annotations

import json
from typing import Any

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings, say
from fanoutd.config import Config

account_option = click.option("--account", metavar="A", help="Of this account.")
json_option = click.option("--json", "as_json", is_flag=True, help="What the daemon answered.")


@click.group(cls=Group)
def token() -> None:
    """Show the access token, masked, or have another one fetched."""


@token.command()
@account_option
@json_option
@pass_settings
def show(settings: Settings, account: str | None, as_json: bool) -> None:
    """The masked token, its age and source."""
    with connected(settings.reach()) as connection:
        _print(connection.call("token.get", account=account), as_json)


@token.command()
@account_option
@click.option("--force", is_flag=True, help="Kill the present one at once: when it has leaked, or is refused for good.")
@json_option
@pass_settings
def refresh(settings: Settings, account: str | None, force: bool, as_json: bool) -> None:
    """Ask WeChat for a token now; campaigns that were paused for want of one go on."""
    config = settings.reach()
    with connected(config, _patience(config)) as connection:
        _print(connection.call("token.refresh", account=account, force=force), as_json)


def _patience(config: Config) -> float:
    """Seconds: longer than the daemon waits for WeChat."""
    return 10.0 + 2 * max(each.connect_timeout + each.timeout for each in config.accounts.values())


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from fanoutd.view.token import line

    click.echo(line(found))
    if found["error"]:
        say(found["error"])
