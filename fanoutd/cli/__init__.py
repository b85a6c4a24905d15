"""The command line: one module per family of commands."""

from __future__ import annotations

import click

from fanoutd import __version__
from fanoutd.cli.campaign import campaign
from fanoutd.cli.common import Group, Settings
from fanoutd.cli.config import config, init
from fanoutd.cli.demo import demo
from fanoutd.cli.sandbox import sandbox
from fanoutd.cli.send import send
from fanoutd.cli.serve import serve, status, stop


@click.group(cls=Group)
@click.option("-c", "--config", "config_file", metavar="FILE", envvar="FANOUTD_CONFIG", help="Configuration file.")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.version_option(__version__, prog_name="fanoutd")
@click.pass_context
def main(ctx: click.Context, config_file: str | None, debug: bool) -> None:
    """One socket write, every follower reached, every delivery accounted for."""
    ctx.obj = Settings(config_file, debug)


for command in (demo, init, serve, config, send, campaign, status, stop, sandbox):
    main.add_command(command)
