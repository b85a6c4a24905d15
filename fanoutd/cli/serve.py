"""``fanoutd serve``, ``stop`` and ``status``."""

from __future__ import annotations

import json
import sys

import click

from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.errors import FanoutdError, Unreachable


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
@pass_settings
def stop(settings: Settings) -> None:
    """Stop the daemon; returns when it has ended."""
    from fanoutd.master import lock

    config = settings.load()
    found = lock.running(config.daemon)
    if found is None:
        raise Unreachable(f"no daemon runs on {config.daemon.state_dir}; nothing to stop")
    try:
        found.send()
    except ProcessLookupError:
        return
    patience = config.workers.graceful_timeout + 5
    if not found.wait(patience):
        raise FanoutdError(f"pid {found.pid} was told to stop and still runs after {patience:.0f} s; see its log")


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
