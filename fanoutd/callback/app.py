"""The WSGI application."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fanoutd.callback import request
from fanoutd.callback.asking import Asker, NotNow
from fanoutd.callback.crypto import Key, Keys
from fanoutd.callback.dedupe import Seen
from fanoutd.callback.errors import Broken, Forged
from fanoutd.callback.outbox import Full, Outbox
from fanoutd.callback.parsing import parse
from fanoutd.callback.push import Notice, Order, read
from fanoutd.callback.reply import sealed_reply, text_reply
from fanoutd.callback.signature import is_fresh, matches
from fanoutd.master.loglimit import LogLimit

_log = logging.getLogger(__name__)

#: Seconds that the end of the interpreter may be held up by events that were not told yet.
_LAST_WORDS = 3.0
#: What stops WeChat from repeating a push.
_DONE = b"success"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@dataclass(frozen=True, slots=True)
class _Received:
    """An authentic push, its form, and the key that it was encrypted with."""

    fields: dict[str, Any]
    as_json: bool
    key: Key | None


class Callback:
    """The address that WeChat pushes to, for one account: events go to the daemon, ``0`` and ``1`` are answered.

    ``socket`` is the daemon's; ``token``, ``aes_key`` (EncodingAESKey) and ``app_id`` are as in WeChat's console,
    ``previous_aes_key`` is the key before the last change; ``account`` is the account's name in the daemon's
    configuration, None when there is just one. With ``only_encrypted`` plain pushes are refused. ``clock`` gives
    seconds since 1970.

    Answers: 403 when forged, unsigned or older than five minutes by the request's own timestamp; 400 when broken;
    else 200 with the ``echostr``, with ``success``, or with the reply to a text, encrypted when the push was. 500
    when the queue to the daemon is full: WeChat then repeats the push, up to three times in all.

    Repeats are known for about five minutes, per process. A web server of several processes may therefore tell the
    daemon the same event twice, and so may a lost connection: the daemon's handling is idempotent. What was answered
    and not yet told (the queue, at most 20,000 events) is lost when the process is killed.
    """

    def __init__(
        self, socket: str | Path, token: str, aes_key: str | None = None, app_id: str | None = None,
        previous_aes_key: str | None = None, account: str | None = None, *, only_encrypted: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Connects to nothing yet. Raises ValueError for a key that is none, and for one without ``app_id``."""
        if not token:
            raise ValueError("token must be the Token of WeChat's console, not empty")
        self._token = token
        self._keys = _keys(aes_key, previous_aes_key, app_id)
        if only_encrypted and self._keys is None:
            raise ValueError("only_encrypted needs aes_key")
        self._only_encrypted = only_encrypted
        self._account = account
        self._clock = clock
        self._outbox = Outbox(socket)
        self._asker = Asker(socket)
        self._seen = Seen()
        self._full = LogLimit(_log, 1, 60.0, "%d more pushes were answered 500: the queue to the daemon is full")
        self._refused = LogLimit(_log, 3, 60.0, "%d more call-backs were refused")
        _follow(self)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """One request, as of PEP 3333."""
        try:
            status, body, kind = self._answer(environ)
        except (Forged, Broken) as e:
            self._refused.warning("a call-back was refused: %s", e)
            status = HTTPStatus.FORBIDDEN if isinstance(e, Forged) else HTTPStatus.BAD_REQUEST
            body, kind = b"", "text/plain"
        allowed = [("Allow", "GET, POST")] if status == HTTPStatus.METHOD_NOT_ALLOWED else []
        start_response(f"{status.value} {status.phrase}", [
            ("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"), *allowed,
        ])  # fmt: skip
        return [body]

    def close(self, timeout: float = _LAST_WORDS) -> bool:
        """Tell the daemon what waits, take nothing more; false if something was left after ``timeout`` seconds.

        Called by itself when the interpreter ends in good order.
        """
        return self._outbox.close(timeout)

    def _renew(self) -> None:
        self._outbox.renew()
        self._seen = Seen()

    def _answer(self, environ: dict[str, Any]) -> tuple[HTTPStatus, bytes, str]:
        method = environ.get("REQUEST_METHOD")
        if method not in ("GET", "POST"):
            return HTTPStatus.METHOD_NOT_ALLOWED, b"", "text/plain"
        body = request.body(environ) if method == "POST" else None  # read in any case: the connection may be kept
        query = request.query(environ)
        if not is_fresh(query.get("timestamp", ""), self._clock()):
            raise Forged("the request is old, or bears no timestamp")
        if method == "GET":
            return HTTPStatus.OK, self._verification(query), "text/plain"
        return self._push(self._receive(query, body))

    # ---- authenticity

    def _check(self, query: dict[str, str], name: str, *parts: str) -> None:
        """Raises Forged."""
        signed = (query["timestamp"], query.get("nonce", ""), *parts)
        if not matches(query.get(name, ""), self._token, *signed):
            raise Forged(f"{name} is not right")

    def _verification(self, query: dict[str, str]) -> bytes:
        """What WeChat sends when the address is entered in its console, given back."""
        echo = query.get("echostr", "")
        if self._keys is not None and "msg_signature" in query:
            self._check(query, "msg_signature", echo)
            return self._keys.open(echo)[0]
        self._check(query, "signature")
        if not echo:
            raise Broken("there is no echostr")
        return echo.encode("utf-8", "replace")

    def _receive(self, query: dict[str, str], body: bytes | None) -> _Received:
        """The push, once it is known to be WeChat's. In compatible mode the encrypted part is what counts."""
        if self._keys is not None and (query.get("encrypt_type") == "aes" or "msg_signature" in query):
            return self._receive_sealed(self._keys, query, body)
        if self._only_encrypted:
            raise Forged("the push is not encrypted")
        self._check(query, "signature")
        fields, as_json = parse(body)
        return _Received(fields, as_json, None)

    def _receive_sealed(self, keys: Keys, query: dict[str, str], body: bytes | None) -> _Received:
        """``msg_signature`` signs the message too; ``signature`` only the address."""
        if not query.get("msg_signature"):
            raise Forged("there is no msg_signature")
        cover, _ = parse(body)
        sealed = cover.get("Encrypt")
        if not isinstance(sealed, str) or not sealed:
            raise Broken("the push has no Encrypt")
        self._check(query, "msg_signature", sealed)
        message, key = keys.open(sealed)
        fields, as_json = parse(message)
        return _Received(fields, as_json, key)

    # ---- what it says

    def _push(self, received: _Received) -> tuple[HTTPStatus, bytes, str]:
        push = read(received.fields)
        try:
            for notice in push.notices:
                self._tell(notice)
            text = None if push.order is None else self._obey(push.order)
        except Full:
            self._full.warning("WeChat was answered 500: the queue to the daemon is full")
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"", "text/plain"
        if push.order is None or text is None:
            return HTTPStatus.OK, _DONE, "text/plain"
        return HTTPStatus.OK, self._reply(received, push.order, text), _kind(received)

    def _tell(self, notice: Notice) -> None:
        """Queue it, unless it came already. Raises Full."""
        if self._seen.take(notice.key, time.monotonic()):
            self._queue(notice.key, "subscriber.event", notice.params)

    def _obey(self, order: Order) -> str | None:
        """The text for the person: asked for once, then as before. Raises Full."""
        if not self._seen.take(order.key, time.monotonic()):
            return self._seen.answered(order.key)
        if not self._outbox.holds_orders:
            try:
                text = self._asker.ask(self._with_account(order.params))
            except NotNow:
                pass
            else:
                self._seen.answer(order.key, text)
                return text
        self._queue(order.key, "subscriber.reply", order.params)
        return None

    def _queue(self, key: tuple[str, ...], method: str, params: dict[str, Any]) -> None:
        try:
            self._outbox.put(method, self._with_account(params))
        except Full:
            self._seen.drop(key)
            raise

    def _with_account(self, params: dict[str, Any]) -> dict[str, Any]:
        return params if self._account is None else params | {"account": self._account}

    def _reply(self, received: _Received, order: Order, text: str) -> bytes:
        now = int(self._clock())
        reply = text_reply(order.params["openid"], order.account_name, text, now, as_json=received.as_json)
        if received.key is None or self._keys is None:
            return reply
        return sealed_reply(reply, received.key, self._keys.app_id, self._token, now, as_json=received.as_json)


def _keys(current: str | None, previous: str | None, app_id: str | None) -> Keys | None:
    if current is None:
        if previous is not None:
            raise ValueError("previous_aes_key needs aes_key")
        return None
    if not app_id:
        raise ValueError("aes_key needs app_id: encrypted messages say for whom they are")
    keys = [Key(current)]
    return Keys(app_id, keys if previous is None else [*keys, Key(previous, "previous_aes_key")])


def _kind(received: _Received) -> str:
    return "application/json" if received.as_json else "application/xml"


def _follow(callback: Callback) -> None:
    """Begin anew in forked children, and empty the queue when the interpreter ends, as long as it is in use."""
    kept, outbox = weakref.ref(callback), weakref.ref(callback._outbox)

    def renew() -> None:
        if (found := kept()) is not None:
            found._renew()

    def close() -> None:
        if (found := outbox()) is not None:
            found.close(_LAST_WORDS)

    os.register_at_fork(after_in_child=renew)
    atexit.register(close)
