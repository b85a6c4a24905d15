"""WeChat's lists of followers, with their quirks, on a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Lists:
    """What is served. ``end``: ``extra`` (one more page without data), ``empty`` (next_openid) or ``repeat``."""

    people: list[str]
    page_size: int = 3
    end: str = "extra"
    total: int | None = None
    tags: dict[int, list[str]] = field(default_factory=dict)
    errors: list[Any] = field(default_factory=list)
    """Answers to the coming calls; a callable is called first and its answer, if it has one, is that."""
    asked: list[str] = field(default_factory=list)
    """next_openid of each call."""
    tokens: int = 0
    url: str = ""

    def token(self) -> dict[str, Any]:
        self.tokens += 1
        return {"access_token": f"token-{self.tokens}", "expires_in": 7200}

    def page(self, people: list[str], after: str) -> dict[str, Any]:
        self.asked.append(after)
        if self.errors:
            answer = self.errors.pop(0)
            answer = answer() if callable(answer) else answer
            if answer is not None:
                return dict(answer)
        at = people.index(after) + 1 if after else 0
        some = people[at : at + self.page_size]
        total = len(people) if self.total is None else self.total
        last = at + self.page_size >= len(people)
        if not some:
            repeated = {"next_openid": after} if self.end == "repeat" else {}
            return {"total": total, "count": 0, **repeated}
        following = "" if last and self.end == "empty" else some[-1]
        if last and self.end == "repeat" and after:
            following = after
        return {"total": total, "count": len(some), "data": {"openid": some}, "next_openid": following}


@contextmanager
def served(lists: Lists) -> Iterator[Lists]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            self._say(lists.page(lists.people, query["next_openid"][0]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.startswith("/cgi-bin/stable_token"):
                self._say(lists.token())
            else:
                if body["tagid"] not in lists.tags:
                    self._say({"errcode": 45159, "errmsg": "invalid tag"})
                    return
                self._say(lists.page(lists.tags[body["tagid"]], body["next_openid"]))

        def _say(self, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    lists.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield lists
    finally:
        server.shutdown()
        server.server_close()
