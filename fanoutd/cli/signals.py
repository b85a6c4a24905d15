"""``fanoutd reload``, ``upgrade``, ``reopen-logs``, ``stop`` and ``scale``: orders to a living daemon.

Who is alive is told by the lock, and signals go through a pidfd: never to a stranger with a reused pid.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.config import MOST_WORKERS, Config
from fanoutd.errors import FanoutdError, NotNow, Unreachable
from fanoutd.master import lock
from fanoutd.master.lock import Running

#: Seconds beyond graceful_timeout for a daemon to end, for a generation to serve, and between two looks.
_MORE, _SERVES, _LOOK = 5.0, 120.0, 0.05


@contextmanager
def _daemon(config: Config) -> Iterator[Running]:
    """Raises Unreachable when none is alive."""
    found = lock.running(config.daemon)
    if found is None:
        raise Unreachable(f"no daemon runs on {config.daemon.state_dir}; start it with `fanoutd serve`")
    try:
        yield found
    except ProcessLookupError:
        raise Unreachable(f"pid {found.pid} has just ended") from None
    finally:
        found.close()


@click.command()
@pass_settings
def stop(settings: Settings) -> None:
    """Stop the daemon; returns when it has ended."""
    config = settings.load()
    lock.stop_daemon(config.daemon, config.workers.graceful_timeout + _MORE)


@click.command("reopen-logs")
@pass_settings
def reopen_logs(settings: Settings) -> None:
    """Have the daemon open its log file anew, as after a rotation."""
    with _daemon(settings.load()) as daemon:
        daemon.send(signal.SIGUSR1)


@click.command()
@pass_settings
def reload(settings: Settings) -> None:
    """Bring a changed configuration, and new code, into force. There is no gap."""
    config = settings.load()
    for warning in config.warnings:
        say(f"warning: {warning}")
    with _daemon(config) as daemon:
        before = _status(config)["reload"]["count"]
        daemon.send(signal.SIGHUP)
        last = _until_settled(config, daemon, "reload", before)
    if last["reload"]["stage"] == "refused":
        raise FanoutdError(f"not reloaded: {last['reload']['error']}; generation {last['generation']} goes on")
    say(f"generation {last['generation']} serves")


def _until_settled(config: Config, daemon: Running, what: str, before: int) -> dict[str, Any]:
    end = time.monotonic() + _SERVES
    while time.monotonic() < end:
        if daemon.wait(_LOOK):
            raise FanoutdError(f"pid {daemon.pid} has ended meanwhile; see its log")
        status = _status(config)
        if status[what]["count"] > before and status[what]["stage"] in ("done", "refused"):
            return status
    raise NotNow(f"the {what} is not done after {_SERVES:.0f} s; see `fanoutd status` and the log")


def _status(config: Config) -> dict[str, Any]:
    with connected(config) as connection:
        found: dict[str, Any] = connection.call("daemon.status")
    return found


@click.command()
@pass_settings
def upgrade(settings: Settings) -> None:
    """Replace the running program by the one installed now. There is no gap."""
    config = settings.load()
    with _daemon(config) as daemon:
        before = _status(config)["upgrade"]["count"]
        daemon.send(signal.SIGUSR2)
        last = _until_settled(config, daemon, "upgrade", before)
    if last["upgrade"]["stage"] == "refused":
        raise FanoutdError(f"not upgraded: {last['upgrade']['error']}; version {last['version']} goes on")
    say(f"version {last['version']} serves")


@click.command()
@click.argument("count", type=click.IntRange(1, MOST_WORKERS))
@pass_settings
def scale(settings: Settings, count: int) -> None:
    """Run COUNT workers from now on, until the next reload."""
    with connected(settings.reach()) as connection:
        connection.call("daemon.scale", count=count)
    say(f"{count} workers wanted")
