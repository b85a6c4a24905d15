"""A real MariaDB server with a data directory and a port of its own; killed with the process that began it."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pymysql

from support.bench import wait_for

PASSWORD = "a p@ss/word of the tests"
QUOTED = "a%20p%40ss%2Fword%20of%20the%20tests"

_numbers = itertools.count(1)


class MariaDb:
    """``root`` may do everything; ``fanout`` owns the databases that ``database`` makes. ``options``: of mariadbd;
    ``prefix``: a command to start it by."""

    def __init__(
        self, *options: str, folder: Path | None = None, port: int | None = None, prefix: tuple[str, ...] = ()
    ) -> None:
        self._prefix = prefix
        self.folder = folder or Path(tempfile.mkdtemp(prefix="fanoutd-mariadb-"))
        self.port, self._options = port or _free_port(), options
        self._made = folder is None
        if not (self.folder / "data").exists():
            shutil.copytree(_empty(), self.folder / "data")
        self.process = self.start()
        with self.root() as link, link.cursor() as cursor:
            cursor.execute(f"CREATE USER IF NOT EXISTS fanout@'%' IDENTIFIED BY '{PASSWORD}'")
        atexit.register(self.close)

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [*self._prefix, "mariadbd", "--no-defaults",
             f"--datadir={self.folder / 'data'}", f"--socket={self.folder / 'sock'}",
             f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.folder / 'pid'}",
             f"--log-error={self.folder / 'log'}", *(["--user=root"] if os.geteuid() == 0 else []),
             "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--skip-name-resolve", *self._options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(self._answers, "MariaDB", 60)
        return self.process

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            self.root().close()
        except pymysql.MySQLError:
            return False
        return True

    def root(self, **more: Any) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=str(self.folder / "sock"), user="root", autocommit=True, **more)

    def say(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        with self.root() as link, link.cursor() as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def database(self, charset: str = "utf8mb4") -> str:
        """The URL of a new, empty one."""
        name = f"fanout_test_{os.getpid()}_{next(_numbers)}"
        self.say(f"CREATE DATABASE {name} CHARACTER SET {charset}")
        self.say(f"GRANT ALL ON {name}.* TO fanout@'%'")
        return self.url(name)

    def url(self, database: str, port: int | None = None, host: str = "127.0.0.1") -> str:
        return f"mysql://fanout:{QUOTED}@{host}:{port or self.port}/{database}"

    def kill(self) -> None:
        """As a power cut does it to the process: kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        if self._made:
            shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def server() -> MariaDb:
    """The one that this process's tests share: none may restart it or change its settings."""
    return MariaDb()


@functools.cache
def _empty() -> Path:
    """A data directory as it is installed; copied, it saves seconds."""
    folder = Path(tempfile.mkdtemp(prefix="fanoutd-mariadb-empty-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={folder / 'data'}", "--skip-test-db",
         "--auth-root-authentication-method=normal", *(["--user=root"] if os.geteuid() == 0 else []),
         "--innodb-log-file-size=32M"],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(folder)},  # two at once share no file
    )  # fmt: skip
    return folder / "data"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
