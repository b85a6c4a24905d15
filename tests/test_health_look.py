"""The job that looks: over deaths of the dispatcher, changes of the leader, and a store that hangs."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fanoutd.board import Board
from fanoutd.config import Config, load
from fanoutd.dispatcher import health as module
from fanoutd.dispatcher import measure, measure_store
from fanoutd.dispatcher.health import Health
from fanoutd.dispatcher.remembered import Memory
from fanoutd.figures import Figures
from fanoutd.health.conditions import Key
from fanoutd.mail.event import Event
from fanoutd.spool import Spool
from fanoutd.store import StoreAway, open_store
from fanoutd.store.schema import migrate
from support.bench import Bench, wait_for
from support.stores import KINDS, url

GOOD = {"token": "ab…yz", "ok": True, "expires_in": 7000, "error": None}
REFUSED = {**GOOD, "ok": False, "error": "40164: this machine's address is not on the IP whitelist"}


class Node:
    """A machine with its own state directory, on a store that others may use too."""

    def __init__(self, name: str, folder: Path, store: str, off: str = '"api", "api_slow", "memory", "disk"') -> None:
        self.name, self.told, self.leads, self.shown = name, list[Event](), False, GOOD
        self.trouble: str | None = None
        self.trusts, self.given = self, threading.Event()
        self.given.set()
        self.facts: dict[str, Any] | None = {"started_at": "x", "workers": [], "reload": {"error": None}}
        folder = folder / name
        (folder / "state").mkdir(parents=True)
        self.file = folder / "fanoutd.toml"
        self.file.write_text(
            f'[store]\nurl = "{store}"\n[account.main]\napp_id = "wx1"\napp_secret = "s"\napi_base = '
            '"http://127.0.0.1:9"\n[message.m]\n[message.m.custom]\nmsgtype = "text"\ntext.content = "x"\n'
            f'[schedule]\nhealth_check = "1s"\n[health]\nstore_latency = "30s"\noff = [{off}]\n'
        )
        self.file.chmod(0o600)
        self.config: Config = load(self.file)
        Spool(self.config.daemon.state_dir / "spool").prepare()
        self.dispatcher()

    def dispatcher(self) -> None:
        """A new one."""
        node = self

        class Plays:
            """Facts, trust, cluster and refresher, as far as health asks them."""

            given = node.given
            why_not_yet = property(lambda _: node.trouble)
            leads = property(lambda _: node.leads)

            def ask(self) -> dict[str, Any] | None:
                return node.facts

            def shown(self, _db: object, _name: str) -> dict[str, Any]:
                return node.shown

        plays: Any = Plays()
        self.health = Health(
            self.config, self.name, plays, Board(1), Spool(self.config.daemon.state_dir / "spool"), plays, plays, plays,
            Figures, self.told.append,
        )  # fmt: skip
        self.health._patience = 20.0  # whatever this machine has to do meanwhile

    def look(self, times: int = 1) -> list[str]:
        """The subjects of what was told meanwhile."""
        before = len(self.told)
        for _ in range(times):
            self.health.look()
            if self.leads and self.health._cluster_turn._thread is not None:
                self.health._cluster_turn._thread.join(30)
        return [each.subject for each in self.told[before:]]

    def state(self, name: str) -> str | None:
        return next((each["state"] for each in self.health.view() if each["name"] == name), None)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store that other machines may use."""
    found = url("mariadb", tmp_path)
    with closing(open_store(found)) as db:
        migrate(db)
    return found


def test_another_leader_goes_on_where_the_one_before_stopped(tmp_path: Path, store: str) -> None:
    a, b = Node("a", tmp_path, store), Node("b", tmp_path, store)
    a.leads = True
    a.shown = b.shown = REFUSED
    assert a.look() == [] and b.look(3) == []
    a.leads, b.leads = False, True
    assert b.look() == ["ALERT: account main: no good access token"]
    assert "40164" in b.told[0].text and "Node b, " in b.told[0].text
    assert a.look(3) == [] and a.state("token") == "broken" == b.state("token")
    b.leads, a.leads = False, True
    a.dispatcher()
    assert a.look(3) == []
    a.shown = b.shown = GOOD
    assert a.look() == []
    a.leads, b.leads = False, True
    [clear] = b.look(2)
    assert clear.startswith("all clear: account main: the access token is good again, after ")
    assert a.look(2) == [] and a.state("token") == "ok"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_told_is_known_to_the_next_dispatcher(tmp_path: Path, kind: str) -> None:
    found = url(kind, tmp_path)
    with closing(open_store(found)) as db:
        migrate(db)
    node = Node("a", tmp_path, found)
    node.leads = True
    assert node.health.view() == []
    assert node.facts is not None
    node.facts["reload"] = {"error": "fanoutd.toml: no"}
    assert node.look() == ["ALERT: the last reload was refused"]
    node.dispatcher()
    assert [(each["name"], each["state"]) for each in node.health.view()] == [("reload", "broken")]
    assert node.health.view()[0]["words"] == "the last reload was refused: fanoutd.toml: no"
    assert node.look(5) == []
    node.facts = None  # the master says nothing now: who knows
    assert node.look(2) == [] and node.state("reload") == "broken" and node.state("workers") == "unknown"
    assert {node.state(name) for name in ("disk", "memory", "api", "api_slow")} == {None}
    node.facts = {"started_at": "x", "workers": [], "reload": {"error": None}}
    assert len(node.look()) == 1 and node.told[-1].subject.startswith("all clear: a reload went well again, after ")


