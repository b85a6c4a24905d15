"""``fanoutd demo``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from fanoutd.client import Client
from fanoutd.config.values import duration
from fanoutd.errors import BadInput, FanoutdError

TEXT = "求购香樟100棵，胸径20公分，要求树形好"


@click.command()
@click.option("--followers", type=click.IntRange(1), default=1500, show_default=True, help="How many people.")
@click.option("--latency", default="240ms", show_default=True, help="How long the API takes to answer.")
@click.option("--dir", "folder", metavar="DIR", help="Keep everything in this folder.")
def demo(followers: int, latency: str, folder: str | None) -> None:
    """The whole product on this machine, with nothing set up."""
    from fanoutd.demo import audit, report, stage
    from fanoutd.view.progress import follow

    try:
        seconds = duration(latency)
    except ValueError as e:
        raise BadInput(f"--latency: {e}") from None
    console = Console(highlight=False)
    with ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="fanoutd-demo-"))).resolve()
        place.mkdir(parents=True, exist_ok=True)
        set_up = stack.enter_context(stage.Stage(place, followers, latency))
        console.print(f"A notice for {followers:,} followers, through a stand-in for WeChat's API on this machine")
        console.print(f"that takes {latency} to answer and refuses as WeChat does.\n", style="dim")
        with Client(set_up.socket) as connection:
            campaign = connection.submit(content=TEXT, phone="13800000000")["campaign"]
            last = follow(connection.watch(campaign), console)
            rows = list(connection.deliveries(campaign))
        everybody = (stage.openid(i) for i in range(followers))
        found = audit.compare(everybody, rows, audit.ledger(set_up.ledger))
        if last["state"] != "done":
            raise FanoutdError(f"the campaign ended {last['state']}: {last['reason']}")
        report.show(console, last, found, seconds, str(place) if folder else None)
    if not found.good:
        raise FanoutdError("not every follower is accounted for; run again with --dir and look at fanoutd.log")
