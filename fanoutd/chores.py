"""What a crontab plans, for the clock that says when and for whoever does it."""

from __future__ import annotations

from fanoutd.config import Config

#: How late one that was missed is still done, in seconds.
LATEST = 6 * 3600.0


def lines(config: Config) -> dict[str, str]:
    """By name their crontab lines, of those that are on: without mail there is no digest."""
    found = {"digest": config.schedule.digest if config.mail else "", "sync": config.schedule.sync}
    return {name: line for name, line in found.items() if line}
