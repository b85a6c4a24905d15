"""Posts events to the account's server from threads of its own, with WeChat's patience: 5 s, three tries.

By WeChat's page: ``success`` or an empty body ends it, no answer within 5 s brings the same push again. Another
body is shown to the person as an error and not pushed again; other statuses than 200 count as no answer here.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fanoutd.sandbox import envelope
from fanoutd.sandbox.options import Options

if TYPE_CHECKING:
    import requests

TRIES = 3

_MOST_THREADS = 16
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Push:
    """What goes to the server: ``fields`` become XML, unless ``xml`` is given; ``echo`` asks for URL verification."""

    openid: str = ""
    fields: Mapping[str, Any] | None = None
    xml: str = ""
    echo: str = ""
    forged: bool = False
    """Signed with another token."""
    tries: int = 0

    @property
    def text(self) -> str:
        return self.xml or envelope.xml(self.fields or {})


class Pusher:
    """The queue, its threads, and what came of each push. ``options`` are those in force when a push is made."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Push, Options]] = []
        self._changed = threading.Condition()
        self._numbers = 0
        self._threads = 0
        self._under_way = 0
        self._counts: Counter[str] = Counter()
        self._done: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def push(self, push: Push, options: Options, delay: float = 0.0) -> None:
        """Have it posted that many seconds from now."""
        with self._changed:
            self._numbers += 1
            heapq.heappush(self._due, (time.monotonic() + delay, self._numbers, push, options))
            self._start_thread()
            self._changed.notify()

    def push_at_once(self, push: Push, options: Options) -> None:
        """Post it before this returns; if that fails it goes on as others do."""
        with _session() as session:
            with self._changed:
                self._under_way += 1
            self._deliver(session, push, options)

    def counts(self) -> dict[str, int]:
        """``tries`` of all, ``delivered``, ``junk`` answers, ``given_up``, and those that ``wait`` or are under way."""
        with self._changed:
            counts = dict.fromkeys(("tries", "delivered", "junk", "given_up"), 0) | self._counts
            return counts | {"waiting": len(self._due) + self._under_way}

    def done(self) -> list[dict[str, Any]]:
        """The last pushes that came to an end: ``openid``, ``outcome``, ``tries``, ``status``, ``reply``, ``xml``."""
        with self._changed:
            return list(self._done)

    def _start_thread(self) -> None:
        if self._threads < _MOST_THREADS and self._threads < len(self._due) + self._under_way:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with _session() as session:
            while True:
                push, options = self._next()
                self._deliver(session, push, options)

    def _next(self) -> tuple[Push, Options]:
        with self._changed:
            while True:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    _, _, push, options = heapq.heappop(self._due)
                    self._under_way += 1
                    return push, options
                self._changed.wait(wait)

    def _deliver(self, session: requests.Session, push: Push, options: Options) -> None:
        began = time.monotonic()
        push = replace(push, tries=push.tries + 1)
        status, reply = 0, ""
        try:
            status, reply = _exchange(session, push, options)
        except (OSError, ValueError) as error:  # all of requests' errors are OSErrors
            reply = type(error).__name__
        outcome = _outcome(push, status, reply)
        if outcome == "again":
            self.push(push, options, began + options.callback_timeout - time.monotonic())
        with self._changed:
            self._under_way -= 1
            self._counts["tries"] += 1
            if outcome != "again":
                self._counts[outcome] += 1
                self._done.append(_report(push, outcome, status, reply))


def _session() -> requests.Session:
    import requests  # only a sandbox that pushes needs it

    session = requests.Session()
    session.trust_env = False  # the account's server is on this machine: no proxy
    return session


def _outcome(push: Push, status: int, reply: str) -> str:
    if status != 200:
        return "again" if push.tries < TRIES else "given_up"
    good = reply == push.echo if push.echo else reply in ("", "success") or reply.lstrip().startswith("<xml>")
    return "delivered" if good else "junk"


def _report(push: Push, outcome: str, status: int, reply: str) -> dict[str, Any]:
    return {
        "openid": push.openid, "outcome": outcome, "tries": push.tries, "status": status, "reply": reply[:10_000],
        "xml": "" if push.echo else push.text,
    }  # fmt: skip


def _exchange(session: requests.Session, push: Push, options: Options) -> tuple[int, str]:
    """(status, body) of one try. Raises OSError, and ValueError for an AES key that is none."""
    token = "another-token" if push.forged else options.callback_token
    now, join = time.time(), "&" if "?" in options.callback_url else "?"
    if push.echo:
        asked = envelope.query(token, now, echostr=push.echo)
        answer = session.get(f"{options.callback_url}{join}{asked}", timeout=options.callback_timeout)
    else:
        text, sealed = _sealed(push, options)
        asked = envelope.query(token, now, sealed, openid=push.openid)
        answer = session.post(
            f"{options.callback_url}{join}{asked}",
            data=text.encode(),
            headers={"Content-Type": "text/xml"},
            timeout=options.callback_timeout,
            allow_redirects=False,
        )
    return answer.status_code, answer.text


def _sealed(push: Push, options: Options) -> tuple[str, str]:
    """(the body, its Encrypt), by the mode: plain, compatible with both, or safe with Encrypt alone."""
    text = push.text
    if not options.callback_aes_key:
        return text, ""
    sealed = envelope.seal(text, options.callback_aes_key, options.callback_app_id)
    if options.callback_compatible and text.endswith("</xml>"):
        return f"{text[: -len('</xml>')]}<Encrypt><![CDATA[{sealed}]]></Encrypt></xml>", sealed
    account = (push.fields or {}).get("ToUserName", "")
    return envelope.xml({"ToUserName": account, "Encrypt": sealed}), sealed
