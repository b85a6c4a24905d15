"""How WeChat's API is doing for an account: whether it answers this machine, how fast, and what it says to workers."""

from __future__ import annotations

import email.utils
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from fanoutd.config import Account
from fanoutd.dispatcher.inquiry import Answer
from fanoutd.errcodes import describe, meaning
from fanoutd.figures import Figures
from fanoutd.health.conditions import Key
from fanoutd.health.judge import Finding

#: The span of "of late", and how many looks back are kept in it.
RECENT, _KEPT = 300.0, 30

#: With fewer calls than this a share says nothing.
ENOUGH = 20

#: Answers of a proxy, or of a gateway whose API is away.
_AWAY = (502, 503, 504)

#: Seconds for the probe's answer to begin.
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Probe:
    """``seconds`` that it took; ``ahead``: of its Date header, by so many seconds, None where it has none."""

    status: int
    seconds: float
    ahead: float | None


def probe(account: Account) -> Probe:
    """Ask for nothing, without a token: whatever answers counts for no quota. Raises requests.RequestException."""
    began = time.monotonic()
    answer = requests.get(
        account.api_base, timeout=(account.connect_timeout, min(account.timeout, _TIMEOUT)), allow_redirects=False,
        headers={"Connection": "close"},
    )  # fmt: skip
    took = time.monotonic() - began
    return Probe(answer.status_code, took, _ahead(answer.headers.get("Date"), time.time() - took / 2))


def _ahead(date: str | None, now: float) -> float | None:
    """The header has whole seconds: what is within them is no difference."""
    try:
        apart = now - email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return None
    return 0.0 if 0 <= apart < 1 else apart


def reachable(account: Account, answer: Answer[Probe], workers_say: str | None) -> Finding:
    """``workers_say``: why they wait for the API, None when they do not."""
    host = urlsplit(account.api_base).netloc.rpartition("@")[2]
    words = workers_say or ""
    if answer.late is not None:
        words = f"{host} has not answered for {answer.late:.0f} s"
    elif answer.error is not None:  # its text would be long, and may hold the address's password
        words = f"{host}: {_why(answer.error)}"
    elif answer.value is not None and answer.value.status in _AWAY:
        words = f"{host} answers with HTTP {answer.value.status}"
    return Finding(Key("api", account.name), bool(words), words)


def _why(error: Exception) -> str:
    for kind, words in (
        (requests.exceptions.SSLError, "TLS fails"),
        (requests.exceptions.ConnectTimeout, "the connection is not answered"),
        (requests.exceptions.ReadTimeout, "no answer in time"),
        (requests.exceptions.ProxyError, "the proxy fails"),
        (requests.exceptions.ConnectionError, "no connection, or it ended without an answer"),
    ):
        if isinstance(error, kind):
            return words
    return type(error).__name__


class Recent:
    """What workers have counted of late. ``read`` gives all that they ever counted."""

    def __init__(self, read: Callable[[], Figures]) -> None:
        self._read = read
        self._looks: deque[tuple[float, Figures]] = deque()

    def look(self) -> Figures:
        """What came within ``RECENT``, or since the first look."""
        at, figures = time.monotonic(), self._read()
        while len(self._looks) > 1 and at - self._looks[1][0] >= RECENT:
            self._looks.popleft()
        if not self._looks or at - self._looks[-1][0] >= RECENT / _KEPT:
            self._looks.append((at, figures))
        return figures.since(self._looks[0][1])


def errors(account: str, recent: Figures, most: float) -> Finding:
    """What is about a person (does not follow, wrote too long ago) is no trouble of the API's, and is not counted."""
    results = recent.requests_of(account)
    calls = sum(results.values())
    refused = Counter({result: count for result, count in results.items() if _refused(result)})
    share = sum(refused.values()) / calls if calls >= ENOUGH else 0.0
    if share <= most:
        return Finding(Key("api_errors", account), False)
    top = ", ".join(f"{_named(result)}: {count:,}" for result, count in refused.most_common(3))
    words = f"{share:.0%} of {calls:,} calls in the last {RECENT / 60:.0f} min; {top}"
    return Finding(Key("api_errors", account), True, words)


def _refused(result: str) -> bool:
    if not result.lstrip("-").isdigit():
        return result != "other"
    return int(result) != 0 and meaning(int(result)).about != "R"


def _named(result: str) -> str:
    if result.lstrip("-").isdigit():
        return f"{result} ({describe(int(result))})"
    return f"no answer ({result.replace('_', ' ')})"


def slow(account: str, recent: Figures, answer: Answer[Probe], most: float) -> Finding:
    """Nine of ten calls of late, or the probe where there were few."""
    calls = recent.latency_of(account)
    key = Key("api_slow", account)
    tenth = calls.quantile(0.9) if calls.count >= ENOUGH else None
    if tenth is not None:
        words = f"one call in ten took {tenth:.1f} s or longer in the last {RECENT / 60:.0f} min"
        return Finding(key, tenth > most, words if tenth > most else "")
    if answer.value is None:
        return Finding(key, None)
    took = answer.value.seconds
    return Finding(key, took > most, f"a plain request took {took:.1f} s" if took > most else "")
