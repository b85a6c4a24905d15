"""Pushes as WeChat makes them, and a WSGI request without a server."""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

TOKEN = "ThisIsTheToken"
PERSON = "oTEST00000000000000000000001"
ACCOUNT_NAME = "gh_0123456789ab"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def sha1(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def signed(at: float | None = None, token: str = TOKEN, nonce: str = "1372623149", **more: str) -> str:
    """A query string; ``more`` takes its place beside or instead of what is there."""
    timestamp = str(int(time.time() if at is None else at))
    return urlencode({"signature": sha1(token, timestamp, nonce), "timestamp": timestamp, "nonce": nonce, **more})


def xml(kind: str, openid: str = PERSON, at: int | None = None, **fields: Any) -> str:
    """A push; a field's value is text, or XML when it begins with ``<``."""
    at = int(time.time()) if at is None else at
    head = (
        f"<ToUserName><![CDATA[{ACCOUNT_NAME}]]></ToUserName><FromUserName><![CDATA[{openid}]]></FromUserName>"
        f"<CreateTime>{at}</CreateTime><MsgType><![CDATA[{kind}]]></MsgType>"
    )
    rest = (f"<{name}>{value if str(value).startswith('<') else f'<![CDATA[{value}]]>'}</{name}>"
            for name, value in fields.items())  # fmt: skip
    return f"<xml>{head}{''.join(rest)}</xml>"


def ask(app: Any, query: str, body: str | bytes | None = None, method: str | None = None, **environ: Any) -> Answer:
    """One request; a body makes it a POST."""
    data = body.encode() if isinstance(body, str) else body or b""
    environ = {
        "REQUEST_METHOD": method or ("GET" if body is None else "POST"), "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data), **environ,
    }  # fmt: skip
    said: list[Any] = []
    body = b"".join(app(environ, lambda status, headers: said.extend((status, headers))))
    return Answer(int(said[0].split()[0]), dict(said[1]), body)


def push(app: Any, body: str | bytes, **more: str) -> Answer:
    """A POST with a good signature."""
    return ask(app, signed(**more), body)
