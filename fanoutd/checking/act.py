"""``check --mail`` and ``--restart``: one at a time, what is new is told, what died is started."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from fanoutd.checking import command, memory, place
from fanoutd.checking.look import glance, look, supervised
from fanoutd.checking.memory import Memory, Restart
from fanoutd.checking.place import Place
from fanoutd.checking.verdict import DEGRADED, DOWN, OK, STARTING, STATES, UNKNOWN, Observed, Verdict, verdict
from fanoutd.config import Daemon
from fanoutd.errors import FanoutdError, NotPermitted
from fanoutd.mail.event import Event

_FILE, _LOCK = "check.json", "check.lock"
#: Seconds for which another check that acts is waited for.
_WAIT = 30.0
_AGAIN = 0.2

#: Sends one mail; the node's name as far as it is known. Raises FanoutdError.
Post = Callable[[Event, str | None], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do beside looking: ``mail`` what changes, ``down_only`` less than that it is degraded; run ``restart``
    (empty: nothing) when it is down. ``graceful`` is the daemon's graceful_timeout."""

    mail: bool
    restart: tuple[str, ...]
    timeout: float
    graceful: float = 0.0
    down_only: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """``news``: something was started, or is told of. ``warnings`` are for people."""

    verdict: Verdict
    news: bool = False
    warnings: tuple[str, ...] = ()


def check(daemon: Daemon, wish: Wish, post: Post | None) -> Done:
    """``post`` None: there is nobody to mail to. Raises OSError, NotPermitted."""
    if not (wish.mail or wish.restart) or not daemon.state_dir.is_dir():  # where none ever ran nothing is to be done
        return Done(verdict(look(daemon, wish.timeout, graceful=wish.graceful)))
    kept = place.of(daemon.state_dir)
    with kept.locked(_LOCK, _WAIT) as ours:
        if ours:
            return _act(daemon, wish, post, kept)
    found = verdict(look(daemon, wish.timeout, graceful=wish.graceful))
    return Done(replace(found, words=f"{found.words}; another check is at it"))


def _act(daemon: Daemon, wish: Wish, post: Post | None, kept: Place) -> Done:
    before = memory.decode(place.read_newest(kept, _FILE))
    well = before.state in (STATES[OK], STATES[DEGRADED])
    seen = look(daemon, wish.timeout, well and (wish.mail or supervised()), wish.graceful)
    found = verdict(seen)
    restart = None
    if found.code == DOWN and wish.restart:
        if seen.stopped:
            found = replace(found, words=f"{found.words}; what was stopped is not started by this")
        else:
            before = memory.begun(before, seen)
            with suppress(OSError, NotPermitted):  # started it is all the same
                _keep(kept, before)
            restart, seen = _start(daemon, wish, found.line())
            found = verdict(seen)
            if restart.said and found.code == DOWN:
                found = replace(found, words=f"{found.words}; {restart.command} said: {restart.said.splitlines()[-1]}")
    after = memory.step(before, seen, found, wish.mail, restart, wish.down_only)
    if found.code == UNKNOWN or after == before:
        return _tell(kept, after, post, found, news=False)
    try:
        _keep(kept, after)
    except (OSError, NotPermitted) as e:  # it would be mailed again every minute
        words = e.strerror if isinstance(e, OSError) else str(e)
        return Done(found, True, (f"nothing is mailed, since it cannot be remembered: {kept.folder}: {words}",))
    return _tell(kept, after, post, found, news=bool(restart) or after.waiting != before.waiting)


def _start(daemon: Daemon, wish: Wish, why: str) -> tuple[Restart, Observed]:
    """Run the command, and look until the daemon serves or cannot be hoped for."""
    done = replace(command.run(wish.restart, lambda: _serves(glance(daemon, wish.timeout))), found=why)
    end = time.monotonic() + STARTING
    while True:
        seen = glance(daemon, wish.timeout)
        hopeless = done.code not in (0, None) and not seen.alive
        if _serves(seen) or hopeless or seen.waited or time.monotonic() >= end:
            return done, seen
        time.sleep(_AGAIN)


def _serves(seen: Observed) -> bool:
    return seen.status is not None and seen.status["state"] not in ("starting", "stopping")


def _keep(kept: Place, known: Memory) -> None:
    place.write_somewhere(kept, _FILE, known.encode())


def _tell(kept: Place, known: Memory, post: Post | None, found: Verdict, news: bool) -> Done:
    """Send what waits, oldest first; what cannot be sent now is tried by the next check."""
    if not known.waiting:
        return Done(found, news)
    if post is None:
        _keep(kept, replace(known, waiting=()))
        return Done(found, news, ("nothing is mailed: there is no [mail] in the configuration",))
    for event in known.waiting:
        try:
            post(event, known.node)
        except FanoutdError as e:
            left = len(known.waiting)
            mails = "1 mail waits" if left == 1 else f"{left} mails wait"
            return Done(found, news, (f"{mails} for the next check: {' '.join(str(e).split())}",))
        known = memory.sent(known, event)
        _keep(kept, known)
    return Done(found, news)
