"""A whole installation in a folder: sandbox, audience table, configuration, `fanoutd serve`."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanoutd.client import Client, Unreachable
from fanoutd.demo.audit import Audit, compare, ledger
from support.bench import wait_for
from support.sandbox import SandboxProcess

CONFIG = """
[daemon]
log_file = "fanoutd.log"
[store]
url = "{store}"
[workers]
count = {workers}
concurrency = {concurrency}
graceful_timeout = "10s"
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
api_base = "{url}"
rate = {rate}
{account}
[message.supply]
channels = ["custom", "template"]
[message.supply.custom]
msgtype = "text"
text.content = "{{content}}"
[message.supply.template]
template_id = "TPL"
data.thing1.value = "{{content}}"
data.phone_number2.value = "{{phone}}"
[audience.default]
database = "sqlite:///{folder}/tp.db"
query = "SELECT openid FROM tp_receiver WHERE (expire_time > %(now)s OR send_status = 1) AND receive_status = 1"
"""


def follower(i: int) -> str:
    return f"oFOLLOW{i:021d}"


class Daemon:
    """``sandbox``: one that is shared, whose ledger other daemons fill too; without it one of its own is made.
    ``prefix``: a command to start the daemon by; ``environ``: what it has beside ours."""

    #: More lines for ``[account.main]``.
    ACCOUNT = "max_failures = 1"

    def __init__(self, folder: Path, followers: int = 0, workers: int = 2, concurrency: int = 32, rate: int = 100_000,
                 sandbox: SandboxProcess | None = None, wait: bool = True, prefix: tuple[str, ...] = (),
                 environ: Mapping[str, str] | None = None, store: str = "sqlite", **options: Any) -> None:  # fmt: skip
        self.folder, self.followers, self._prefix, self._environ = folder, followers, prefix, environ
        self.socket = folder / "state" / "fanoutd.sock"
        self._shared = sandbox is not None
        self.sandbox = sandbox or SandboxProcess(folder / "ledger.jsonl", **options)
        self._before = self._ledger() if sandbox else Counter()
        self.config = folder / "fanoutd.toml"
        self.config.write_text(CONFIG.format(
            url=self.sandbox.url, folder=folder, workers=workers, concurrency=concurrency, rate=rate,
            account=self.ACCOUNT, store=store))  # fmt: skip
        self.config.chmod(0o600)
        link = sqlite3.connect(folder / "tp.db")
        with link:
            link.execute(
                "CREATE TABLE tp_receiver (openid TEXT, expire_time TEXT, send_status INT, receive_status INT)"
            )
            link.executemany(
                "INSERT INTO tp_receiver VALUES (?, ?, ?, ?)",
                # half have paid and half are sent to for ever; the last one has opted out
                [(follower(i), "2099-01-01 00:00:00" if i % 2 else "2001-01-01 00:00:00", 1 - i % 2, 1)
                 for i in range(followers)] + [("oOPTEDOUT0000001", "2099-01-01 00:00:00", 1, 0)],
            )  # fmt: skip
        link.close()
        self.process = self.serve(wait)

    def serve(self, wait: bool = True) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "fanoutd", "-c", str(self.config), "serve"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=(self.folder / "stderr").open("ab"), start_new_session=True,
            env=None if self._environ is None else {**os.environ, **self._environ},
        )  # fmt: skip
        if wait:
            wait_for(self.ready, "an answer to ping")
        return self.process

    def ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "stderr").read_text()
        try:
            return bool(self.call("daemon.ping")["pid"] == self.process.pid)
        except Unreachable:
            return False

    def call(self, method: str, **params: Any) -> Any:
        with Client(self.socket) as c:
            return c.call(method, **params)

    def hang_up(self, text: str) -> None:
        """Write a bare object and close without reading, as the seed's client does."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.socket))
            s.sendall(text.encode())

    def campaigns(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("campaign.list")["campaigns"]
        return found

    def until(self, campaign: str, state: str = "done", seconds: float = 40) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            seen: dict[str, Any] = self.call("campaign.get", campaign=campaign)
            return seen if seen["state"] == state else None

        found: dict[str, Any] = wait_for(reached, f"{campaign} {state}", seconds)
        return found

    def workers(self) -> list[dict[str, Any]]:
        return [w for w in self.call("daemon.status")["workers"] if w["role"] == "worker" and w["pid"]]

    def dispatcher(self) -> int:
        pid: int = next(w["pid"] for w in self.call("daemon.status")["workers"] if w["role"] == "dispatcher")
        return pid

    def accepted(self) -> Counter[str]:
        """By person, since this daemon was made."""
        return self._ledger() - self._before

    def _ledger(self) -> Counter[str]:
        return ledger(self.sandbox.ledger) if self.sandbox.ledger.exists() else Counter()

    def rows(self, campaign: str) -> list[dict[str, Any]]:
        with Client(self.socket) as c:
            return list(c.deliveries(campaign))

    def audit(self, campaign: str) -> Audit:
        return compare((follower(i) for i in range(self.followers)), self.rows(campaign), self.accepted())

    def cli(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fanoutd", "-c", str(self.config), *arguments], input=text, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    def kill_all(self) -> None:
        """SIGKILL to the master and every child, as close together as one process can."""
        pids = [self.process.pid, self.dispatcher(), *(w["pid"] for w in self.workers())]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if not self._shared:
            self.sandbox.close()
