"""From a configuration to a running master, and back to nothing left."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fanoutd import __version__, identity, log
from fanoutd.away.drop import OWN, SHARED
from fanoutd.config import Config, sqlite_path
from fanoutd.errors import NotPermitted
from fanoutd.master import forking, launch, lock, privileges
from fanoutd.master.children import ENTRIES
from fanoutd.master.intake import allowed_uids
from fanoutd.master.launch import Launcher
from fanoutd.master.listener import Listener
from fanoutd.master.lock import Lock
from fanoutd.master.master import Master, Parts
from fanoutd.master.notify import Notify
from fanoutd.master.signals import Signals
from fanoutd.master.takeover import Document, Estate
from fanoutd.spool import Spool

_log = logging.getLogger(__name__)


def run(
    config: Config, entries: Mapping[str, str] = ENTRIES, launcher: Launcher | None = None, estate: Estate | None = None
) -> int:
    """See ``fanoutd.master.serve``. ``entries``: the modules that children run, by role."""
    if estate is not None and estate.rehearsal:
        return 0  # everything is imported, and what we shall be given was understood
    with ExitStack() as held:
        signals = Signals()  # first: a stop that comes early must undo what follows
        held.callback(signals.close)
        left = estate.document if estate else None
        parts = _take_over(config, signals, left, held) if left else _begin(config, signals, held)
        notify = Notify(launcher=launcher)
        held.callback(notify.close)
        forking.warm_up()
        master = Master(config, _node(config), entries, parts, notify)
        held.callback(master.close)
        if left:
            master.inherit(left)
            _log.info("fanoutd %s took over", __version__, extra=log.facts(generation=left["crew"]["generation"]))
        else:
            for each in parts.locks:
                each.write_pid()
            _log.info("fanoutd %s started socket=%s", __version__, parts.listener.path)
        code = master.run()
    _log.info("stopped exit code %d", code)
    return code


def _begin(config: Config, signals: Signals, held: ExitStack) -> Parts:
    launch.open_standard_streams()
    privileges.limit_process()
    given = Listener.activated()
    folders = _folders(config, given)
    gid = None if given else privileges.socket_gid(config)
    warning = privileges.drop(config, folders, gid)
    allowed_uids(config.daemon)
    for folder, mode in folders:
        _make(folder, mode)
    locks = [held.enter_context(_locked(path)) for path in lock.files(config.daemon)]
    _set_up_log(config)
    if warning:
        _log.warning("%s", warning)
    spool = _spool(config)
    _drop_folder(config, gid)
    listener = given or Listener.bound(config.daemon.socket, config.daemon.socket_mode, gid)
    held.callback(listener.close)
    if listener.path != config.daemon.socket:
        _log.warning("listens on %s, as systemd says, not on [daemon] socket, %s", listener.path, config.daemon.socket)
    return Parts(locks, signals, listener, spool)


def _take_over(config: Config, signals: Signals, left: Document, held: ExitStack) -> Parts:
    """What the program before us had open, it has open still."""
    held_by_us = zip(lock.files(config.daemon), left["locks"], strict=True)
    locks = [held.enter_context(_locked(path, each["fd"])) for path, each in held_by_us]
    _set_up_log(config, left["log"]["fd"] if "log" in left else None)
    listener = Listener.inherited(left["listener"])
    held.callback(listener.close)
    return Parts(locks, signals, listener, Spool(config.daemon.state_dir / "spool"), left["board"]["fd"])


def _set_up_log(config: Config, kept: int | None = None) -> None:
    log.set_up(launch.log_file(config.daemon), config.daemon.log_format, config.secrets(), kept)


def _folders(config: Config, given: Listener | None) -> list[tuple[Path, int]]:
    """Those that the daemon writes in: not that of a socket that it did not bind."""
    daemon = config.daemon
    log_file = launch.log_file(daemon)
    shared = [None if given else daemon.socket, daemon.pidfile, log_file]
    own = [daemon.state_dir, *([] if daemon.drop.is_relative_to(daemon.state_dir) else [daemon.drop])]
    return [*((path, 0o700) for path in own), *((path.parent, 0o755) for path in shared if path is not None)]


def _make(folder: Path, mode: int) -> None:
    try:
        privileges.make_folder(folder, mode)
    except OSError as e:
        raise NotPermitted(f"{folder}: {e.strerror}; choose a folder that you may write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        user = privileges.own_name()
        raise NotPermitted(f"{folder}: user {user} may not write there; choose another folder, or give it to {user}")


@contextmanager
def _locked(path: Path, fd: int | None = None) -> Iterator[Lock]:
    """Locked while the daemon lives; its file goes with it."""
    held = Lock(path, fd)
    try:
        yield held
    finally:
        held.close(unlink=True)


def _node(config: Config) -> str:
    try:
        shared = sqlite_path(config.store_url) is None
        return identity.of(config.daemon.state_dir, shared).node
    except OSError as e:
        words = f"{config.daemon.state_dir}: {e.strerror}; the daemon must be able to write there"
        raise NotPermitted(words) from None


def _drop_folder(config: Config, gid: int | None) -> None:
    """One beside the state directory is for those who may use the socket; one that somebody gave a mode keeps it."""
    folder = config.daemon.drop
    try:
        folder.mkdir(mode=OWN, exist_ok=True)
        found = folder.stat()
        if stat.S_IMODE(found.st_mode) == OWN and not folder.is_relative_to(config.daemon.state_dir):
            os.chown(folder, -1, os.getegid() if gid is None else gid)
            folder.chmod(SHARED)
    except OSError as e:
        raise NotPermitted(f"[daemon] drop: {folder}: {e.strerror}; it must be the daemon's own") from None


def _spool(config: Config) -> Spool:
    spool = Spool(config.daemon.state_dir / "spool")
    try:
        spool.prepare()
    except OSError as e:
        raise NotPermitted(f"{spool.path}: {e.strerror}; its files must be the daemon's own") from None
    return spool
