"""``fanoutd init`` and ``fanoutd config``."""

from __future__ import annotations

from pathlib import Path

import click

from fanoutd.cli.common import Group, Settings, pass_settings, say
from fanoutd.config import show, write_starter


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
@pass_settings
def check(settings: Settings) -> None:
    """Validate the configuration."""
    loaded = settings.load()
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    click.echo(f"{loaded.path}: ok")


@config.command("show")
@pass_settings
def show_(settings: Settings) -> None:
    """Print the effective configuration, secrets masked."""
    click.echo(show(settings.load()), nl=False)
