"""``fanoutd top``: the daemon as it works, drawn anew each second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Group

from fanoutd.cli.common import Settings, pass_settings, reaching
from fanoutd.client import Client, ClientError
from fanoutd.times import local_ms
from fanoutd.view import screen
from fanoutd.view.progress import console
from fanoutd.view.top import STATES, Campaign, Seen, frame

#: Campaigns of a state that are asked for.
_MOST = 50

#: Seconds for an answer: a daemon whose dispatcher is away takes two.
_PATIENCE = 5.0

#: Seconds within which a connection that broke is worth another one at once.
_AT_ONCE = 1.0


class Observer:
    """Looks at the daemon, over one connection as long as it holds."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client: Client | None = None

    def first(self) -> Seen:
        """Raises Unreachable, ClientError, PermissionError."""
        self._client = Client(self._socket, _PATIENCE)
        return self._ask(self._client, ())

    def look(self, last: Seen) -> Seen:
        """What is to be seen now, or that nothing is."""
        began, kept = time.monotonic(), self._client is not None
        seen = self._look(last)
        if seen.away is not None and kept and time.monotonic() - began < _AT_ONCE:
            seen = self._look(last)  # the connection may have been the daemon's before, or given up for somebody else
        return seen

    def _look(self, last: Seen) -> Seen:
        client, self._client = self._client, None
        try:
            client = client or Client(self._socket, _PATIENCE)
            seen = self._ask(client, last.campaigns)
        except (ClientError, OSError, LookupError, TypeError) as e:
            if client is not None:
                client.close()
            since = local_ms() if last.away is None else last.away_ms
            return replace(last, away=self._words(e), away_ms=since)
        self._client = client
        return seen

    def _ask(self, client: Client, known: Sequence[Campaign]) -> Seen:
        """``known`` are the campaigns of an earlier look."""
        status = client.call("daemon.status")
        if not status["store"]["ok"]:  # it would be waited for
            return Seen(status, known, older="the store does not answer")
        try:
            pages = [client.call("campaign.list", state=state, limit=_MOST)["campaigns"] for state in STATES]
        except ClientError as e:
            return Seen(status, known, older=str(e))
        return Seen(status, [each for page in pages for each in page], more=any(len(page) == _MOST for page in pages))

    def _words(self, why: Exception) -> str:
        if isinstance(why, PermissionError):
            return f"you may not use {self._socket} any more"
        if isinstance(why, (LookupError, TypeError)):
            return f"what answers on {self._socket} does not speak as this program's daemon does"
        return str(why).replace(f" on {self._socket}", "")  # the line is short, and who looks knows where


class Watcher(threading.Thread):
    """Looks again and again; ``seen`` is the last, and ``bell`` rings for it."""

    def __init__(self, observer: Observer, seen: Seen, interval: float, bell: screen.Bell) -> None:
        super().__init__(daemon=True, name="watcher")  # it may wait for an answer when the picture is left
        self._observer, self._interval, self._bell = observer, interval, bell
        self.seen = seen

    def run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            self.seen = self._observer.look(self.seen)
            self._bell.ring()


@click.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, metavar="SECONDS", help="How often; 1.")
@click.option("--once", is_flag=True, help="Show it once and leave; so it is when piped.")
@pass_settings
def top(settings: Settings, interval: float, once: bool) -> None:
    """Watch the daemon, its campaigns and its workers. q leaves."""
    config = settings.reach()
    observer = Observer(config.daemon.socket)
    with reaching(config):
        seen = observer.first()
    out = console()
    if once or not out.is_terminal or out.is_dumb_terminal:
        out.print(Group(*frame(seen, local_ms(), out.width)))
        return
    bell = screen.Bell()
    watcher = Watcher(observer, seen, interval, bell)
    watcher.start()
    code = screen.run(out, bell, lambda width, height: Group(*frame(watcher.seen, local_ms(), width, height, True)))
    raise click.exceptions.Exit(code)
