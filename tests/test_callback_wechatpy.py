"""The call-back against wechatpy, which we did not write: each understands what the other encrypts and signs."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.utils import check_signature

from fanoutd.callback import Callback
from fanoutd.callback.parsing import parse
from support.bench import wait_for
from support.fake_daemon import REPLIES, FakeDaemon, fake_daemon
from support.pushes import ACCOUNT_NAME, PERSON, TOKEN, ask, push, sha1, signed, xml

AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
APP_ID = "wx0123456789abcdef"
FLOOD, CONNECTIONS = 5000, 8


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as found:
        yield found


@pytest.fixture
def app(daemon: FakeDaemon) -> Iterator[Callback]:
    made = Callback(daemon.path, TOKEN, AES_KEY, APP_ID)
    yield made
    made.close(2.0)


@pytest.fixture
def peer() -> Any:
    return WeChatCrypto(TOKEN, AES_KEY, APP_ID)


def sealed(peer: Any, message: str) -> tuple[str, str]:
    """Query and body of a push that wechatpy has encrypted and signed."""
    timestamp, nonce = str(int(time.time())), "1597212914"
    body: str = peer.encrypt_message(message, nonce, timestamp)
    query = {"signature": sha1(TOKEN, timestamp, nonce), "timestamp": timestamp, "nonce": nonce, "openid": PERSON,
             "encrypt_type": "aes", "msg_signature": parse(body.encode())[0]["MsgSignature"]}  # fmt: skip
    return urlencode(query), body


# ---- signatures


@pytest.mark.parametrize("signature", ["", "0" * 40, "good"])
def test_it_agrees_about_signatures(app: Callback, signature: str) -> None:
    timestamp, nonce = str(int(time.time())), "486452656"
    given = sha1(TOKEN, timestamp, nonce) if signature == "good" else signature
    try:
        check_signature(TOKEN, given, timestamp, nonce)
        theirs = 200
    except InvalidSignatureException:
        theirs = 403
    query = urlencode({"signature": given, "timestamp": timestamp, "nonce": nonce, "echostr": "x"})
    assert ask(app, query).status == theirs


# ---- what wechatpy encrypts


@pytest.mark.parametrize(
    ("fields", "event"),
    [({"kind": "text", "Content": "你好，世界", "MsgId": 1}, "message"),
     ({"kind": "event", "Event": "CLICK", "EventKey": "菜单"}, "menu"),
     ({"kind": "event", "Event": "TEMPLATESENDJOBFINISH", "MsgID": 200163836, "Status": "success"}, "finish")],
    ids=["message", "menu", "finish"],
)  # fmt: skip
def test_what_it_encrypts_is_understood(
    daemon: FakeDaemon, app: Callback, peer: Any, fields: dict[str, Any], event: str
) -> None:
    message = xml(**fields)
    assert parse_message(message).source == PERSON  # it takes our pushes for WeChat's
    assert ask(app, *sealed(peer, message)).status == 200
    wait_for(lambda: daemon.events, "the event")
    assert daemon.events[0]["event"] == event


def test_what_it_encrypts_for_another_account_is_refused(app: Callback) -> None:
    assert ask(app, *sealed(WeChatCrypto(TOKEN, AES_KEY, "wx0000000000000000"), xml("text", MsgId=1))).status == 403
    other = WeChatCrypto("another", AES_KEY, APP_ID)
    assert ask(app, *sealed(other, xml("text", MsgId=1))).status == 403


# ---- what wechatpy decrypts


def test_it_decrypts_and_parses_the_encrypted_reply(app: Callback, peer: Any) -> None:
    answer = ask(app, *sealed(peer, xml("text", Content="0", MsgId=1)))
    cover, _ = parse(answer.body)
    plain = peer.decrypt_message(answer.body, cover["MsgSignature"], cover["TimeStamp"], cover["Nonce"])
    reply = parse_message(plain)
    assert (reply.type, reply.content) == ("text", REPLIES["0"])
    assert (reply.source, reply.target) == (ACCOUNT_NAME, PERSON)


def test_it_parses_the_plain_reply(app: Callback) -> None:
    reply = parse_message(push(app, xml("text", Content="1", MsgId=1)).body)
    assert (reply.type, reply.content) == ("text", REPLIES["1"])
    assert (reply.source, reply.target) == (ACCOUNT_NAME, PERSON)


# ---- over HTTP


class _Handler(WSGIRequestHandler):
    """wsgiref speaks HTTP/1.0; one request after the other on a connection is all that this adds."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection:
            self._one()

    def _one(self) -> None:
        from wsgiref.simple_server import ServerHandler

        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        handler = ServerHandler(self.rfile, self.wfile, self.get_stderr(), self.get_environ(), multithread=True)
        handler.http_version = "1.1"
        handler.request_handler = self  # type: ignore[attr-defined]
        handler.run(self.server.get_app())  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


@pytest.fixture
def port(app: Callback) -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.set_app(app)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_over_http(daemon: FakeDaemon, port: int, peer: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/wechat?" + signed(echostr="hello"))
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"hello")
    for query, body, status in ((*sealed(peer, xml("text", Content="hi", MsgId=9)), 200),
                                (signed(signature="x"), "<xml/>", 403), (signed(), "<xml>", 400)):  # fmt: skip
        connection.request("POST", "/wechat?" + query, body.encode())
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    wait_for(lambda: daemon.events, "the event")


def _person(i: int) -> str:
    return f"oTEST{i:023d}"


def _flood(port: int, first: int) -> list[float]:
    """Every CONNECTIONS-th receipt on one connection, each third of them twice; seconds that each took."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for i in range(first, FLOOD, CONNECTIONS):
        body = xml("event", _person(i), Event="TEMPLATESENDJOBFINISH", MsgID=i + 1, Status="success").encode()
        for _ in range(1 if i % 3 else 2):
            began = time.monotonic()
            connection.request("POST", "/wechat?" + signed(), body)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"success")
            took.append(time.monotonic() - began)
    connection.close()
    return took


@pytest.mark.alone
def test_a_flood_of_receipts(daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The worst reported was 70,000 in five minutes: 233 a second."""
    began = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        took = sorted(each for part in pool.map(_flood, [port] * CONNECTIONS, range(CONNECTIONS)) for each in part)
    seconds = time.monotonic() - began
    wait_for(lambda: len(daemon.events) >= FLOOD, f"{FLOOD} events", 30.0)
    longest, p99 = took[-1], took[len(took) * 99 // 100]
    with capsys.disabled():
        print(f"\n{len(took)} receipts over HTTP: {len(took) / seconds:.0f}/s, p99 {p99 * 1000:.0f} ms, longest "
              f"{longest * 1000:.0f} ms, {daemon.lines} lines to the daemon")  # fmt: skip
    assert sorted(each["msgid"] for each in daemon.events) == list(range(1, FLOOD + 1))
    assert {each["openid"] for each in daemon.events} == {_person(i) for i in range(FLOOD)}
    assert p99 < 1.0 and longest < 5.0 and seconds < FLOOD / 233
    assert daemon.connections == 1 and daemon.lines < FLOOD
