"""A master as a process of its own, with fake children, and a client that speaks to it by hand.

Run as a module it is that process: ``python -m support.master CONFIG``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fanoutd.config import Config, load
from fanoutd.errors import FanoutdError

T = TypeVar("T")

FAKES = {"worker": "worker_code", "dispatcher": "dispatcher_code"}

CONFIG = """
[daemon]
state_dir = "{folder}/state"
socket = "{folder}/f.sock"
pidfile = "{folder}/f.pid"
log_file = "{folder}/f.log"
max_request = "64KiB"
{daemon}
[workers]
count = {count}
graceful_timeout = "{graceful}"
hang_timeout = "{hang}"
[account.main]
app_id = "wx1"
app_secret = "s3cret"
[message.supply]
channels = ["custom", "template"]
variables = ["colour"]
[message.supply.custom]
msgtype = "text"
text.content = "{{content}}"
[message.supply.template]
template_id = "T"
data.thing1.value = "{{content}}"
data.thing2.value = "{{colour}}"
[message.fixed]
channels = ["custom"]
[message.fixed.custom]
msgtype = "text"
text.content = "nothing to fill in"
[audience.default]
query = "SELECT openid FROM people WHERE colour = %(colour)s"
[audience.followers]
source = "subscribers"
[schedule]
token_check = "200ms"
"""


#: A worker's code in a file of its own, to be changed while the daemon runs.
CODE = """from support import fake_worker
def run(child):
    return fake_worker.run(child, campaign="{value}")
{more}
"""


def write_config(folder: Path, daemon: str = "", graceful: str = "5s", hang: str = "60s", count: str = "2") -> Path:
    file = folder / "fanoutd.toml"
    file.write_text(CONFIG.format(folder=folder, daemon=daemon, graceful=graceful, hang=hang, count=count))
    file.chmod(0o600)
    return file


def until(met: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    """What ``met`` gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return found


class Connection:
    """One client connection; ``ask`` matches answers by id."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self._file = self.sock.makefile("rb")
        self._id = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> Any:
        """The next value; None at the end."""
        return json.loads(self._file.readline() or b"null")

    def begin(self, method: str, **params: Any) -> int:
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self.write(json.dumps(request).encode() + b"\n")
        return self._id

    def ask(self, method: str, **params: Any) -> Any:
        """The whole answer."""
        id = self.begin(method, **params)
        while (answer := self.line()) is not None:
            if answer.get("id") == id:
                return answer
        raise AssertionError(f"no answer to {method}")


class MasterProcess:
    """``events`` is what the fake children were told."""

    def __init__(self, folder: Path, worker: str = "", stray: str = "", dispatcher: str = "", **config: str) -> None:
        self.folder = folder
        self.socket = folder / "f.sock"
        self.config_file = write_config(folder, **config)
        self.write_code("c-1")
        self.write_dispatcher(dispatcher)
        self._environment = {
            **os.environ, "FAKE_WORKER": worker, "FAKE_STRAY": stray, "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{folder}:{Path(__file__).parent.parent}",
        }
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "support.master", str(self.config_file)], env=self._environment,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.folder,
        )

    def restart(self) -> None:
        self.process.wait(10)
        self._drain()
        self.process = self.start()

    def write_code(self, value: str, more: str = "") -> None:
        """What workers of the next generation run, and show on the board."""
        (self.folder / "worker_code.py").write_text(CODE.format(value=value, more=more))

    def write_dispatcher(self, more: str = "") -> None:
        """What the dispatcher of the next generation runs: the fake one, or what ``more`` makes of it."""
        (self.folder / "dispatcher_code.py").write_text(f"from support.fake_dispatcher import run\n{more}\n")

    def __enter__(self) -> MasterProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pids = [self.process.pid, *self.children()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self._drain()

    def _drain(self) -> None:
        if self.process.stderr:
            self.process.stderr.close()

    @property
    def config(self) -> Config:
        return load(self.config_file, {})

    def connect(self) -> Connection:
        """As soon as it listens."""
        def try_it() -> Connection | None:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return Connection(self.socket)
            return None

        return until(try_it, "the socket")

    def ask(self, method: str, **params: Any) -> Any:
        with self.connect() as connection:
            return connection.ask(method, **params)

    def result(self, method: str, **params: Any) -> Any:
        answer = self.ask(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def error(self, method: str, **params: Any) -> Any:
        answer = self.ask(method, **params)
        assert "error" in answer, answer
        return answer["error"]

    def status(self) -> Any:
        return self.result("daemon.status")

    def ready(self) -> MasterProcess:
        """Once every child is."""
        until(self._all_ready, "all children ready")
        return self

    def _all_ready(self) -> bool:
        rows = self.status()["workers"]
        workers = sum(row["role"] == "worker" for row in rows)
        return {row["state"] for row in rows} == {"idle"} and workers == self.config.workers.count

    def workers(self) -> list[dict[str, Any]]:
        """Rows of the status, those that live."""
        return [row for row in self.status()["workers"] if row["role"] == "worker" and row["pid"]]

    def mold(self) -> int:
        """The pid of the one in force."""
        rows = [row for row in self.status()["workers"] if row["role"] == "mold" and row["state"] == "idle"]
        return int(rows[-1]["pid"])

    def signal(self, *numbers: int) -> None:
        for number in numbers:
            self.process.send_signal(number)

    def reloaded(self, count: int = 1) -> Any:
        """The status when so many reloads have come to their end."""
        def settled() -> Any:
            status = self.status()
            done = status["reload"]["count"] >= count and status["reload"]["stage"] in ("done", "refused")
            return status if done else None

        return until(settled, f"reload {count} settled", 20)

    def pid_of(self, slot: int) -> int:
        pid: int = self.status()["workers"][slot]["pid"]
        return pid

    def events(self, **like: Any) -> list[dict[str, Any]]:
        """What the children noted, those that agree with ``like``."""
        file = self.folder / "state" / "events"
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if like.items() <= event.items()]

    def log(self) -> str:
        file = self.folder / "f.log"
        return file.read_text() if file.exists() else ""

    def children(self) -> list[int]:
        """Pids, from the kernel."""
        pid = self.process.pid
        try:
            return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            return []

    def spooled(self) -> dict[str, Any]:
        """The documents in the spool, by campaign."""
        files = (self.folder / "state" / "spool" / "new").glob("*")
        return {file.name: json.loads(file.read_text()) for file in files}


@contextlib.contextmanager
def running(folder: Path, **how: str) -> Iterator[MasterProcess]:
    """Ready, and killed afterwards whatever happens."""
    with MasterProcess(folder, **how) as master:
        yield master.ready()


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    from fanoutd.master import takeover
    from fanoutd.master.daemon import run

    if os.environ["FAKE_STRAY"] and not os.fork():
        os._exit(0)  # left unreaped to the master, as by whoever executes it in its place
    estate = takeover.received(os.environ)
    text = takeover.to_bytes(estate.document["config_text"]) if estate else None
    try:
        sys.exit(run(load(Path(sys.argv[1]), {}, text), FAKES, estate=estate))
    except FanoutdError as e:
        print(e, file=sys.stderr)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
