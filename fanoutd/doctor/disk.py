"""The state directory: whose it is, what it lies on, how fast it is, and how much room there is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import resource
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fanoutd.config import Config, sqlite_path
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.promise import EXACT, file_system, promise
from fanoutd.store import StoreAway, open_store

_FSYNCS = 20
#: Milliseconds for one fsync beyond which a window's claim is felt.
_SLOW = 50.0
_LITTLE_ROOM, _NO_ROOM = 256 << 20, 16 << 20


def state_dir(config: Config) -> Iterator[Finding]:
    folder = config.daemon.state_dir
    if not folder.is_dir():
        yield warn("state directory", f"{folder} is not there yet", "`fanoutd serve` makes it, if it may")
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    owner = _name(folder.stat().st_uid)
    if mode & 0o007:
        yield fail("state directory", f"{folder} is open to everybody ({mode:04o})", f"chmod 700 {folder}")
    wanted = config.daemon.user
    if wanted is not None and owner != wanted:
        yield fail("state directory", f"{folder} belongs to {owner}, not to {wanted}", f"chown -R {wanted} {folder}")
    open_ones = [path for path in _private(folder) if stat.S_IMODE(path.stat().st_mode) & 0o007]
    for path in open_ones:
        yield fail("state directory", f"{path} may be read by everybody; openids are in it", f"chmod o= {path}")


def in_force(config: Config) -> Iterator[Finding]:
    """The promise that disk and store together can keep."""
    folder = config.daemon.state_dir
    if not folder.is_dir():
        return
    kept, mend = promise(folder, sqlite_path(config.store_url)), "[daemon] state_dir: choose a folder on a local disk"
    if kept == EXACT and sqlite_path(config.store_url) is None:
        try:
            db = open_store(config.store_url)
        except StoreAway:
            return  # that is said already, and what it would keep cannot be
        with db.closing():
            kept, mend = promise(folder, None, db.durability()), "set it as docs/mysql.md says"
    if kept == EXACT:
        yield ok("promise", f"exact: {folder} is on {file_system(folder) or 'an unknown file system'}")
    else:
        yield warn("promise", kept, mend)


def _private(folder: Path) -> Iterator[Path]:
    for name in ("spool", "journals", "rate", "fanoutd.db"):
        if (folder / name).exists():
            yield folder / name


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def fsync(config: Config) -> Iterator[Finding]:
    """What a submission waits for before it is answered."""
    folder = config.daemon.state_dir
    if not folder.is_dir():
        return
    try:
        times = list(_fsync_times(folder))
    except OSError as e:
        yield fail("fsync", f"{folder}: {e.strerror}", "run doctor as root or as the daemon's user; make room")
        return
    median, worst = statistics.median(times), max(times)
    words = f"{median:.1f} ms in the middle, {worst:.1f} ms at worst, of {_FSYNCS}"
    if median > _SLOW:
        yield warn("fsync", words, "a submission waits so long; put state_dir on a faster disk")
    else:
        yield ok("fsync", words)


def _fsync_times(folder: Path) -> Iterator[float]:
    """Milliseconds each; the file is locked too, as journals are."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in range(_FSYNCS):
            file.write(bytes(512))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            yield (time.perf_counter() - began) * 1000


def room(config: Config) -> Iterator[Finding]:
    folder = next(each for each in (config.daemon.state_dir, *config.daemon.state_dir.parents) if each.is_dir())
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    words = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if disk.f_files and disk.f_favail < 100:
        yield fail("room", f"{disk.f_favail} inodes left at {folder}", "remove files; each submission is one")
    if free < _NO_ROOM:
        yield fail("room", words, "make room: nobody is sent to while a journal cannot grow")
    elif free < _LITTLE_ROOM:
        yield warn("room", words, "make room: a million messages leave about 100 MiB of journals, for two days")
    else:
        yield ok("room", words)


def limits(config: Config) -> Iterator[Finding]:
    """The daemon raises the soft limit to the hard one; a worker needs two descriptors a request at most."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max(config.workers.concurrency + 64, 8 * config.workers.count + 128)
    if hard != resource.RLIM_INFINITY and hard < need:
        words = f"{hard} descriptors a process, {need} are needed"
        yield fail("limits", words, "raise `ulimit -Hn`, or LimitNOFILE= in the unit")
    else:
        yield ok("limits", f"{'no limit of' if hard == resource.RLIM_INFINITY else hard} descriptors a process")
    with contextlib.suppress(OSError, ValueError):
        available = _available_memory()
        wanted = config.workers.count * config.workers.max_memory
        if wanted > available:
            yield warn(
                "limits", f"{config.workers.count} workers of {config.workers.max_memory >> 20} MiB at most; "
                f"{available >> 20} MiB are available", "lower workers.count or workers.max_memory",
            )  # fmt: skip


def _available_memory() -> int:
    """Bytes (proc(5), /proc/meminfo)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError
