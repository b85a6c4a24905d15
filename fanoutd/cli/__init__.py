"""The command line: one module per family of commands, each imported when it is called.

The daemon forks from this process: what it does not need, it must not carry.
"""

from __future__ import annotations

from importlib import import_module

import click

from fanoutd import __version__
from fanoutd.cli.common import Group, Settings

#: command -> module and name, in the order of --help.
COMMANDS = {
    "demo": "demo:demo", "init": "config:init", "serve": "serve:serve", "config": "config:config",
    "send": "send:send", "campaign": "campaign:campaign", "explain": "explain:explain",
    "subscriber": "subscriber:subscriber", "token": "token:token", "status": "serve:status", "top": "top:top",
    "check": "check:check", "metrics": "metrics:metrics", "doctor": "doctor:doctor", "mail": "mail:mail",
    "migrate": "migrate:migrate",
    "reload": "signals:reload", "reopen-logs": "signals:reopen_logs", "scale": "signals:scale",
    "upgrade": "signals:upgrade", "stop": "signals:stop", "sandbox": "sandbox:sandbox",
}


class _Lazy(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(f"fanoutd.cli.{module}"), name)
        return command


@click.group(cls=_Lazy)
@click.option("-c", "--config", "config_file", metavar="FILE", envvar="FANOUTD_CONFIG", help="Configuration file.")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.version_option(__version__, prog_name="fanoutd")
@click.pass_context
def main(ctx: click.Context, config_file: str | None, debug: bool) -> None:
    """One socket write, every follower reached, every delivery accounted for."""
    ctx.obj = Settings(config_file, debug)
