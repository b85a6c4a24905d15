"""A store, a sandbox and worker processes without a master: campaigns made by hand."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fanoutd.board import Board
from fanoutd.bucket import Bucket, bucket_path
from fanoutd.child import Child
from fanoutd.config import Config, load
from fanoutd.dispatcher.recovery import recover
from fanoutd.dispatcher.refresher import fetch
from fanoutd.lines import LineBuffer, encode
from fanoutd.store import Database, StoreAway, campaigns, counters, open_store, shards, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms
from support.sandbox import SandboxProcess

CONFIG = """
[store]
url = "{store}"
[workers]
count = 1
concurrency = {concurrency}
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
api_base = "{url}"
rate = {rate}
keepalive = "{keepalive}"
timeout = "{timeout}"
max_failures = 1
[message.supply]
channels = ["custom", "template"]
[message.supply.custom]
msgtype = "text"
text.content = "{{content}}"
[message.supply.template]
template_id = "TPL"
data.thing1.value = "{{content}}"
[audience.default]
query = "SELECT openid FROM people"
"""


def person(i: int) -> str:
    return f"oTEST{i:023d}"


def wait_for(test: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """What ``test`` gives once it is true; fails after the deadline."""
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.005)
    return found


def stop_between_writes(pid: int, url: str) -> None:
    """SIGSTOP while the process holds no lock of this store: it would keep others out until it goes on."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: _states(pid) == {"T"}, "all its threads to stop")
        db = open_store(url)
        try:
            db.set_patience(1)
            with db.transaction():
                db.rows(f"SELECT id FROM fanout_shard{db.LOCK}")
            return
        except StoreAway:
            os.kill(pid, signal.SIGCONT)
        finally:
            db.close()


def _states(pid: int) -> set[str]:
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")}


class WorkerProcess:
    """A forked worker and the master's end of its socket."""

    def __init__(self, config: Config, slot: int = 1) -> None:
        self.sock, theirs = socket.socketpair()
        self.board = Board(slot + 1)
        self.lines = LineBuffer()
        self.heard: list[dict[str, Any]] = []
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                self.sock.close()
                from fanoutd.worker.main import run

                code = run(Child("worker", slot, 1, config, "node1", theirs, self.board, slot, os.getppid()))
            finally:
                os._exit(code)
        theirs.close()
        self.sock.setblocking(False)

    def say(self, **message: Any) -> None:
        self.sock.send(encode(message))

    def listen(self) -> list[dict[str, Any]]:
        try:
            self.heard += self.lines.messages(self.sock.recv(65536))
        except (BlockingIOError, ConnectionResetError):
            pass
        return self.heard

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def stop(self) -> int:
        self.say(t="stop")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Bench:
    def __init__(self, folder: Path, concurrency: int = 64, rate: float = 100_000, keepalive: str = "5s",
                 timeout: str = "10s", store: str = "sqlite", **sandbox: Any) -> None:  # fmt: skip
        self.folder = folder
        self.sandbox = SandboxProcess(folder / "ledger.jsonl", **sandbox)
        file = folder / "fanoutd.toml"
        values = {"concurrency": concurrency, "rate": rate, "keepalive": keepalive, "timeout": timeout, "store": store}
        file.write_text(CONFIG.format(url=self.sandbox.url, **values))
        file.chmod(0o600)
        self.config = load(file)
        state = self.config.daemon.state_dir
        for each in (state, state / "journals", state / "rate"):
            each.mkdir(mode=0o700, exist_ok=True)
        self.journals = state / "journals"
        self.db: Database = open_store(self.config.store_url)
        migrate(self.db)
        if self.db.shared:  # as the dispatcher does, each second
            path = bucket_path(state, "main")
            assert Bucket(path, rate, shared=True).feed(rate, math.inf)
        self.refresh()
        self.workers: list[WorkerProcess] = []

    def refresh(self) -> None:
        with self.db.transaction():
            tokens.save(self.db, "main", fetch(self.config.accounts["main"]))

    def campaign(self, people: int, name: str = "c-1", shard: int = 100, content: str = "hello") -> str:
        message = self.config.messages["supply"]
        definition = {
            "channels": list(message.channels), "bodies": dict(message.bodies), "too_long": "cut", "variables": [],
            "query": None, "content": content, "phone": None, "data": {}, "page": None, "page_size": 500,
        }  # fmt: skip
        row = Campaign(name, "main", "supply", None, None, None, "running", None, None, wall_ms(), None, wall_ms(),
                       None, True, "node1", "list", definition)  # fmt: skip
        with self.db.transaction():
            campaigns.insert(self.db, row)
            for idx, first in enumerate(range(0, people, shard)):
                chosen = [Planned(person(i)) for i in range(first, min(first + shard, people))]
                shards.add(self.db, name, idx, chosen)
        return name

    def work(self, slot: int = 1) -> WorkerProcess:
        worker = WorkerProcess(self.config, slot)
        self.workers.append(worker)
        worker.say(t="work")
        return worker

    def recover(self) -> int:
        return recover(self.db, self.journals, "node1", lambda _account: False)

    def state(self, campaign: str = "c-1") -> str:
        found = campaigns.get(self.db, campaign)
        assert found is not None
        return found.state

    def counts(self, campaign: str = "c-1") -> counters.Counts:
        return counters.counts(self.db, campaign)

    def rows(self) -> dict[str, tuple[Any, ...]]:
        found = self.db.rows("SELECT openid, state, channel, errcode, attempts, msgid FROM fanout_delivery")
        return {openid: tuple(rest) for openid, *rest in found}

    def accepted(self) -> dict[str, int]:
        times: dict[str, int] = {}
        for row in self.sandbox.ledger_rows():
            times[row["openid"]] = times.get(row["openid"], 0) + 1
        return times

    def close(self) -> None:
        for worker in self.workers:
            worker.sock.close()
            try:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        self.sandbox.close()
