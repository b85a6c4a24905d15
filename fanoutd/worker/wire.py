"""Requests on the wire: libcurl's multi interface on the worker's own epoll.

Each request's body is handed over by a read callback. That does two things. The first call of it
is the moment before the first byte of the body leaves: the journal's ``S`` is written there, and
a callback that was never called proves that nothing was sent. And without a way to rewind,
libcurl cannot repeat a POST by itself when a reused connection closes without an answer
(it fails with error 65 instead); given the bytes up front it would, and the message go out twice.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import certifi
import pycurl

from fanoutd import failpoint
from fanoutd.boot import uptime_ms
from fanoutd.config import Account

_PATHS = {
    "custom": "/cgi-bin/message/custom/send",
    "template": "/cgi-bin/message/template/send",
    "subscribe": "/cgi-bin/message/subscribe/bizsend",
}

_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}

#: Calls without an answer, in a word each: no byte of the body left; none came in time; the connection broke before one
#: came; there was one, without an errcode.
FAILURES = NOT_SENT, TIMEOUT, LOST, UNREADABLE = "not_sent", "timeout", "lost", "unreadable"

#: The longest answer that is read; WeChat's have about 100 bytes.
_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. ``errcode`` is None when nothing was understood.

    ``left`` is when the body began to leave this machine (CLOCK_BOOTTIME, milliseconds); 0 when it is certain that
    no byte of it did. ``seconds`` is how long the call took.
    """

    left: int
    errcode: int | None
    msgid: int | None = None
    errmsg: str = ""
    seconds: float = 0.0
    failure: str = UNREADABLE
    """One of ``FAILURES``, where there is no errcode."""


class Call:
    """One easy handle with its callbacks, used again for request after request."""

    def __init__(self) -> None:
        self.context: Any = None
        self.on_leaving: Callable[[], None] = lambda: None
        self._left = 0
        self._body = b""
        self._at = 0
        self._answer = bytearray()
        self._target: object = None
        self.curl = _easy(self)

    def prepare(self, target: tuple[str, str, str], account: Account, body: bytes) -> None:
        """Aim at ``target`` = (account, channel, token) with this body."""
        if target != self._target:
            _, channel, token = target
            self.curl.setopt(pycurl.URL, f"{account.api_base}{_PATHS[channel]}?access_token={token}")
            self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(account.connect_timeout * 1000))
            self.curl.setopt(pycurl.TIMEOUT_MS, int(account.timeout * 1000))
            _limit_idleness(self.curl, account.keepalive)
            self._target = target
        self.curl.setopt(pycurl.POSTFIELDSIZE, len(body))
        self._left, self._body, self._at = 0, body, 0
        self._answer.clear()

    def _read(self, size: int) -> bytes | int:
        if not self._left:
            self.on_leaving()
            self._left = uptime_ms()
        part = self._body[self._at : self._at + size]
        self._at += len(part)
        return part

    def leaves(self) -> bool:
        """Whether all of the body was handed to the kernel, and the answer is still to come."""
        return self.context is not None and self._left > 0 and self._at == len(self._body) and not self._answer

    def _write(self, data: bytes) -> int | None:
        if len(self._answer) + len(data) > _MAX_ANSWER:
            return 0
        self._answer += data
        return None

    def answer(self, error: int) -> Answer:
        """The outcome, once libcurl is through with it; ``error`` is its code, 0 for none."""
        seconds = self.curl.getinfo(pycurl.TOTAL_TIME)
        if error or not self._left:
            failure = NOT_SENT if not self._left else TIMEOUT if error == pycurl.E_OPERATION_TIMEDOUT else LOST
            return Answer(self._left, None, seconds=seconds, failure=failure)
        return parse(bytes(self._answer), self._left, seconds)


