"""The client library: four lines from a submission to its campaign.

    from fanoutd.client import Client
    with Client("/run/fanoutd/fanoutd.sock") as c:
        print(c.submit(content="…", phone="110"))

With ``spool`` and ``alert`` a submission outlives a daemon that is away, and somebody hears of it (``fanoutd.away``):

    with Client(path, spool="/var/spool/fanoutd", alert=mailed("smtp://…", "…@example.com", ["ops@example.com"])) as c:
        print(c.submit(content="…", key=f"order-{number}"))
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fanoutd.lines import LineBuffer, encode

_log = logging.getLogger(__name__)

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
    """One connection. ``timeout`` in seconds holds for each answer.

    ``spool`` is the daemon's drop folder (``[daemon] drop``): ``submit`` leaves there what the daemon cannot be given.
    ``alert(why, kept)`` is called then: ``why`` in words, ``kept`` whether the submission is. ``mailed`` of
    ``fanoutd.away.alert`` makes one that mails.
    """

    def __init__(
        self, path: str | Path, timeout: float = 10.0, *, spool: str | Path | None = None,
        alert: Callable[[str, bool], None] | None = None,
    ) -> None:  # fmt: skip
        """Raises Unreachable (with ``spool`` or ``alert`` only later, by what is asked), PermissionError."""
        self._path = str(path)
        self._timeout = timeout
        self._spool, self._alert = None if spool is None else Path(spool), alert
        #: Why there is no connection.
        self._away: Unreachable | None = None
        try:
            self._connect()
        except Unreachable as e:
            if spool is None and alert is None:
                raise
            self._away = e

    def _connect(self) -> None:
        """A new connection, which knows nothing of an earlier one."""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(self._timeout)
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
        self._away = None

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
        """Submit a campaign: ``{"campaign": id, "duplicate": bool}`` once it is safe on disk.

        With ``spool`` it has a key, one of ours if need be. The answer has it as ``key``, and ``spooled`` says whether
        it was left for the daemon: its id is None then, unless ``account`` was given, which makes it with the key.
        """
        if self._spool is None and self._alert is None:
            result: dict[str, Any] = self.call("campaign.submit", **params)
            return result
        return self._submit_or_leave(params)

    def _submit_or_leave(self, params: dict[str, Any]) -> dict[str, Any]:
        """The key is there before the first try: the daemon may have it although no answer came."""
        from fanoutd.away.drop import new_key

        if self._spool is not None:
            params = {**params, "key": new_key() if params.get("key") is None else params["key"]}
        try:
            if self._away is not None:
                self._connect()
            result: dict[str, Any] = self.call("campaign.submit", **params)
        except (Unreachable, TryAgain) as e:
            if isinstance(e, Unreachable):
                self.close()
                self._away = e
            return self._leave(params, e)
        return result if self._spool is None else {**result, "spooled": False, "key": params["key"]}

    def _leave(self, params: dict[str, Any], why: Unreachable | TryAgain) -> dict[str, Any]:
        """Raises ``why`` when it is not kept."""
        from fanoutd.away.drop import campaign_of, leave

        if self._spool is not None:
            try:
                leave(self._spool, params)
            except OSError as e:
                why = Unreachable(f"{why}; not kept in {self._spool}: {e.strerror}")
                self._tell(str(why), False)
                raise why from None
        self._tell(str(why), self._spool is not None)
        if self._spool is None:
            raise why
        campaign = None if params.get("account") is None else campaign_of(params["account"], params)
        return {"campaign": campaign, "duplicate": False, "spooled": True, "key": params["key"]}

    def _tell(self, why: str, kept: bool) -> None:
        if self._alert is not None:
            try:
                self._alert(why, kept)
            except Exception as e:  # what is kept is kept
                _log.warning("nobody was told that the daemon is away: %s", e)

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
        if self._away is not None:
            raise self._away
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
