"""What a look at the daemon from outside amounts to, as pure functions: a word, reasons, figures, how long to wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OK, DEGRADED, DOWN, UNKNOWN = 0, 1, 2, 3
STATES = ("OK", "DEGRADED", "DOWN", "UNKNOWN")

#: Seconds: for one that starts, stops or replaces itself; for one that somebody else may start again at once; for a
#: dispatcher that may only be slow.
STARTING, AGAIN, SLOW = 20.0, 5.0, 5.0
#: Seconds beyond ``graceful_timeout`` for one that stops, and at most: who asks does not wait for ever.
_MORE, _STOPPING = 5.0, 45.0

#: Words of one line, at most: a pager shows few.
_MOST_REASONS = 6
_LONGEST = 600


@dataclass(frozen=True, slots=True)
class Observed:
    """``error``: why nothing can be told. ``alive``: a lock of the daemon's is held; None: it may not be looked at.

    ``pid`` and ``pidfile``: what the pidfile bears, and whether it is there; ``frozen``: that process was stopped by a
    signal. ``status`` is the status object, else ``silence`` says why there is none; ``waited``: since nothing came
    within the time that was given; ``denied``: since we may not ask.
    ``response_ms`` is how long a ping took, ``pending`` how many people of running campaigns wait, None if not known.
    ``at_ms`` is milliseconds since 1970, ``started_ms`` the same of the daemon's start.
    """

    error: str | None = None
    alive: bool | None = None
    pid: int | None = None
    pidfile: bool = False
    frozen: bool = False
    waited: bool = False
    status: Mapping[str, Any] | None = None
    silence: str | None = None
    denied: bool = False
    response_ms: float | None = None
    pending: int | None = None
    at_ms: int = 0
    started_ms: int | None = None

    @property
    def stopped(self) -> bool:
        """Nobody runs, and nobody left a pidfile, as a daemon that dies does: stopped on purpose, or never started."""
        return self.status is None and not self.alive and not self.pidfile

    @property
    def died(self) -> bool:
        return self.status is None and self.alive is False and self.pidfile

    @property
    def speechless(self) -> bool:
        """It answers, but its dispatcher does not, which mails: nobody else tells of it."""
        return self.status is not None and _dispatcher_is_silent(self.status)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``code`` is also the exit code; ``words`` one line; ``figures`` are Nagios' performance data, in their order."""

    code: int
    words: str
    figures: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        return STATES[self.code]

    def line(self) -> str:
        """``STATE: words | key=value …``"""
        head = f"{self.state}: {clean(self.words)}"
        return f"{head} | {' '.join(self.figures)}" if self.figures else head


def clean(words: str) -> str:
    """In one line, without what begins the figures."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split()).replace("|", "/")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def patience(seen: Observed, fresh: bool, supervised: bool, graceful: float = 0.0) -> float:
    """Seconds for which what was seen may pass by itself. ``fresh``: the last check found it well, so that it may just
    be stopped and started again; ``supervised``: somebody else starts a daemon that died; ``graceful``: the daemon's
    graceful_timeout, for which one that stops lives and does not listen."""
    if seen.error or seen.denied:
        return 0.0
    if seen.status is not None:
        if seen.status["state"] in ("starting", "stopping"):
            return STARTING
        return SLOW if seen.speechless else 0.0
    if seen.alive:
        return 0.0 if seen.waited else max(STARTING, min(graceful + _MORE, _STOPPING))
    return AGAIN if fresh and (supervised or seen.stopped) else 0.0


def verdict(seen: Observed) -> Verdict:
    """Of the last look, when there is no more to wait for."""
    if seen.error is not None:
        return Verdict(UNKNOWN, seen.error)
    if seen.denied:
        return Verdict(UNKNOWN, seen.silence or "this user may not ask the daemon")
    if seen.status is None:
        return Verdict(DOWN, _why_down(seen))
    reasons = list(_troubles(seen.status))
    figures = tuple(_figures(seen, seen.status))
    if not reasons:
        return Verdict(OK, _well(seen.status), figures)
    more = len(reasons) - _MOST_REASONS
    words = "; ".join([*reasons[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else [])])
    return Verdict(DEGRADED, f"{words}; see `fanoutd status` and the log", figures)


def _why_down(seen: Observed) -> str:
    who = f"pid {seen.pid}" if seen.pid else "the daemon"
    if seen.frozen:
        return f"{who} was stopped by a signal and does not answer; `kill -CONT {seen.pid}` lets it go on"
    if seen.alive:
        return f"{who} lives, but {seen.silence or 'does not answer'}; see its log"
    if seen.waited or (seen.alive is None and seen.pidfile):
        return f"{who} does not answer: {seen.silence or 'nobody listens'}"
    if seen.died:
        left = f"pid {seen.pid} has" if seen.pid else "it has"
        return f"the daemon died: {left} left its pidfile; its log says more, `fanoutd serve` starts it again"
    return "no daemon runs: it was stopped, or never started"


def _well(status: Mapping[str, Any]) -> str:
    ready, wanted = _workers(status)
    return f"{ready} of {wanted} workers ready, generation {status['generation']}, version {status['version']}"


def _workers(status: Mapping[str, Any]) -> tuple[int, int]:
    """(ready, wanted): while two generations overlap a slot counts once."""
    rows = [each for each in status["workers"] if each["role"] == "worker"]
    ready = {each["slot"] for each in rows if each["state"] in ("idle", "busy")}
    return len(ready), len({each["slot"] for each in rows})


def _dispatcher_is_silent(status: Mapping[str, Any]) -> bool:
    """The master stands in for it then, and knows no error."""
    return not status["store"]["ok"] and status["store"].get("error") is None


def broken(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conditions that are; none where the daemon does not tell of conditions."""
    return [each for each in status.get("conditions") or () if each.get("state") == "broken"]


