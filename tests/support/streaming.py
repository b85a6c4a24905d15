"""What planning an audience from a MySQL server costs in memory: the peak of the process that plans, by its size."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from fanoutd.config import load
from fanoutd.dispatcher.planner import Planner
from fanoutd.spool import Spool
from fanoutd.store import campaigns, counters, open_store
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.times import wall_ms
from support.mariadb import server

CONFIG = """
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
[message.supply]
variables = ["name"]
custom.msgtype = "text"
custom.text.content = "{{name}}"
[audience.default]
database = "{url}"
query = "SELECT openid, name FROM people"
"""


def main(*sizes: int) -> None:
    """Print one line for each number of people, planned into a SQLite file and into the server itself."""
    site = server().database()
    name = site.rpartition("/")[2]
    for people in sizes:
        server().say(f"DROP TABLE IF EXISTS {name}.people")
        server().say(f"CREATE TABLE {name}.people (openid VARCHAR(64), name VARCHAR(20)) DEFAULT CHARSET=utf8")
        server().say(f"INSERT INTO {name}.people SELECT CONCAT('o', LPAD(seq, 27, '0')), '张三' "
                     f"FROM {name}.seq_1_to_{people}")  # fmt: skip
        for store in ("sqlite", "mysql"):
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/store.db" if store == "sqlite" else server().database()
                seconds, peak = _measured(Path(folder), site, url, people)
            speed = f"{seconds:6.1f} s {people / seconds:9,.0f} people/s"
            print(f"{people:9,} people into {store:<6} {speed}   peak {peak >> 10} MiB", flush=True)


def _measured(folder: Path, site: str, store: str, people: int) -> tuple[float, int]:
    """Seconds, and the largest resident set in KiB, of a process of its own."""
    (folder / "fanoutd.toml").write_text(CONFIG.format(url=site))
    (folder / "fanoutd.toml").chmod(0o600)
    started, pid = time.perf_counter(), os.fork()
    if not pid:
        code = 1
        try:
            _plan(folder, store, people)
            code = 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, "a plan failed"
    return time.perf_counter() - started, usage.ru_maxrss


def _plan(folder: Path, store: str, people: int) -> None:
    config, db = load(folder / "fanoutd.toml"), open_store(store)
    migrate(db)
    kind, audience = config.messages["supply"], config.audiences["default"]
    definition = {
        "channels": list(kind.channels), "bodies": dict(kind.bodies), "too_long": "cut", "variables": ["name"],
        "query": audience.query, "content": "x", "phone": None, "data": {}, "page": None, "page_size": 500,
    }  # fmt: skip
    row = Campaign("c-1", "main", "supply", "default", None, None, "planning", None, None, wall_ms(), None, None, None,
                   False, "node1", "query", definition)  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
    Planner(config, Spool(folder / "spool"), "node1", lambda _count: None).plan(db, row)
    assert counters.counts(db, "c-1").total == people


if __name__ == "__main__":
    main(*[int(each) for each in sys.argv[1:]] or [200_000, 1_000_000])
