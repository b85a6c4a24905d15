"""``fanoutd serve`` and ``status``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.config import Config, load
from fanoutd.errors import FanoutdError


@click.command()
@click.option("--daemonize", is_flag=True, help="Run in the background; returns when a worker is ready.")
@pass_settings
def serve(settings: Settings, daemonize: bool) -> None:
    """Run the daemon, in the foreground by default."""
    # Only here: what the master imports before it forks, it imports itself.
    from fanoutd import master
    from fanoutd.master import takeover

    estate = takeover.received(os.environ)
    if estate is not None:
        left = estate.document
        config = load(Path(left["config_path"]), text=takeover.to_bytes(left["config_text"]))
        sys.exit(master.serve(config, estate=estate))
    config = settings.load()
    for warning in config.warnings:
        say(f"warning: {warning}")
    sys.exit(_in_background(config) if daemonize else master.serve(config))


def _in_background(config: Config) -> int:
    """In the daemon; the process that was called ends in ``launch.daemonize``."""
    from fanoutd import master
    from fanoutd.master import launch

    if config.daemon.log_file is None:
        say(f"the log goes to {launch.default_log_file(config.daemon)}")
    launcher = launch.daemonize()
    try:
        code = master.serve(config, launcher)
    except FanoutdError as e:
        launcher.fail(e.exit_code, " ".join(str(e).split()))
        return e.exit_code
    except Exception as e:
        launcher.fail(FanoutdError.exit_code, f"{type(e).__name__}: {e}")
        raise
    launcher.fail(code or FanoutdError.exit_code, "the daemon was stopped before a worker was ready")
    return code


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The status object.")
@pass_settings
def status(settings: Settings, as_json: bool) -> None:
    """Show the daemon and its workers."""
    with connected(settings.reach()) as connection:
        found = connection.call("daemon.status")
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        from fanoutd.view.status import show

        show(found)