def test_a_store_that_hangs_is_found_out_in_time_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = url("sqlite", tmp_path)
    with closing(open_store(found)) as db:
        migrate(db)
    node = Node("a", tmp_path, found)
    node.leads = True
    node.look()
    goes_on, opened = threading.Event(), []

    def hangs(_url: str) -> Any:
        opened.append(1)
        goes_on.wait(60)
        raise StoreAway("store db: gone")

    monkeypatch.setattr(module, "open_store", hangs)
    node.health._patience = 1.5
    began = time.monotonic()
    assert node.look(2) == ["ALERT: the store cannot be used"]
    assert time.monotonic() - began < 15 and opened == [1]
    assert "given no answer for" in node.told[0].text and node.health.store_trouble
    assert node.state("spool") == "unknown" and node.state("store_slow") == "unknown"
    goes_on.set()
    node.health._patience = 20.0
    assert node.look(3) == [] and node.health.store_trouble == "store db: gone"
    monkeypatch.setattr(module, "open_store", open_store)
    assert node.look(2)[0].startswith("all clear: the store can be used again, after ")
    assert node.health.store_trouble is None


def test_a_store_that_may_not_be_used_is_as_bad_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    found = url("sqlite", tmp_path)
    node = Node("a", tmp_path, found)
    node.leads, node.trouble = True, "node 'a' of the store has another secret"
    node.given.clear()
    assert node.look(2) == ["ALERT: the store cannot be used"] and "another secret" in node.told[0].text
    with closing(open_store(found)) as db:
        assert db.tables() == set()
        migrate(db)
    node.trouble = None
    node.given.set()
    assert node.look(2)[0].startswith("all clear: the store")
    with closing(open_store(found)) as db:
        assert not Memory.decode(measure_store.read_memory(db)).seen[Key("token", "main")].broken


def test_a_state_directory_without_room_is_told_of_and_not_ten_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = url("sqlite", tmp_path)
    with closing(open_store(found)) as db:
        migrate(db)
    node = Node("a", tmp_path, found)
    (node.config.daemon.state_dir / "health.new").mkdir()  # nothing can be written in its place
    node.facts = {"started_at": "x", "workers": [], "reload": {"error": "no"}}
    assert node.look(3) == ["ALERT: the last reload was refused"]
    assert caplog.text.count("the next dispatcher may tell again") == 1
    (node.config.daemon.state_dir / "health.new").rmdir()
    assert node.look() == []
    node.dispatcher()
    assert node.look(3) == []


def test_a_look_finds_what_it_can_when_the_disk_or_the_descriptors_are_in_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = url("sqlite", tmp_path)
    with closing(open_store(found)) as db:
        migrate(db)
    node = Node("a", tmp_path, found)

    def fails(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    for name in ("pending", "ages"):
        monkeypatch.setattr(Spool, name, fails)
    monkeypatch.setattr(node.health._recent, "look", fails)
    assert node.look(3) == []
    assert (node.state("store"), node.state("spool"), node.state("api_errors")) == ("ok", "unknown", "ok")


def test_a_worker_whose_outcomes_cannot_be_recorded_shows_since_when(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        bench.campaign(500)
        worker = bench.work()
        wait_for(lambda: bench.accepted(), "the first message")
        with closing(open_store(bench.config.store_url)) as other, other.transaction():  # nobody else can write now
            late = wait_for(lambda: worker.board.late(), "late records")
            assert list(late) == [worker.pid] and 0 <= time.monotonic() - late[worker.pid] < 20
            rows = [{"slot": 1, "role": "worker", "pid": worker.pid}]
            wait_for(lambda: measure.records_late(worker.board.late(), rows, 0.2).bad, "a finding")
        wait_for(lambda: not bench.counts().pending, "the end")
        wait_for(lambda: worker.board.late() == {}, "nothing late")
    finally:
        bench.close()
