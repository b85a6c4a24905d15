"""``fanoutd metrics``: what Prometheus is given."""

from __future__ import annotations

import click

from fanoutd.cli.common import Settings, connected, pass_settings


@click.command()
@pass_settings
def metrics(settings: Settings) -> None:
    """This node's metrics, in the text format of Prometheus."""
    with connected(settings.reach()) as connection:
        click.echo(connection.call("daemon.metrics"), nl=False)
