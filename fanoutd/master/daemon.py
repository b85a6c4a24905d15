"""From a configuration to a running master, and back to nothing left."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fanoutd import __version__, log
from fanoutd.config import Config, sqlite_path
from fanoutd.errors import BadConfig, NotPermitted
from fanoutd.master import forking, lock
from fanoutd.master.children import ENTRIES
from fanoutd.master.intake import allowed_uids
from fanoutd.master.listener import Listener
from fanoutd.master.lock import Lock
from fanoutd.master.master import Master
from fanoutd.master.signals import Signals
from fanoutd.spool import Spool

_log = logging.getLogger(__name__)


def run(config: Config, entries: Mapping[str, str] = ENTRIES) -> int:
    """See ``fanoutd.master.serve``. ``entries``: the modules that children run, by role."""
    if sqlite_path(config.store_url) is None:
        raise BadConfig(f"{config.path}: [store] url: this version keeps its store in SQLite only; leave url out")
    _open_standard_streams()
    uids = allowed_uids(config.daemon)
    node = os.uname().nodename
    with ExitStack() as held:
        signals = Signals()  # first: a stop that comes early must undo what follows
        held.callback(signals.close)
        for folder, mode in _folders(config):
            _make(folder, mode)
        locks = [held.enter_context(_locked(path)) for path in lock.files(config.daemon)]
        log.set_up(config.daemon.log_file, config.daemon.log_format, config.secrets())
        spool = _spool(config)
        forking.warm_up()
        listener = Listener(config.daemon.socket, config.daemon.socket_mode)
        held.callback(listener.close)
        master = Master(config, node, entries, uids, locks, signals, listener, spool)
        held.callback(master.close)
        for each in locks:
            each.write_pid()
        _log.info("fanoutd %s started node=%s socket=%s", __version__, node, config.daemon.socket)
        code = master.run()
    _log.info("stopped exit code %d", code)
    return code


def _folders(config: Config) -> list[tuple[Path, int]]:
    daemon = config.daemon
    return [(daemon.state_dir, 0o700), (daemon.pidfile.parent, 0o755), (daemon.socket.parent, 0o755)]


def _make(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as e:
        raise NotPermitted(f"{folder}: {e.strerror}; choose a folder that you may write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotPermitted(f"{folder}: may not be written; choose another, or run as its owner")


@contextmanager
def _locked(path: Path) -> Iterator[Lock]:
    """Locked while the daemon lives; its file goes with it."""
    held = Lock(path)
    try:
        yield held
    finally:
        held.close(unlink=True)


def _spool(config: Config) -> Spool:
    spool = Spool(config.daemon.state_dir / "spool")
    try:
        spool.prepare()
    except OSError as e:
        raise NotPermitted(f"{spool.path}: {e.strerror}; its files must be the daemon's own") from None
    return spool


def _open_standard_streams() -> None:
    """A descriptor of ours must never get the number of a closed stdin, stdout or stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
