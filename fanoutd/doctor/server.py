"""A store on a server of MySQL's protocol: reachable, of a version that we know, ours to write, with room for us."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator

from fanoutd.config import Config, mysql_url
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.errors import BadConfig
from fanoutd.store import Database, StoreAway, meta, nodes, open_store, schema

#: The oldest servers whose SQL is enough, by what their version has in it.
_OLDEST = {"MariaDB": (10, 4), "MySQL": (5, 7)}

#: Milliseconds for a question and its answer beyond which many small questions are felt.
_SLOW = 100.0
_QUESTIONS = 5

#: Connections of a node beside its workers': the dispatcher's threads, and as many again while a new generation begins.
_BESIDE = 20

#: Seconds by which this machine's clock may differ from the server's.
_APART = 1.0

#: What the daemon does in its database every day; CREATE and the like only when a new version changes the tables.
_GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON {}.* TO its user"


#: ER_BINLOG_STMT_MODE_AND_ROW_ENGINE, as it stands in the words of an error.
_STATEMENT_LOG = "(1665)"


def server(config: Config) -> Iterator[Finding]:
    try:
        db = open_store(config.store_url)
    except StoreAway as e:
        yield fail("store", str(e).removeprefix("store "), "look at [store] url, at the network and at the server")
        return
    name = mysql_url.parse(config.store_url).database
    with db.closing():
        for look in (_version, _latency, _clock, _tables, _encryption, _writing, _connections):
            try:
                yield from look(db, config)
            except StoreAway as e:
                words = str(e).removeprefix("store ")
                yield fail("store", words, f"see what the server's log says; {_GRANT.format(name)}")


def _variables(db: Database, kind: str, *names: str) -> dict[str, str]:
    wanted = ", ".join(f"'{name}'" for name in names)
    return {name.lower(): str(value) for name, value in db.rows(f"SHOW {kind} WHERE Variable_name IN ({wanted})")}


def _version(db: Database, _config: Config) -> Iterator[Finding]:
    said = str(db.rows("SELECT VERSION()")[0][0])
    kind = "MariaDB" if "mariadb" in said.lower() else "MySQL"
    # Replication had MariaDB call itself 5.5.5-10.…
    number = re.match(r"(\d+)\.(\d+)", said.removeprefix("5.5.5-"))
    if number is None or tuple(map(int, number.groups())) < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        yield fail("store", f"{db.place} is {kind} {said}", f"use {kind} {oldest} or later")
    else:
        yield ok("store", f"{db.place} is {kind} {said}")


def _latency(db: Database, _config: Config) -> Iterator[Finding]:
    times = []
    for _ in range(_QUESTIONS):
        began = time.perf_counter()
        db.rows("SELECT 1")
        times.append((time.perf_counter() - began) * 1000)
    words = f"answers in {statistics.median(times):.1f} ms"
    if statistics.median(times) > _SLOW:
        yield warn("store", words, "use a server that is nearer: every window waits for it twice")
    else:
        yield ok("store", words)


def _clock(db: Database, _config: Config) -> Iterator[Finding]:
    before = time.time()
    shown = db.now_ms() / 1000
    apart = abs(shown - (before + time.time()) / 2)
    if apart > _APART:
        yield warn("clock", f"{apart:.1f} s from the store's, which counts for all nodes", "run an NTP client on both")
    else:
        yield ok("clock", f"{apart * 1000:.0f} ms from the store's")


def _tables(db: Database, config: Config) -> Iterator[Finding]:
    if not db.has_table("fanout_meta"):
        yield from _may_create(db, config)
        return
    try:
        version = schema.version(db)
        moved = meta.read(db, schema.MOVED)
    except BadConfig as e:
        yield fail("store", str(e).removeprefix("store "), "`fanoutd migrate` again")
        return
    if moved is not None:
        yield fail("store", f"it was moved to {moved}", "put that into [store] url, or `fanoutd migrate --undo`")
    if version > schema.VERSION:
        yield fail("store", "a newer fanoutd has used it", "install that version")
    elif version < schema.VERSION:
        yield from _may_create(db, config)
    else:
        yield ok("store", f"tables of version {version} of {schema.VERSION}")
    engines = db.rows(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND SUBSTRING(table_name, 1, 7) = 'fanout_' AND engine <> 'InnoDB'"
    )
    for name, engine in engines:
        mend = f"stop the daemon; ALTER TABLE {name} ENGINE=InnoDB"
        yield fail("store", f"{name} is kept by {engine}, which knows no transactions", mend)


def _may_create(db: Database, config: Config) -> Iterator[Finding]:
    """As far as the server tells: grants that come by a role are not seen."""
    rows = db.rows(
        "SELECT privilege_type FROM information_schema.user_privileges UNION "
        "SELECT privilege_type FROM information_schema.schema_privileges WHERE DATABASE() LIKE table_schema"
    )
    missing = {"CREATE", "ALTER", "INDEX"} - {row[0] for row in rows}
    words = f"`fanoutd serve` makes the tables of version {schema.VERSION}"
    if missing:
        mend = _GRANT.format(mysql_url.parse(config.store_url).database)
        yield warn("store", f"{words}; its user has no {', '.join(sorted(missing))} that shows", mend)
    else:
        yield ok("store", words)


def _encryption(db: Database, config: Config) -> Iterator[Finding]:
    target = mysql_url.parse(config.store_url)
    if _variables(db, "SESSION STATUS", "Ssl_cipher").get("ssl_cipher"):
        yield ok("store", "the connection is encrypted")
    elif target.socket is None and target.host not in ("localhost", "127.0.0.1", "::1"):
        yield warn("store", "openids cross the network as they are", "add ?ssl_ca=FILE to [store] url")


class _Undone(Exception):
    pass


def _writing(db: Database, config: Config) -> Iterator[Finding]:
    """Rows are made, changed and removed, and none of it kept."""
    if not db.has_table("fanout_meta"):
        return
    try:
        with db.transaction():
            meta.write(db, "doctor", "1")
            meta.write(db, "doctor", "2")
            db.execute("DELETE FROM fanout_meta WHERE name = 'doctor'")
            raise _Undone
    except _Undone:
        yield ok("store", "may be written")
    except StoreAway as e:
        said = str(e).removeprefix("store ")
        by_statement = "binlog_format must be ROW or MIXED for READ COMMITTED"
        mend = by_statement if _STATEMENT_LOG in said else _GRANT.format(mysql_url.parse(config.store_url).database)
        yield fail("store", f"cannot be written: {said}", mend)


def _connections(db: Database, config: Config) -> Iterator[Finding]:
    limits = _variables(db, "GLOBAL VARIABLES", "max_connections", "max_user_connections")
    most = min(number for number in map(int, limits.values()) if number)
    others = len(nodes.living(db)) if db.has_table("fanout_node") else 0
    count = max(1, others)
    need = count * (config.workers.count + _BESIDE)
    words = f"{need} connections for {count} node{'s' * (count > 1)} at most, the server allows {most}"
    if need > most:
        yield fail("store", words, "raise max_connections, or lower workers.count")
    else:
        yield ok("store", words)

