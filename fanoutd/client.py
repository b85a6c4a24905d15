"""The client library: four lines from a submission to its campaign.

    from fanoutd.client import Client
    with Client("/run/fanoutd/fanoutd.sock") as c:
        print(c.submit(content="…", phone="110"))
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fanoutd.lines import LineBuffer, encode

FINAL = ("done", "cancelled", "failed")


class ClientError(Exception):
    """The daemon refused: ``code`` as in JSON-RPC, ``data`` the field it is about, or None."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.data = code, data


class BadRequest(ClientError):
    """What was asked cannot be used: -32602 and the other codes of malformed requests."""


class NotPermitted(ClientError):
    """-32001: this user may not."""


class NoSuchCampaign(ClientError):
    """-32002"""


class WrongState(ClientError):
    """-32003"""


class TooLarge(ClientError):
    """-32004: the line is longer than max_request."""


class TryAgain(ClientError):
    """-32005: not now."""


class Unreachable(ConnectionError):
    """No daemon listens on the socket, or it went away before it answered."""


_BY_CODE: dict[int, type[ClientError]] = {
    -32001: NotPermitted,
    -32002: NoSuchCampaign,
    -32003: WrongState,
    -32004: TooLarge,
    -32005: TryAgain,
}


class Client:
    """One connection. ``timeout`` in seconds holds for each answer."""

    def __init__(self, path: str | Path, timeout: float = 10.0) -> None:
        """Raises Unreachable, PermissionError."""
        self._path = str(path)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(timeout)
        self._lines = LineBuffer()
        self._waiting: list[dict[str, Any]] = []
        self._number = 0
        try:
            self._sock.connect(self._path)
        except (FileNotFoundError, ConnectionError, BlockingIOError, TimeoutError) as e:
            self._sock.close()
            raise Unreachable(f"no daemon answers on {self._path} ({e.strerror or e})") from None
        except OSError:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def call(self, method: str, **params: Any) -> Any:
        """The method's result. Raises ClientError, Unreachable."""
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        while True:
            answer = self._receive()
            if "id" in answer and answer["id"] in (self._number, None):
                break
        if "error" in answer:
            error = answer["error"]
            raise _BY_CODE.get(error["code"], BadRequest)(error["code"], error["message"], error.get("data"))
        return answer["result"]

    def submit(self, **params: Any) -> dict[str, Any]:
        """Submit a campaign: ``{"campaign": id, "duplicate": bool}`` once it is safe on disk."""
        result: dict[str, Any] = self.call("campaign.submit", **params)
        return result

    def campaign(self, campaign: str) -> dict[str, Any]:
        """The campaign object."""
        result: dict[str, Any] = self.call("campaign.get", campaign=campaign)
        return result

    def watch(self, campaign: str) -> Iterator[dict[str, Any]]:
        """The campaign object as it changes, until its state is final or the caller stops."""
        seen: dict[str, Any] = self.call("campaign.watch", campaign=campaign)
        yield seen
        self._sock.settimeout(None)
        while seen["state"] not in FINAL:
            note = self._receive()
            if note.get("method") == "campaign.progress" and note["params"]["id"] == seen["id"]:
                seen = note["params"]
                yield seen

    def deliveries(self, campaign: str, state: str | None = None) -> Iterator[dict[str, Any]]:
        """Everybody of the campaign in sending order, fetched page by page."""
        after = None
        while True:
            page = self.call("campaign.deliveries", campaign=campaign, state=state, after=after)
            yield from page["rows"]
            after = page["next"]
            if after is None:
                return

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._sock.sendall(encode(request))
        except TimeoutError:
            raise Unreachable(f"the daemon on {self._path} does not read") from None
        except ConnectionError:
            pass  # it may have answered before it hung up: a line too long, say

    def _receive(self) -> dict[str, Any]:
        while not self._waiting:
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                raise Unreachable(f"the daemon on {self._path} does not answer") from None
            except ConnectionError:
                data = b""
            if not data:
                raise Unreachable(f"the daemon on {self._path} hung up")
            self._waiting = self._lines.messages(data)
        return self._waiting.pop(0)
