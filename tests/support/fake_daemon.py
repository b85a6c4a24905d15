"""A daemon's socket in a thread: JSON lines and batches, everything that it is told kept in order."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanoutd.lines import LineBuffer, encode

REPLIES = {"0": "您已取消接收", "1": "您已重新接收"}


class FakeDaemon:
    """``refuse`` maps a method to the errors with which its next calls are refused; ``deaf`` reads, answers nothing."""

    def __init__(self, path: Path, max_request: int = 1 << 20) -> None:
        self.path = path
        self.max_request = max_request
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.lines = 0
        self.connections = 0
        self.refuse: dict[str, list[int]] = {}
        self.refuse_lines: list[int] = []
        self.deaf = False
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [params for method, params in self.calls if method == "subscriber.event"]

    @property
    def orders(self) -> list[dict[str, Any]]:
        return [params for method, params in self.calls if method == "subscriber.reply"]

    def hang_up(self) -> None:
        """On everybody who is connected."""
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        lines = LineBuffer()
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    for line in lines.feed(data):
                        self._line(connection, line)
            except OSError:
                pass

    def _line(self, connection: socket.socket, line: bytes) -> None:
        self.lines += 1
        asked = json.loads(line)
        if self.deaf:
            return
        if len(line) > self.max_request:
            connection.sendall(encode(_error(None, -32004)))
        elif self.refuse_lines:
            connection.sendall(encode(_error(None, self.refuse_lines.pop(0))))
        elif isinstance(asked, list):
            connection.sendall(encode([self._one(each) for each in asked]))
        else:
            connection.sendall(encode(self._one(asked)))

    def _one(self, asked: dict[str, Any]) -> dict[str, Any]:
        method, params = asked["method"], asked["params"]
        if codes := self.refuse.get(method):
            return _error(asked["id"], codes.pop(0))
        self.calls.append((method, params))
        result = {"reply": REPLIES.get(params["content"])} if method == "subscriber.reply" else {}
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


def _error(id: Any, code: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "as the test wants it", "data": None}}


@contextmanager
def fake_daemon(folder: Path, max_request: int = 1 << 20) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(folder / "fanoutd.sock", max_request)
    try:
        yield daemon
    finally:
        daemon.stop()
