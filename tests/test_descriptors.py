"""Descriptors: clients never take those that forks and files need, and whoever runs out of them recovers."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.master.room import most_clients
from support.abuse import Abused, abusing, patient
from support.master import Connection, until


@pytest.mark.parametrize(("limit", "slots", "most"), [
    (1024, 5, 920), (1024, 1001, 256), (20_000, 5, 10_000), (64, 3, 16), (1 << 20, 1001, 10_000), (0, 1, 0),
])
def test_how_many_clients_there_may_be(limit: int, slots: int, most: int) -> None:
    assert most_clients(limit, slots) == most


#: With eighty descriptors there may be twenty clients; one more is let in when nobody can go for it.
TIGHT, MOST = ("prlimit", "--nofile=80:80"), 20


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Abused]:
    with Abused(tmp_path, TIGHT) as master:
        yield master.ready()
        assert "Traceback" not in master.log()


def dropped(client: Connection) -> bool:
    poll = select.poll()
    poll.register(client.sock, 0)
    return bool(poll.poll(0))


def told(client: Connection) -> bool:
    """Whether the last that it was told is to come again."""
    answer = client.line()
    assert client.line() is None
    return (answer["id"], answer["error"]["code"]) == (None, -32005)


def test_who_was_idle_longest_makes_room_and_nobody_who_waits_for_something(tight: Abused) -> None:
    (tight.folder / "state" / "campaign").write_text('{"state":"running"}')
    watcher, asker = tight.connect(), tight.connect()
    assert watcher.ask("campaign.watch", campaign="c-1")["result"]["state"] == "running"
    asker.begin("campaign.get", campaign="silence")
    idle = [tight.connect() for _ in range(60)]
    assert idle[-1].ask("daemon.ping")["result"]
    gone = [True] * (60 + 2 - MOST) + [False] * (MOST - 2)
    until(lambda: [dropped(client) for client in idle] == gone, "room for as many as there is")
    for client, went in zip(idle, gone, strict=True):
        assert told(client) if went else client.ask("daemon.ping")["result"]
    assert watcher.ask("daemon.ping")["result"]
    assert asker.ask("daemon.ping")["result"]


def test_a_crowd_keeps_nobody_from_forking_or_from_the_spool(tight: Abused) -> None:
    child = tight.pid_of(1)
    with abusing("a crowd", tight.socket):
        os.kill(child, signal.SIGKILL)
        until(lambda: tight.log().count("worker 1 ready") == 2, "the next worker")
        until(lambda: _submitted(tight), "a submission in the crowd")
    assert "cannot be forked" not in tight.log()
    assert tight.log().count("dropped to make room") + tight.log().count("makes room") <= 12


def _submitted(master: Abused) -> bool:
    with contextlib.suppress(OSError), patient(master) as client:
        answer = client.ask("campaign.submit", content="x", message="supply")
        return bool(answer.get("result"))
    return False


def test_when_nobody_can_go_the_next_one_waits_until_somebody_does(tight: Abused) -> None:
    (tight.folder / "state" / "campaign").write_text('{"state":"running"}')
    watchers = []
    for _ in range(MOST + 1):
        watchers.append(tight.connect())
        watchers[-1].ask("campaign.watch", campaign="c-1")
    with tight.connect() as late:
        late.begin("daemon.ping")
        until(lambda: "cannot accept: all 21 connections are in use" in tight.log(), "the pause")
        assert spends(tight, 1.0) < 0.2
        watchers.pop().sock.close()
        assert late.line()["result"]
    assert tight.log().count("cannot accept") == 1


def test_half_a_line_and_silence_keep_a_place_for_seconds_only(tight: Abused) -> None:
    halves = []
    for _ in range(MOST + 1):
        halves.append(tight.connect())
        assert halves[-1].ask("daemon.ping")["result"]
        halves[-1].write(b'{"jsonrpc":')
    begun = time.monotonic()
    with tight.connect() as late:
        assert late.ask("daemon.ping")["result"]
        assert 3 < time.monotonic() - begun < 8
    assert told(halves[0])


def test_a_limit_that_is_lowered_is_kept_to(tight: Abused) -> None:
    idle = [tight.connect() for _ in range(MOST)]
    assert idle[-1].ask("daemon.ping")["result"]
    resource.prlimit(tight.process.pid, resource.RLIMIT_NOFILE, (40, 80))
    until(lambda: all(map(dropped, idle[:10])), "the end of those who have to go")
    assert all(map(told, idle[:10]))
    assert idle[-1].ask("daemon.ping")["result"]


def test_nothing_spins_and_nothing_is_lost_while_there_are_none(tmp_path: Path) -> None:
    with Abused(tmp_path) as master:
        pid, child = master.ready().process.pid, master.pid_of(1)
        with master.connect() as steady:
            steady.ask("daemon.ping")
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (master.descriptors(), before[1]))
            waiting = [Connection(master.socket) for _ in range(50)]
            os.kill(child, signal.SIGKILL)
            until(lambda: "cannot accept" in master.log() and "cannot be forked" in master.log(), "the want of both")
            assert spends(master, 2.0) < 0.2
            assert steady.ask("daemon.ping")["result"]
            assert steady.ask("daemon.status")["result"]["workers"]
            refused = steady.ask("campaign.submit", content="x", message="supply")["error"]
            assert (refused["code"], "Too many open files" in refused["message"]) == (-32005, True)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            assert steady.ask("campaign.submit", content="x", message="supply")["result"]
        for client in waiting:
            with client:
                assert client.ask("daemon.ping")["result"]
        until(lambda: master.log().count("worker 1 ready") == 2, "the next worker")
        assert master.log().count("cannot accept") == 1
        assert master.log().count("cannot be forked") < 10
        assert "Traceback" not in master.log()


def spends(master: Abused, seconds: float) -> float:
    """Seconds of CPU that it spends in so many of the clock's."""
    before, end = master.cpu(), time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "the time", seconds + 1)
    return master.cpu() - before
