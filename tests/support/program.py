"""The program as its users start it: `fanoutd serve`, in the foreground or in the background, without an API."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fanoutd.client import Client, Unreachable
from fanoutd.config import Config, load
from fanoutd.master import lock
from support.master import alive, until

CONFIG = """
[daemon]
{daemon}
[workers]
count = 1
graceful_timeout = "5s"
[account.main]
app_id = "wx1"
app_secret = "s3cret-of-the-tests"
api_base = "http://127.0.0.1:9"
[message.default]
channels = ["custom"]
[message.default.custom]
msgtype = "text"
text.content = "{{content}}"
[audience.default]
query = "SELECT openid FROM people"
"""


class Program:
    """One configuration and what runs on it.

    ``code`` is a folder with another copy of the package, ``prefix`` what stands before each command.
    """

    def __init__(
        self, folder: Path, daemon: str = "", code: Path | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.prefix = list(prefix)
        self.file = folder / "fanoutd.toml"
        self.configure(daemon)
        self.environment = {**os.environ, "PYTHONPATH": str(code)} if code else dict(os.environ)
        self.processes: list[subprocess.Popen[str]] = []

    def configure(self, daemon: str = "") -> None:
        self.file.write_text(CONFIG.format(daemon=daemon))
        self.file.chmod(0o600)

    @property
    def config(self) -> Config:
        return load(self.file, {})

    @property
    def command(self) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "fanoutd", "-c", str(self.file)]

    def run(self, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """To its end, which for ``serve --daemonize`` is that of the waiting parent."""
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.folder, "env": self.environment, **how}
        return subprocess.run([*self.command, *arguments], text=True, timeout=60, **how)

    def start(self, *arguments: str, before: Sequence[str] = (), **how: Any) -> subprocess.Popen[str]:
        """``before``: what stands before this command alone."""
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        how = {**streams, "cwd": self.folder, "env": self.environment, **how}
        process = subprocess.Popen([*before, *self.command, *(arguments or ("serve",))], text=True, **how)
        self.processes.append(process)
        return process

    def call(self, method: str, **params: Any) -> Any:
        with Client(self.config.daemon.socket) as client:
            return client.call(method, **params)

    def answers(self) -> bool:
        try:
            return bool(self.call("daemon.ping"))
        except Unreachable:
            return False

    def started(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """In the foreground, as soon as all children are ready."""
        process = self.start(*arguments, **how)

        def ready() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}: {process.communicate()[1]}"
            return self.answers() and {row["state"] for row in self.call("daemon.status")["workers"]} == {"idle"}

        until(ready, "all children ready")
        return process

    def pid(self) -> int | None:
        """The living daemon's."""
        found = lock.running(self.config.daemon)
        if found is None:
            return None
        found.close()
        return found.pid

    def pids(self) -> list[int]:
        """The master's and its children's."""
        rows = self.call("daemon.status")["workers"]
        return [self.call("daemon.ping")["pid"], *(row["pid"] for row in rows if row["pid"])]

    def log(self) -> str:
        file = self.config.daemon.log_file or self.config.daemon.state_dir / "fanoutd.log"
        return file.read_text() if file.exists() else ""

    def left(self) -> list[str]:
        """What a daemon must not leave behind."""
        daemon = self.config.daemon
        return [str(path) for path in (daemon.socket, *lock.files(daemon)) if path.exists()]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            pid = self.pid()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                until(lambda: not alive(pid), "its end")
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


@contextlib.contextmanager
def program(
    folder: Path, daemon: str = "", code: Path | None = None, prefix: Sequence[str] = ()
) -> Iterator[Program]:
    """Nothing of it lives afterwards."""
    made = Program(folder, daemon, code, prefix)
    try:
        yield made
    finally:
        made.close()


def status_of(pid: int) -> dict[str, str]:
    """proc(5), /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
