"""An API that gives tokens and an account's list of templates, and takes down what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

LIST = "/cgi-bin/template/get_all_private_template"
TOKEN = "/cgi-bin/stable_token"


def template(template_id: str, *keys: str, title: str = "订单") -> dict[str, str]:
    """As WeChat lists one."""
    return {"template_id": template_id, "title": title, "primary_industry": "", "deputy_industry": "",
            "content": "\n".join(f"名{{{{{key}.DATA}}}}" for key in keys), "example": ""}  # fmt: skip


class Listing:
    """``answers`` by path: a JSON value, or a number for a bare HTTP status. Others get errcode 0 and a msgid."""

    def __init__(self, *templates: dict[str, str]) -> None:
        self.answers: dict[str, Any] = {
            TOKEN: {"access_token": "the-token", "expires_in": 7200}, LIST: {"template_list": list(templates)},
        }  # fmt: skip
        self.asked: list[tuple[str, Any]] = []
        """(path, body; of a GET its query) of every request."""
        self._gate = threading.Event()
        self._gate.set()
        self.ledger = Path("/nonexistent/ledger.jsonl")
        """There is none: this API accepts whatever comes."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, the question for the list of templates is not answered."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def list(self, *templates: dict[str, str]) -> None:
        self.answers[LIST] = {"template_list": list(templates)}

    def times(self, path: str) -> int:
        return sum(each == path for each, _ in self.asked)

    def answer(self, path: str, what: Any) -> tuple[int, bytes]:
        self.asked.append((path, what))
        if path == LIST:
            self._gate.wait(20)
        given = self.answers.get(path, {"errcode": 0, "errmsg": "ok", "msgid": 200163836})
        if isinstance(given, int):
            return given, b"<html>"
        return 200, json.dumps(given).encode()


def _handler(listing: Listing) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._reply(url.path, parse_qs(url.query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._reply(urlsplit(self.path).path, json.loads(body))

        def _reply(self, path: str, what: Any) -> None:
            status, data = listing.answer(path, what)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
