"""What the daemon is to be told, on its way there: a bounded queue and one thread that empties it.

A web server's request puts its events in and goes; the thread keeps one connection to the daemon's socket and
writes whatever has gathered as one batch. What the daemon did not confirm stays at the head and is told again, so
the daemon may hear a thing twice. The queue is memory: it does not outlive its process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanoutd.client import Client, ClientError, TooLarge, TryAgain
from fanoutd.master.loglimit import LogLimit
from fanoutd.master.rpc import INTERNAL_ERROR

_log = logging.getLogger(__name__)

#: Calls that wait at most: a minute and a half of the worst flood that was reported (70,000 receipts in five minutes).
MOST = 20_000
#: Calls on one line, about 30 KiB.
_BATCH = 200
#: Seconds that an answer may take, and between attempts while the daemon is away.
_PATIENCE = 10.0
_SHORTEST, _LONGEST = 0.05, 5.0

#: Times that the daemon may fail over one call before that is given up: the rest must not wait for it for ever.
_FAILURES = 5


@dataclass(slots=True)
class _Call:
    method: str
    params: Mapping[str, Any]
    failures: int = 0

    def again(self, result: Any) -> bool:
        """Whether the daemon is to hear it once more."""
        if isinstance(result, ClientError) and result.code == INTERNAL_ERROR:
            self.failures += 1
            return self.failures < _FAILURES
        return isinstance(result, TryAgain)


class Full(Exception):
    """There is no room, or the process is ending: WeChat is to say it again."""


class Outbox:
    """Used by several threads. After a fork the child calls ``renew``: what waits is the parent's to tell."""

    def __init__(self, socket: str | Path, most: int = MOST) -> None:
        """Opens nothing and starts nothing: the first ``put`` does."""
        self._socket = socket
        self._most = most
        self._batch = _BATCH
        self._client: Client | None = None
        self._trouble = LogLimit(_log, 1, 60.0, "%d more times the daemon could not be told")
        self._refused = LogLimit(_log, 5, 60.0, "the daemon refused %d more events")
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child, whose copies of thread, lock and connection are of no use."""
        self._changed = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._orders = 0
        self._closing = self._abandoned = False
        self._thread: threading.Thread | None = None
        self._hang_up()

    def put(self, method: str, params: Mapping[str, Any]) -> None:
        """Returns at once. Raises Full."""
        with self._changed:
            if self._closing or len(self._calls) >= self._most:
                raise Full
            if self._thread is None or not self._thread.is_alive():
                self._start()
            self._calls.append(_Call(method, params))
            self._orders += method == "subscriber.reply"
            self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="fanoutd-callback", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had, or the interpreter is ending
            raise Full from None
        self._thread = thread

    @property
    def holds_orders(self) -> bool:
        """A person's 0 or 1 waits in here: a later one must not overtake it."""
        with self._changed:
            return self._orders > 0

    def __len__(self) -> int:
        """Calls that are not confirmed yet."""
        return len(self._calls)

    def close(self, timeout: float) -> bool:
        """Take nothing more, tell what waits, and say whether all of it was told within ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._calls or self._thread is None, timeout)
            left = len(self._calls)
            self._abandoned = True
        if left:
            _log.error("the process ends, and %d events of WeChat were not told to the daemon", left)
        return not left

    # ---- the thread

    def _run(self) -> None:
        pause = _SHORTEST
        while self._wait_for_work():
            if self._tell():
                pause = _SHORTEST
            else:
                self._rest(pause)
                pause = min(2 * pause, _LONGEST)
        self._hang_up()

    def _wait_for_work(self) -> bool:
        """False when there is none and there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closing)
            if self._calls and not self._abandoned:
                return True
            self._thread = None
            return False

    def _rest(self, seconds: float) -> None:
        """Until it is worth another attempt; while closing that is soon."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)
        time.sleep(max(0.0, min(_SHORTEST, until - time.monotonic())))

    def _tell(self) -> bool:
        """Tell one batch; false when the daemon was not to be reached or took none of it."""
        batch = [self._calls[i] for i in range(min(self._batch, len(self._calls)))]  # only this thread takes out
        reused = self._client is not None
        try:
            if self._client is None:
                self._client = Client(self._socket, timeout=_PATIENCE)
            results = self._client.call_many([(each.method, each.params) for each in batch])
        except TooLarge:
            return self._split(batch)
        except (OSError, ClientError, KeyError, TypeError) as e:  # the last two: what listens there is no daemon
            self._hang_up()
            if not reused:  # an old connection may have been closed for its idleness
                self._trouble.warning("the daemon cannot be told what WeChat says, trying again: %s", e)
            return False
        again = [call for call, result in zip(batch, results, strict=True) if call.again(result)]
        self._note(results)
        self._settle(len(batch), again)
        return len(again) < len(batch)

    def _note(self, results: list[Any]) -> None:
        for result in results:
            if isinstance(result, TryAgain):
                self._trouble.warning("the daemon takes no events now, trying again: %s", result)
            elif isinstance(result, ClientError):
                self._refused.warning("the daemon refused an event of WeChat: %s (%d)", result, result.code)

    def _split(self, batch: list[_Call]) -> bool:
        """The daemon's ``max_request`` is smaller than we thought."""
        if len(batch) == 1:
            self._refused.warning("an event of WeChat is longer than the daemon's max_request")
            self._settle(1, [])
        self._batch = max(1, len(batch) // 2)
        return True

    def _settle(self, count: int, again: list[_Call]) -> None:
        """The first ``count`` are told, but for those that the daemon wants later; their order stays."""
        with self._changed:
            for _ in range(count):
                self._calls.popleft()
            self._calls.extendleft(reversed(again))
            self._orders = sum(each.method == "subscriber.reply" for each in self._calls) if self._orders else 0
            self._changed.notify_all()

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):
                client.close()
