"""A complete installation in one folder: the API's stand-in, a follower table, the daemon."""

from __future__ import annotations

import os
import select
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fanoutd.client import Client, Unreachable
from fanoutd.errors import FanoutdError

#: The share of followers that WeChat would answer so; the rest are reached at once.
FATES = {"no-window": 0.33, "used-up": 0.02, "unfollowed": 0.02, "busy": 0.02}

#: Calls a second, so that the demo takes seconds, not a minute.
RATE = 500

CONFIG = """\
# Written by `fanoutd demo`; everything it needs lies in this folder.
[daemon]
state_dir = "state"
log_file = "fanoutd.log"

[workers]
count = 4

[account.main]
app_id = "wx0000000000000000"
app_secret = "of-the-sandbox"
api_base = "{url}"
rate = {rate}

[message.supply]
channels = ["custom", "template"]
[message.supply.custom]
msgtype = "text"
text.content = \"\"\"{{content}}

回复0取消接收信息，回复1重新接收信息\"\"\"
[message.supply.template]
template_id = "supply-and-demand"
data.thing1.value = "{{content}}"
data.phone_number2.value = "{{phone}}"
data.time3.value = "{{now}}"

[audience.default]
database = "sqlite:///{folder}/followers.db"
query = "SELECT openid FROM tp_receiver WHERE (expire_time > %(now)s OR send_status = 1) AND receive_status = 1"
"""


def openid(number: int) -> str:
    return f"oDEMO{number:023d}"


class Stage:
    """A context: on leaving it the daemon is stopped gracefully, then the sandbox."""

    def __init__(self, folder: Path, followers: int, latency: str) -> None:
        self.folder, self._followers, self._latency = folder, followers, latency
        self.socket = folder / "state" / "fanoutd.sock"
        self.ledger = folder / "ledger.jsonl"
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_up(self) -> None:
        make_followers(self.folder / "followers.db", self._followers)
        config = self.folder / "fanoutd.toml"
        config.write_text(CONFIG.format(url=self._start_sandbox(), rate=RATE, folder=self.folder))
        config.chmod(0o600)
        daemon = self._start(["-c", str(config), "serve"])
        self._until_ready(daemon)

    def _start_sandbox(self) -> str:
        shares = [word for name, share in FATES.items() for word in (f"--{name}", str(share))]
        ledger, latency = str(self.ledger), self._latency
        process = self._start(
            ["sandbox", "--port", "0", "--ledger", ledger, "--latency", latency, "--spread", "0.2", *shares]
        )
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], 15)[0]:
            raise FanoutdError("the sandbox does not start")
        return process.stdout.readline().strip()

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop them in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "fanoutd", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._running.append(process)
        return process

    def _until_ready(self, daemon: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if daemon.poll() is not None:
                assert daemon.stderr is not None
                raise FanoutdError(f"the daemon ended at once: {daemon.stderr.read().strip()[-300:]}")
            try:
                with Client(self.socket) as connection:
                    connection.call("daemon.ping")
                return
            except Unreachable:
                time.sleep(0.02)
        raise FanoutdError(f"the daemon does not answer; see {self.folder}/fanoutd.log")

    def close(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        self._running.clear()


def make_followers(path: Path, count: int) -> None:
    """The table that the installations we replace keep: who has paid for notices, and wants them."""
    path.unlink(missing_ok=True)
    link = sqlite3.connect(path)
    with link:
        link.execute(
            "CREATE TABLE tp_receiver (id INTEGER PRIMARY KEY, openid TEXT, expire_time TEXT, "
            "send_status INTEGER, receive_status INTEGER)"
        )
        link.executemany(
            "INSERT INTO tp_receiver (openid, expire_time, send_status, receive_status) "
            "VALUES (?, '2099-01-01 00:00:00', 0, 1)",
            ((openid(i),) for i in range(count)),
        )
    link.close()
