"""Looking at the daemon from outside: its locks, its socket. Nothing is changed, nothing waited for without an end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fanoutd.checking.verdict import Observed, patience
from fanoutd.client import Client, ClientError, NotPermitted, Unreachable
from fanoutd.config import Daemon
from fanoutd.master import lock
from fanoutd.times import local_ms

#: Seconds between two looks, and until the last of them.
_AGAIN, _WHOLE = 0.2, 50.0
#: Seconds for which a figure is waited for that no verdict depends on, and campaigns that it is made of.
_FIGURE, _MOST = 2.0, 1000
#: Where systemd runs this host (sd_booted(3)).
_SYSTEMD = Path("/run/systemd/system")


def supervised() -> bool:
    """Whether systemd starts what died here. It may also listen on the socket itself: to connect would be to start."""
    return _SYSTEMD.is_dir()


def look(daemon: Daemon, timeout: float, fresh: bool = False, graceful: float = 0.0) -> Observed:
    """What is seen when it does not pass by itself any more (``patience``); an answer may take ``timeout`` seconds."""
    began = since = time.monotonic()
    last: tuple[bool | None, bool] | None = None
    while True:
        seen = glance(daemon, timeout)
        now, kind = time.monotonic(), (seen.alive, seen.status is None)
        if kind != last:  # one that has just stopped may be started again: that takes its own time
            last, since = kind, now
        if now >= min(since + patience(seen, fresh, supervised(), graceful), began + _WHOLE):
            return seen
        time.sleep(_AGAIN)


def glance(daemon: Daemon, timeout: float) -> Observed:
    """At this moment."""
    alive, pid, pidfile = _locks(daemon)
    facts: dict[str, Any] = {"alive": alive, "pid": pid, "pidfile": pidfile, "at_ms": local_ms()}
    if alive is False and supervised():
        return Observed(**facts, silence="nobody runs")
    began = time.monotonic()
    try:
        return Observed(**facts, **_asked(daemon, timeout))
    except (PermissionError, NotPermitted) as e:
        words = f"{daemon.socket}: you may not use this socket; see allow_users, or ask as root or as the daemon's user"
        return Observed(**facts, denied=True, silence=words if isinstance(e, PermissionError) else f"{words} ({e})")
    except (Unreachable, ClientError, OSError) as e:
        # Whoever answers strangely is alive, whatever the locks may say.
        heard = isinstance(e, ClientError)
        frozen = alive is not False and pid is not None and _frozen(pid)
        waited = time.monotonic() - began >= timeout
        return Observed(**{**facts, "alive": alive or heard}, silence=str(e), frozen=frozen, waited=waited)


def _locks(daemon: Daemon) -> tuple[bool | None, int | None, bool]:
    """(whether one is held, the pid that the pidfile bears, whether that is there); None: we may not look."""
    held: set[bool | None] = set()
    for path in lock.files(daemon):
        try:
            held.add(lock.is_held(path))
        except OSError:
            held.add(None)
    alive = True if True in held else None if None in held else False
    bears = (pid for path in lock.files(daemon) if (pid := lock.pid_in(path)) is not None)
    return alive, next(bears, None), _there(daemon.pidfile)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _asked(daemon: Daemon, timeout: float) -> dict[str, Any]:
    """Raises Unreachable, ClientError, OSError."""
    began = time.perf_counter()
    with Client(daemon.socket, timeout) as client:
        client.call("daemon.ping")
        took = (time.perf_counter() - began) * 1000
        status = client.call("daemon.status")
        if not isinstance(status, dict) or not isinstance(status.get("started_at"), str):
            raise Unreachable(f"what listens on {daemon.socket} does not speak as a daemon does")
    return {
        "status": status, "response_ms": round(took, 2), "pending": _pending(daemon, status, timeout),
        "started_ms": _ms(status["started_at"]),
    }  # fmt: skip


def _pending(daemon: Daemon, status: Mapping[str, Any], timeout: float) -> int | None:
    """People of running campaigns who wait. Whoever has told how he is, is not down because the store is slow to tell
    this: then it is not known."""
    if not status["store"]["ok"]:
        return None  # it would only be waited for
    try:
        with Client(daemon.socket, min(timeout, _FIGURE)) as client:
            running = client.call("campaign.list", state="running", limit=_MOST)["campaigns"]
    except (OSError, ClientError):
        return None
    waiting: int = sum(each["counts"]["pending"] for each in running)
    return waiting


def _ms(text: str) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None


def _frozen(pid: int) -> bool:
    """Whether a signal stopped the process: state T in proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["T"]
