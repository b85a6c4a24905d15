"""A token endpoint that answers as it is told; everything else goes on to the sandbox behind it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from support.sandbox import SandboxProcess


class TokenGate:
    """``answers``: what the endpoint says, one after the other, the last one for ever; none: what the sandbox says."""

    def __init__(self, sandbox: SandboxProcess | None = None) -> None:
        self._behind = sandbox
        self.answers: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        """(method, path, body) of the calls for a token."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        """For all else it is the sandbox."""
        return getattr(self._behind, name)

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        if path.startswith(("/cgi-bin/token", "/cgi-bin/stable_token")):
            self.asked.append((method, path, json.loads(body or b"{}")))
            if self.answers:
                said = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
                return json.dumps(said).encode()
        assert self._behind is not None
        return requests.request(method, f"{self._behind.url}{path}", data=body, timeout=10).content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(gate: TokenGate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = gate.answer(self.command, self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    return Handler
