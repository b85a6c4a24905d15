"""The store: there, whole, durable, and of our version."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from fanoutd.config import Config, sqlite_path
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.store import schema

#: A check of the whole file takes about a second for so many bytes.
_QUICKLY_CHECKED = 256 << 20

#: What to do about a store that was moved away.
_GO_THERE = "put that into [store] url; if this one is to go on after all: `fanoutd migrate --undo`"


def store(config: Config) -> Iterator[Finding]:
    path = sqlite_path(config.store_url)
    if path is None:
        from fanoutd.doctor.server import server  # other installations need no PyMySQL

        yield from server(config)
    elif not path.exists():
        yield warn("store", f"{path} is not there yet", "`fanoutd serve` makes it")
    else:
        yield from _sqlite(path)


def _sqlite(path: Path) -> Iterator[Finding]:
    began = time.perf_counter()
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as link:
            mode = link.execute("PRAGMA journal_mode").fetchone()[0]
            version = link.execute("SELECT value FROM fanout_meta WHERE name = 'version'").fetchone()
            moved = link.execute("SELECT value FROM fanout_meta WHERE name = ?", (schema.MOVED,)).fetchone()
            took = (time.perf_counter() - began) * 1000
            broken = _broken(link, path)
    except sqlite3.Error as e:
        yield fail("store", f"{path}: {e}", "run doctor as the daemon's user; restore it from a backup if it is broken")
        return
    if broken:
        yield fail("store", f"{path}: {broken}", "stop the daemon and restore the file; then `fanoutd campaign repair`")
    if mode != "wal":
        yield fail("store", f"{path}: journal_mode is {mode}, not wal", "nobody else may open it with other settings")
    if version is None:
        yield fail("store", f"{path}: the tables have no version", "restore it from a backup, or move it away")
    elif int(version[0]) > schema.VERSION:
        yield fail("store", f"{path}: a newer fanoutd has used it", "install that version")
    elif moved is not None:
        yield fail("store", f"{path} was moved to {moved[0]}", _GO_THERE)
    else:
        yield ok("store", f"SQLite, version {version[0]} of {schema.VERSION}, answers in {took:.1f} ms")
    yield _durable(path)


def _broken(link: sqlite3.Connection, path: Path) -> str | None:
    if path.stat().st_size > _QUICKLY_CHECKED:
        return None
    said = link.execute("PRAGMA quick_check(1)").fetchone()[0]
    return None if said == "ok" else str(said)


def _durable(path: Path) -> Finding:
    """Whether this SQLite does what the program asks of each connection."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as link:
        link.execute("PRAGMA synchronous = FULL")
        level = link.execute("PRAGMA synchronous").fetchone()[0]
    if level < 2:
        return fail("durability", f"synchronous is {level}, not FULL", "this SQLite ignores it; use another build")
    return ok("durability", "synchronous FULL: a commit outlives a power cut, if the disk is honest")
