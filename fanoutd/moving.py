"""A stopped daemon's store into another database: ``fanoutd migrate``.

What the journals know is settled in the store that they belong to, then all of it is copied. The spool and the journals
stay where they are: the store's numbers, which they name, are the same in the copy, and so is its lineage, by which the
node knows it again (``dispatcher/epoch.py``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fanoutd import identity
from fanoutd.config import Config, sqlite_path
from fanoutd.dispatcher.epoch import Epoch
from fanoutd.dispatcher.recovery import recover
from fanoutd.errors import NotNow, NotPermitted, Unreachable
from fanoutd.figures_file import Meter, folder_of
from fanoutd.master import lock, privileges
from fanoutd.master.lock import Lock
from fanoutd.store import Database, history, meta, nodes, open_store, schema
from fanoutd.store.copying import Progress, copy, refuse_used


@dataclass(frozen=True, slots=True)
class Moved:
    """``source`` and ``target`` are places, without passwords; ``tables`` says how many rows of each were copied."""

    source: str
    target: str
    tables: dict[str, int]
    seconds: float


def move(config: Config, url: str, progress: Progress = lambda _table, _rows: None) -> Moved:
    """Copy the store of this configuration, whose daemon is stopped, to ``url``.

    The process becomes the daemon's user for good. Raises NotNow beside a daemon, or for a target that is in use;
    StoreAway, Unreachable, NotPermitted, BadConfig.
    """
    began = time.monotonic()
    source = sqlite_path(config.store_url)
    if source is not None and not source.exists():
        raise Unreachable(f"store {source}: is not there, and so there is nothing to move; only change [store] url")
    with _instead_of_the_daemon(config), ExitStack() as held:
        new = open_store(url)
        held.enter_context(new.closing())
        refuse_used(new)
        old = open_store(config.store_url)
        held.enter_context(old.closing())
        if not old.has_table("fanout_meta"):
            raise Unreachable(f"store {old.place}: no daemon has used it, and so there is nothing to move")
        _settle(config, old)
        copied = copy(old, new, progress)
        meta.write(old, schema.MOVED, new.place)
        return Moved(old.place, new.place, copied, time.monotonic() - began)


def undo(config: Config) -> str | None:
    """Let the store of this configuration be used again though it was moved; where to, None: it was not.

    Raises as ``move`` does.
    """
    path = sqlite_path(config.store_url)
    if path is not None and not path.exists():
        raise Unreachable(f"store {path}: is not there")
    with _instead_of_the_daemon(config), ExitStack() as held:
        db = open_store(config.store_url)
        held.enter_context(db.closing())
        moved = meta.read(db, schema.MOVED) if db.has_table("fanout_meta") else None
        if moved is not None:
            db.execute("DELETE FROM fanout_meta WHERE name = %s", schema.MOVED)
        return moved


@contextmanager
def _instead_of_the_daemon(config: Config) -> Iterator[None]:
    """As its user, with its locks: none can start meanwhile."""
    privileges.limit_process()
    folders = [(config.daemon.state_dir, 0o700), (config.daemon.pidfile.parent, 0o755)]
    privileges.drop(config, folders, None)
    with ExitStack() as held:
        for path, (folder, mode) in zip(lock.files(config.daemon), reversed(folders), strict=True):
            try:
                privileges.make_folder(folder, mode)
            except OSError as e:
                raise NotPermitted(f"{folder}: {e.strerror}; run it as root or as the daemon's user") from None
            taken = Lock(path)
            held.callback(taken.close, unlink=True)
        yield


def _settle(config: Config, db: Database) -> None:
    """Write down what the journals of dead workers know. Raises NotNow while that cannot be done."""
    schema.migrate(db)
    state_dir = config.daemon.state_dir
    node = identity.of(state_dir, db.shared)
    history.speak_for(node.node)
    epoch = Epoch(state_dir, node.node, config.store_url)
    journals = state_dir / "journals"
    if node.copied or epoch.went_back(db) or epoch.journals_know_more(db, journals):
        raise NotNow(
            f"store {db.place}: was put back to an earlier state, or the state directory is a copy; start the daemon "
            "once, which stops what might be sent twice, and repair those campaigns"
        )
    others = [each.node for each in nodes.living(db) if each.node != node.node]
    if others:
        raise NotNow(f"store {db.place}: is in use by {', '.join(others)}; stop every node's daemon first")
    _recover(config, db, journals, node.node)
    epoch.advance(db)  # the store has a lineage, if it had none, and the state directory knows it


def _recover(config: Config, db: Database, journals: Path, node: str) -> None:
    def at_any_risk(account: str) -> bool:
        found = config.accounts.get(account)
        return found is not None and found.on_unknown == "resend"

    meter = Meter(folder_of(config.daemon.state_dir), "dispatcher")
    deadline = time.monotonic() + config.workers.graceful_timeout
    while alive := recover(db, journals, node, at_any_risk, meter.ended):
        if time.monotonic() > deadline:
            raise NotNow(f"{alive} workers of a daemon that was killed still finish; try again when they have ended")
        time.sleep(0.1)
    meter.close()
