"""``fanoutd serve`` and ``status``."""

from __future__ import annotations

import json
import sys

import click

from fanoutd.cli.common import Settings, connected, pass_settings, say


@click.command()
@pass_settings
def serve(settings: Settings) -> None:
    """Run the daemon in the foreground."""
    from fanoutd import master  # only here: what the master imports before it forks, it imports itself

    config = settings.load()
    for warning in config.warnings:
        say(f"warning: {warning}")
    sys.exit(master.serve(config))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The status object.")
@pass_settings
def status(settings: Settings, as_json: bool) -> None:
    """Show the daemon and its workers."""
    with connected(settings.load()) as connection:
        found = connection.call("daemon.status")
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        from fanoutd.view.status import show

        show(found)
