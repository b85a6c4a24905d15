"""HTTP/1.1 as far as API clients use it: bytes to requests, replies to bytes, no sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

_GATEWAY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"

MAX_HEAD = 16 * 1024
MAX_BODY = 1024 * 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BadRequest(Exception):
    """Nothing that can be answered by an endpoint; the connection is of no more use."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. ``query`` is as sent, without its question mark."""

    method: str
    path: str
    query: str
    body: bytes
    keep_alive: bool

    def parameter(self, name: str) -> str:
        """The first value of a query parameter; empty when there is none."""
        if "%" in self.query or "+" in self.query:
            return parse_qs(self.query).get(name, [""])[0]
        for pair in self.query.split("&"):  # as every call with a token: five times as fast
            key, _, value = pair.partition("=")
            if key == name and value:
                return value
        return ""


class Ending(Enum):
    """What becomes of an answer."""

    SENT = "sent"
    DROPPED = "dropped"
    """FIN instead of an answer."""
    RESET = "reset"
    """RST instead of an answer."""
    NEVER = "never"
    """Silence until the client gives up."""
    TRUNCATED = "truncated"
    """Half of the body that Content-Length promises, then FIN."""
    HALF = "half"
    """Half of the body, with its right Content-Length."""
    GATEWAY = "gateway"
    """A gateway's page for status 502 instead."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, the seconds it takes, and how it ends."""

    body: bytes
    status: int = 200
    content_type: str = "application/json; encoding=utf-8"
    delay: float = 0.0
    ending: Ending = Ending.SENT


def json_reply(document: Any, status: int = 200) -> Reply:
    """A reply without delay."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Reply(text.encode("utf-8", "replace"), status)


def spoil(reply: Reply, ending: Ending) -> Reply:
    """The reply as it is when it comes to this ending."""
    if ending is Ending.GATEWAY:
        return Reply(_GATEWAY_PAGE, 502, "text/html")
    if ending is Ending.HALF:
        return replace(reply, body=reply.body[: len(reply.body) // 2])
    return replace(reply, ending=ending)


def encode(reply: Reply, keep_alive: bool, head_only: bool = False) -> bytes:
    """The reply on the wire; one that is to be truncated keeps the Content-Length of the whole."""
    head = (
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
        f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    ).encode()
    if head_only:
        return head
    size = len(reply.body) // 2 if reply.ending is Ending.TRUNCATED else len(reply.body)
    return head + reply.body[:size]


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    keep_alive: bool
    length: int
    expects: bool


class Parser:
    """Collects bytes; gives whole requests in their order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._continue = False

    def __len__(self) -> int:
        """Bytes not used yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """The next request, or None before it is whole. Raises BadRequest."""
        head = self._head or self._next_head()
        if head is None or len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head, self._continue = None, False
        path, _, query = head.target.partition("?")
        return Request(head.method, path, query, body, head.keep_alive)

    def take_continue(self) -> bool:
        """True once for a request whose body waits for ``100 Continue`` (RFC 9110 §10.1.1)."""
        wanted, self._continue = self._continue, False
        return wanted

    def _next_head(self) -> _Head | None:
        while self._buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: empty lines before a request
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
            raise BadRequest(431, "the head of the request is too long")
        if end < 0:
            return None
        head = _parse_head(bytes(self._buffer[:end]).decode("latin-1"))
        del self._buffer[: end + 4]
        self._head, self._continue = head, head.expects
        return head


def _parse_head(text: str) -> _Head:
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise BadRequest(400, "this is no HTTP/1.1 request")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return _Head(
        words[0],
        words[1],
        _keeps_alive(words[2], headers.get("connection", "").lower()),
        _length(headers),
        headers.get("expect", "").lower() == "100-continue",
    )


def _keeps_alive(version: str, connection: str) -> bool:
    return "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection


def _length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "the body needs a Content-Length")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(400, "Content-Length is no number")
    if len(text) > 10 or int(text) > MAX_BODY:
        raise BadRequest(413, f"the body is longer than {MAX_BODY} bytes")
    return int(text)
