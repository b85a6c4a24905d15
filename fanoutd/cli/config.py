"""``fanoutd init`` and ``fanoutd config``."""

from __future__ import annotations

from pathlib import Path

import click

from fanoutd.cli.common import Group, Settings, pass_settings, say
from fanoutd.config import Config, show, write_starter
from fanoutd.errors import BadConfig


@click.command()
@click.argument("folder", default=".", metavar="[DIR]")
def init(folder: str) -> None:
    """Write a commented, working fanoutd.toml."""
    path = write_starter(Path(folder))
    click.echo(path)
    say("Put in your app_id and secret, then: fanoutd config check && fanoutd serve")


@click.group(cls=Group)
def config() -> None:
    """Check or print the configuration."""


@config.command()
@click.option("--online", is_flag=True, help="Ask WeChat too: token, clock, templates. Nothing is sent.")
@click.pass_context
@pass_settings
def check(settings: Settings, ctx: click.Context, online: bool) -> None:
    """Validate the configuration."""
    loaded = settings.load()
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    click.echo(f"{loaded.path}: ok")
    if online and not _ask_wechat(loaded):
        ctx.exit(BadConfig.exit_code)


def _ask_wechat(loaded: Config) -> bool:
    """Print what WeChat says of it; whether all is well."""
    from fanoutd.online import examine

    well = True
    for finding in examine(loaded):
        click.echo(f"{finding.level:<4}  {finding.what}: {finding.words}")
        if finding.mend:
            click.echo(f"      → {finding.mend}")
        well = well and finding.level != "fail"
    return well


@config.command("show")
@pass_settings
def show_(settings: Settings) -> None:
    """Print the effective configuration, secrets masked."""
    click.echo(show(settings.load()), nl=False)
