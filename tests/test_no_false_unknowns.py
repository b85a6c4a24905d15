"""Where nothing goes wrong nobody is unknown: not among many, and not where connections grow old between calls."""

from __future__ import annotations

import json
import select
import time
from pathlib import Path

import pytest

from fanoutd.dispatcher.refresher import fetch
from fanoutd.worker.wire import Wire
from support import soak, sums
from support.bench import Bench
from support.daemon import Daemon, follower

#: Connections of one wire.
AT_ONCE = 8


def test_of_ten_thousand_sends_without_faults_none_is_unknown(tmp_path: Path) -> None:
    found = soak.clean(10_000, tmp_path)
    assert found == sums.Sums(10_000, 10_000, 0, 0, 0, ())


@pytest.mark.parametrize(("latency", "spread"), [("0ms", 0.0), ("400ms", 0.9)])
def test_of_a_trickle_none_is_unknown_though_the_api_closes_what_is_idle(
    tmp_path: Path, latency: str, spread: float
) -> None:
    """With a spread latency more connections are open than are needed most of the time: they wait for seconds."""
    daemon = Daemon(tmp_path, followers=125, rate=5, latency=latency, spread=spread, idle="5s")
    try:
        campaign = daemon.call("campaign.submit", content="hello", phone="110")["campaign"]
        last = daemon.until(campaign, seconds=60)
        found = sums.check([follower(i) for i in range(125)], daemon.sandbox.ledger, last, daemon.rows(campaign), 0)
        assert found == sums.Sums(125, 125, 0, 0, 0, ())
        if spread:
            stats = daemon.sandbox.stats()
            # more than were ever needed at once: some grew old
            assert stats["connections"]["total"] > stats["most_in_flight"] + 2
    finally:
        daemon.close()


def test_a_connection_that_the_api_is_about_to_close_is_not_used_again(tmp_path: Path) -> None:
    """A request that crosses its end on the way would be unknown. Libraries count idleness in whole seconds, more or
    less: what is used again is well below ``keepalive``, what is about as old is not."""
    bench = Bench(tmp_path, idle="5s", keepalive="5s")
    try:
        fresh, old = (Idler(bench, gap) for gap in (2.5, 4.99))
        for wire in (fresh, old):
            wire.send()
            assert wire.connected == AT_ONCE
        for wire in (fresh, old):
            wire.wait()
            wire.send()
        assert (fresh.connected, old.connected) == (0, AT_ONCE)
        assert fresh.unanswered == old.unanswered == 0
    finally:
        bench.close()


class Idler:
    """Calls on a wire of its own, some at once and then none for ``gap`` seconds."""

    def __init__(self, bench: Bench, gap: float) -> None:
        self._sandbox = bench.sandbox
        self._account = bench.config.accounts["main"]
        self._target = ("main", "custom", fetch(self._account).text)
        self._epoll = select.epoll()
        self._wire = Wire(self._epoll, AT_ONCE)
        self._gap, self._idle_since = gap, 0.0
        self.connected = self.unanswered = 0

    def send(self) -> None:
        before = self._connections()
        for nth in range(AT_ONCE):
            body = json.dumps({"touser": f"oIDLER{nth}", "msgtype": "text", "text": {"content": "x"}}).encode()
            self._wire.start(self._target, self._account, body, None, lambda: None)
        while self._wire.busy:
            for _, answer in self._wire.step(self._epoll.poll(self._wire.timeout())):
                self.unanswered += answer.errcode is None
        self._idle_since = time.monotonic()
        self.connected = self._connections() - before - 1

    def _connections(self) -> int:
        """Made so far, that of this question too."""
        total: int = self._sandbox.stats()["connections"]["total"]
        return total

    def wait(self) -> None:
        time.sleep(max(0.0, self._idle_since + self._gap - time.monotonic()))