def parse(data: bytes, left: int, seconds: float = 0.0) -> Answer:
    """WeChat's answer: JSON with an errcode, whatever the HTTP status says."""
    try:
        answer = json.loads(data)
        errcode = answer["errcode"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Answer(left, None, seconds=seconds)
    if not isinstance(errcode, int) or isinstance(errcode, bool) or not -(2**31) <= errcode < 2**31:
        return Answer(left, None, seconds=seconds)
    msgid = answer.get("msgid")
    msgid = msgid if isinstance(msgid, int) and abs(msgid) < 2**63 else None
    return Answer(left, errcode, msgid, str(answer.get("errmsg", ""))[:200], seconds)


def _easy(call: Call) -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.POST, 1)
    curl.setopt(pycurl.READFUNCTION, call._read)
    curl.setopt(pycurl.WRITEFUNCTION, call._write)
    # Without "Expect:" libcurl would wait for a 100 Continue that WeChat never sends.
    curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json; charset=utf-8", "Expect:"])
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.USERAGENT, "fanoutd")
    curl.setopt(pycurl.CAINFO, certifi.where())
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    return curl


def _limit_idleness(curl: pycurl.Curl, keepalive: float) -> None:
    """A connection idle for longer than ``keepalive`` seconds is not used again.

    libcurl counts whole seconds and forgives the one that has begun, hence one less; what that
    cannot express does not reuse connections at all.
    """
    if keepalive < 2:
        curl.setopt(pycurl.FORBID_REUSE, 1)
    else:
        curl.setopt(pycurl.FORBID_REUSE, 0)
        curl.setopt(pycurl.MAXAGE_CONN, int(keepalive) - 1)


class Wire:
    """All requests of this worker that are under way."""

    def __init__(self, epoll: select.epoll, concurrency: int) -> None:
        self._epoll = epoll
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._timer: float | None = None
        self._free = [Call() for _ in range(concurrency)]
        self._calls = {call.curl: call for call in self._free}

    @property
    def free(self) -> int:
        """How many requests more may start."""
        return len(self._free)

    @property
    def busy(self) -> int:
        return len(self._calls) - len(self._free)

    def start(
        self, target: tuple[str, str, str], account: Account, body: bytes, context: Any, on_leaving: Callable[[], None]
    ) -> None:
        """Begin a request; ``on_leaving`` is called just before its body leaves."""
        call = self._free.pop()
        call.context, call.on_leaving = context, on_leaving
        call.prepare(target, account, body)
        self._multi.add_handle(call.curl)

    def timeout(self) -> float | None:
        """Seconds until ``step`` must be called again without any event."""
        return None if self._timer is None else max(0.0, self._timer - time.monotonic())

    def step(self, events: list[tuple[int, int]]) -> list[tuple[Any, Answer]]:
        """Take the epoll events of libcurl's sockets; give back (context, answer) of what ended."""
        for fd, mask in events:
            bits = (pycurl.CSELECT_IN if mask & ~select.EPOLLOUT else 0) | (
                pycurl.CSELECT_OUT if mask & select.EPOLLOUT else 0
            )
            self._multi.socket_action(fd, bits)
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if failpoint.armed and any(call.leaves() for call in self._calls.values()):
            failpoint.reach("after_write")
        return self._harvest()

    def _harvest(self) -> list[tuple[Any, Answer]]:
        ended: list[tuple[Any, Answer]] = []
        queued = 1
        while queued:
            queued, good, bad = self._multi.info_read()
            for curl in good:
                ended.append(self._end(curl, 0))
            for curl, error, _ in bad:
                ended.append(self._end(curl, error))
        return ended

    def _end(self, curl: pycurl.Curl, error: int) -> tuple[Any, Answer]:
        self._multi.remove_handle(curl)
        call = self._calls[curl]
        answer = call.answer(error)
        context, call.context = call.context, None
        self._free.append(call)
        return context, answer

    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        # No table of our own: libcurl closes pooled connections unseen, the kernel then forgets
        # them, and a new socket may bear the same number. So ask the kernel each time.
        if what == pycurl.POLL_REMOVE:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass
            return
        try:
            self._epoll.modify(fd, _EVENTS[what])
        except FileNotFoundError:
            self._epoll.register(fd, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def close(self) -> None:
        self._multi.close()
