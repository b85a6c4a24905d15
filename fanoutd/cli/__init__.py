"""The command line: one module per family of commands."""

from __future__ import annotations

import click

from fanoutd import __version__
from fanoutd.cli.sandbox import sandbox


@click.group()
@click.version_option(__version__)
def main() -> None:
    """One socket write, every follower reached, every delivery accounted for."""


main.add_command(sandbox)
