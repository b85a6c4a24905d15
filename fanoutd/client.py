"""The client library: four lines from a submission to its campaign.

    from fanoutd.client import Client
    with Client("/run/fanoutd/fanoutd.sock") as c:
        print(c.submit(content="…", phone="110"))
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
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
    """No daemon listens on the socket, it went away before it answered, or what listens there is none."""


_BY_CODE: dict[int, type[ClientError]] = {
    -32001: NotPermitted,
    -32002: NoSuchCampaign,
    -32003: WrongState,
    -32004: TooLarge,
    -32005: TryAgain,
}


def _refusal(answer: dict[str, Any]) -> ClientError:
    error = answer["error"]
    return _BY_CODE.get(error["code"], BadRequest)(error["code"], error["message"], error.get("data"))


class Client:
    """One connection. ``timeout`` in seconds holds for each answer."""

    def __init__(self, path: str | Path, timeout: float = 10.0) -> None:
        """Raises Unreachable, PermissionError."""
        self._path = str(path)
        self._timeout = timeout
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(timeout)
        self._lines = LineBuffer()
        self._waiting: list[dict[str, Any]] = []
        self._number = 0
        #: By the number of the request: the campaign that is watched, and its newest object that was not seen yet.
        self._watches: dict[int, tuple[str, deque[dict[str, Any]]]] = {}
        try:
            self._sock.connect(self._path)
        except PermissionError:
            self._sock.close()
            raise
        except OSError as e:
            self._sock.close()
            raise Unreachable(f"no daemon answers on {self._path} ({e.strerror or e})") from None

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
            self._note(answer)
            if "id" in answer and answer["id"] in (self._number, None):
                break
        if "error" in answer:
            raise _refusal(answer)
        return answer["result"]

    def call_many(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """The results of several calls, method and params each, in their order, asked as one batch on one line.

        A call that was refused has its ClientError in its place. Raises ClientError when the line as a whole
        was refused, and Unreachable: then nobody knows which of them were carried out.
        """
        if not calls:
            return []
        numbers = range(self._number + 1, self._number + 1 + len(calls))
        self._number += len(calls)
        asked = zip(numbers, calls, strict=True)
        self._send([
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params} for number, (method, params) in asked
        ])  # fmt: skip
        found: dict[int, Any] = {}
        while len(found) < len(calls):
            answer = self._receive()
            self._note(answer)
            if "error" in answer and answer.get("id") is None:
                raise _refusal(answer)
            if answer.get("id") in numbers:
                found[answer["id"]] = _refusal(answer) if "error" in answer else answer["result"]
        return [found[number] for number in numbers]

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
        number, news = self._number, deque[dict[str, Any]](maxlen=1)
        self._watches[number] = seen["id"], news
        try:
            yield seen
            while seen["state"] not in FINAL:
                seen = self._next(news)
                yield seen
        finally:
            del self._watches[number]

    def _next(self, news: deque[dict[str, Any]]) -> dict[str, Any]:
        """A campaign may rest for days: this is waited for without an end."""
        self._sock.settimeout(None)
        try:
            while not news:
                self._note(self._receive())
        finally:
            self._sock.settimeout(self._timeout)
        return news.popleft()

    def _note(self, message: dict[str, Any]) -> None:
        """Keep it for whoever watches, if it is progress: it may come while an answer is waited for."""
        if message.get("method") == "campaign.progress":
            for campaign, news in self._watches.values():
                if campaign == message["params"]["id"]:
                    news.append(message["params"])

    def deliveries(self, campaign: str, state: str | None = None) -> Iterator[dict[str, Any]]:
        """Everybody of the campaign in sending order, fetched page by page."""
        after = None
        while True:
            page = self.call("campaign.deliveries", campaign=campaign, state=state, after=after)
            yield from page["rows"]
            after = page["next"]
            if after is None:
                return

    def _send(self, request: dict[str, Any] | list[dict[str, Any]]) -> None:
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
            try:
                values: list[Any] = list(self._lines.messages(data))
                # a batch is answered by a list, which is never empty
                messages = [each for value in values for each in ((isinstance(value, list) and value) or [value])]
            except ValueError:
                messages = [None]
            if not all(isinstance(each, dict) for each in messages):
                raise Unreachable(f"what listens on {self._path} does not speak as a daemon does")
            self._waiting += messages
        return self._waiting.pop(0)