def _troubles(status: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, the worst first, nothing twice."""
    if status["state"] in ("starting", "stopping"):
        yield f"it is {status['state']}"
    told = {each["name"] for each in broken(status)}
    if _dispatcher_is_silent(status):
        yield "the dispatcher does not answer: nothing is planned, recorded or mailed"
    elif not status["store"]["ok"] and "store" not in told:
        yield f"store: {status['store'].get('error') or 'does not answer'}"
    for each in broken(status):
        of = f":{each['account']}" if each.get("account") else ""
        yield f"{each['name']}{of}: {each.get('words') or 'broken'}"
    for what in ("reload", "upgrade"):
        if (status.get(what) or {}).get("error") and not (what == "reload" and "reload" in told):
            yield f"the last {what} was refused: {status[what]['error']}"
    for account in () if "token" in told else status["accounts"] or ():
        if not account["token"]["ok"] and account["token"].get("error"):  # else it is just being fetched
            yield f"token of {account['name']}: {account['token']['error']}"
    ready, wanted = _workers(status)
    if not ready and "workers" not in told:
        yield f"none of {wanted} workers is ready"
    if status["state"] == "degraded" and "workers" not in told and 0 < ready < wanted:
        yield f"{ready} of {wanted} workers are ready"
    others = [each for each in status["workers"] if each["state"] == "backoff"]
    if others and "workers" not in told:
        yield f"{len(others)} children rest after they died again and again"


def _figures(seen: Observed, status: Mapping[str, Any]) -> Iterator[str]:
    ready, wanted = _workers(status)
    workers = [each for each in status["workers"] if each["role"] == "worker"]
    spool, store = status["spool"], status["store"]
    uptime = None if seen.started_ms is None else max(0, seen.at_ms - seen.started_ms) // 1000
    rows: list[tuple[str, float | None, str]] = [
        ("uptime", uptime, "s"), ("response", seen.response_ms, "ms"),
        ("workers_ready", ready, ""), ("workers_wanted", wanted, ""),
        ("restarts", sum(each["restarts"] or 0 for each in status["workers"]), "c"),
        ("sent", sum(each["sent"] or 0 for each in workers), "c"),
        ("failed", sum(each["failed"] or 0 for each in workers), "c"),
        ("rate", sum(each["rate"] or 0 for each in workers), ""),
        ("pending", seen.pending, ""),
        ("shards", status["shards"]["pending"], ""),
        ("spool_files", spool["files"], ""),
        ("spool_age", spool["oldest_seconds"] if spool["files"] else (0 if spool["files"] == 0 else None), "s"),
        ("store_latency", store["latency_ms"], "ms"),
        *((f"token_{each['name']}_expires", each["token"]["expires_in"], "s") for each in status["accounts"] or ()),
        ("memory", sum(each["rss_bytes"] or 0 for each in status["workers"]), "B"),
    ]  # fmt: skip
    if status.get("conditions") is not None:
        rows.append(("conditions_broken", len(broken(status)), ""))
    for label, value, unit in rows:
        if value is not None:
            yield f"{_label(label)}={_number(value)}{unit}"


def _label(text: str) -> str:
    """Quoted where it must be; an equals sign or a quote cannot be in one."""
    plain = clean(text).replace("=", "_").replace("'", "_")
    return f"'{plain}'" if " " in plain else plain


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.3f}".rstrip("0").rstrip(".")
