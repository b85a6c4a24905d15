"""The call-back as WeChat sees it, against a daemon's socket: what is answered, and what the daemon is told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanoutd.callback import Callback, outbox
from fanoutd.callback.crypto import Key
from fanoutd.callback.parsing import parse
from support.bench import wait_for
from support.fake_daemon import REPLIES, FakeDaemon, fake_daemon
from support.pushes import ACCOUNT_NAME, PERSON, TOKEN, ask, push, sha1, signed, xml

AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
OLD_KEY = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
APP_ID = "wx0123456789abcdef"

Make = Callable[..., Callback]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as found:
        yield found


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Callback] = []

    def build(**options: Any) -> Callback:
        made.append(Callback(tmp_path / "fanoutd.sock", TOKEN, **options))
        return made[-1]

    yield build
    for each in made:
        each.close(1.0)


@pytest.fixture
def safe(make: Make) -> Callback:
    return make(aes_key=AES_KEY, app_id=APP_ID, previous_aes_key=OLD_KEY)


def told(daemon: FakeDaemon, count: int) -> list[dict[str, Any]]:
    wait_for(lambda: len(daemon.events) >= count, f"{count} events")
    return daemon.events


def receipt(i: int = 1, openid: str = PERSON) -> str:
    return xml("event", openid, Event="TEMPLATESENDJOBFINISH", MsgID=i, Status="success")


def text(content: str, **more: Any) -> str:
    return xml("text", Content=content, **{"MsgId": 4711, **more})


def sealed(message: str, key: str = AES_KEY, app_id: str = APP_ID, beside: str = "", **more: str) -> tuple[str, str]:
    """Query and body of a push in safe mode; with ``beside`` in compatible mode."""
    encrypt, timestamp, nonce = Key(key).seal(message.encode(), app_id), str(int(time.time())), "77"
    query = {"signature": sha1(TOKEN, timestamp, nonce), "timestamp": timestamp, "nonce": nonce,
             "encrypt_type": "aes", "msg_signature": sha1(TOKEN, timestamp, nonce, encrypt)}  # fmt: skip
    body = f"<xml><ToUserName>x</ToUserName><Encrypt><![CDATA[{encrypt}]]></Encrypt>{beside}</xml>"
    return urlencode(query | more), body


def test_it_keeps_to_the_standard_of_wsgi(daemon: FakeDaemon, make: Make) -> None:
    from wsgiref.util import setup_testing_defaults
    from wsgiref.validate import validator

    for query, body, status in ((signed(echostr="x"), None, 200), ("a=1", None, 403), (signed(), text("0"), 200),
                                (signed(), "<xml>", 400)):  # fmt: skip
        environ: dict[str, Any] = {"QUERY_STRING": query, "CONTENT_LENGTH": str(len((body or "").encode())),
                                   "REQUEST_METHOD": "POST" if body else "GET",
                                   "wsgi.input": io.BytesIO((body or "").encode())}  # fmt: skip
        setup_testing_defaults(environ)
        said: list[str] = []
        answer = validator(make())(environ, lambda line, _headers, _error=None, said=said: said.append(line))
        assert list(answer) and said[0].startswith(f"{status} ")
        answer.close()  # type: ignore[attr-defined]
    assert len(told(daemon, 1)) == 1


# ---- the address is entered in WeChat's console


def test_the_address_is_verified(make: Make) -> None:
    answer = ask(make(), signed(echostr="4375120948345356249"))
    assert (answer.status, answer.body) == (200, b"4375120948345356249")
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_an_encrypted_echo_is_given_back_in_plain(safe: Callback) -> None:
    echo, timestamp = Key(AES_KEY).seal(b"1234567", APP_ID), str(int(time.time()))
    query = {"msg_signature": sha1(TOKEN, timestamp, "1", echo), "timestamp": timestamp, "nonce": "1", "echostr": echo}
    assert ask(safe, urlencode(query)).body == b"1234567"
    assert ask(safe, urlencode(query | {"echostr": Key(AES_KEY).seal(b"7654321", APP_ID)})).status == 403
    assert ask(safe, signed(echostr="plain")).body == b"plain"


def test_the_published_vector_verifies_at_its_own_time() -> None:
    vector = {"signature": "899cf89e464efb63f54ddac96b0a0a235f53aa78", "timestamp": "1714037059",
              "nonce": "486452656", "echostr": "ok"}  # fmt: skip
    app = Callback("/nonexistent", "AAAAA", clock=lambda: 1714037060.0)
    assert ask(app, urlencode(vector)).body == b"ok"
    assert ask(Callback("/nonexistent", "AAAAA"), urlencode(vector)).status == 403


# ---- who is refused


FORGED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "empty": lambda: "signature=&timestamp=&nonce=",
    "zeros": lambda: signed(signature="0" * 40),
    "no letters": lambda: signed(signature="é"),
    "another token": lambda: signed(token="another"),
    "another time": lambda: signed(timestamp=str(int(time.time()) + 1)),
    "another nonce": lambda: signed() + "1",
    "bytes": lambda: "signature=%ff%fe&timestamp=1&nonce=%00",
    "unsigned": lambda: urlencode({"timestamp": int(time.time()), "nonce": "1"}),
    "name alone": lambda: "timestamp",
}


@pytest.mark.parametrize("query", FORGED.values(), ids=FORGED)
def test_the_forged_and_unsigned_are_403(daemon: FakeDaemon, make: Make, query: Callable[[], str]) -> None:
    app = make()
    answers = [ask(app, query()), ask(app, "echostr=hello&" + query()), ask(app, query(), receipt())]
    assert [(each.status, each.body) for each in answers] == [(403, b"")] * 3
    assert app.close() and not daemon.calls


@pytest.mark.parametrize("age", [-400, -301 - 30, 330, 1e9])
def test_old_and_future_requests_are_403(make: Make, age: float) -> None:
    assert ask(make(), signed(time.time() + age, echostr="x")).status == 403
    assert ask(make(), signed(time.time() + age), receipt()).status == 403
    assert ask(make(), signed(time.time() - 200, echostr="x")).status == 200


def test_encrypted_pushes_are_held_to_their_own_signature(daemon: FakeDaemon, safe: Callback) -> None:
    good, body = sealed(receipt())
    other = sealed(receipt(2))[1]
    assert ask(safe, good, other).status == 403  # its address is signed, its message is not
    assert ask(safe, sealed(receipt(), msg_signature="")[0], body).status == 403
    assert ask(safe, sealed(receipt(), msg_signature="0" * 40)[0], body).status == 403
    assert ask(safe, *sealed(receipt(), app_id="wxffffffffffffffff")).status == 403
    assert safe.close() and not daemon.calls


def test_plain_pushes_can_be_refused(make: Make) -> None:
    app = make(aes_key=AES_KEY, app_id=APP_ID, only_encrypted=True)
    assert push(app, receipt()).status == 403
    assert ask(app, signed(echostr="x")).status == 200


#: Of environ, where a body that is None is a good one.
BROKEN: dict[str, Any] = {
    "nothing": {"body": b""},
    "rubbish": {"body": b"hello"},
    "doctype": {"body": b'<!DOCTYPE x [<!ENTITY a "b">]><xml><MsgType>&a;</MsgType></xml>'},
    "no type": {"body": b"<xml><A>1</A></xml>"},
    "no person": {"body": b"<xml><MsgType>text</MsgType><CreateTime>1</CreateTime></xml>"},
    "encrypted without a key": {"body": b"<xml><Encrypt>abcd</Encrypt></xml>"},
    "too long": {"body": b"<xml><MsgType>" + b"x" * 66_000 + b"</MsgType></xml>"},
    "too long, chunked": {
        "body": b"<xml><MsgType>" + b"x" * 66_000 + b"</MsgType></xml>", "CONTENT_LENGTH": "",
        "wsgi.input_terminated": True},
    "cut off": {"body": None, "CONTENT_LENGTH": "5000"},
    "no length": {"body": None, "CONTENT_LENGTH": "many"},
    "minus": {"body": None, "CONTENT_LENGTH": "-1"},
    "huge": {"body": None, "CONTENT_LENGTH": "9" * 5000},
    "length without a body": {"body": None, "CONTENT_LENGTH": ""},
}  # fmt: skip


@pytest.mark.parametrize("environ", BROKEN.values(), ids=BROKEN)
def test_broken_pushes_are_400(daemon: FakeDaemon, make: Make, environ: dict[str, Any]) -> None:
    app = make()
    answer = ask(app, signed(), **(environ | {"body": receipt() if environ["body"] is None else environ["body"]}))
    assert (answer.status, answer.body) == (400, b"")
    assert app.close() and not daemon.calls


def test_a_chunked_push_is_read(daemon: FakeDaemon, make: Make) -> None:
    environ = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert ask(make(), signed(), receipt(), **environ).status == 200
    assert len(told(daemon, 1)) == 1


def test_an_address_of_a_thousand_parameters_and_a_client_that_hangs_up(make: Make) -> None:
    class Gone(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise ConnectionResetError

    assert ask(make(), signed() + "&a=1" * 1000, receipt()).status == 400
    assert ask(make(), signed(), receipt(), **{"wsgi.input": Gone()}).status == 400


def test_what_is_refused_is_read_to_its_end(make: Make) -> None:
    """Or a server that keeps connections would take the rest for the next request."""
    for query in (signed(signature="x"), signed(time.time() - 1000), signed()):
        rest = io.BytesIO(b"<xml>NEXT")
        assert ask(make(), query, method="POST", CONTENT_LENGTH="5", **{"wsgi.input": rest}).status in (400, 403)
        assert rest.read() == b"NEXT"


def test_a_get_without_an_echo_and_other_methods(make: Make) -> None:
    assert ask(make(), signed()).status == 400
    answer = ask(make(), signed(), method="DELETE")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")


def test_broken_inside_a_good_cover_is_400(safe: Callback) -> None:
    assert ask(safe, *sealed("<xml>")).status == 400
    assert ask(safe, *sealed(receipt(), key="x" * 43)).status == 400
    timestamp = str(int(time.time()))
    for encrypt in ("abc", "é", "AAAA"):
        query = signed(encrypt_type="aes", msg_signature=sha1(TOKEN, timestamp, "1372623149", encrypt))
        assert ask(safe, query, json.dumps({"Encrypt": encrypt})).status == 400
    query = signed(encrypt_type="aes", msg_signature="x")
    assert [ask(safe, query, body).status for body in ('{"Encrypt": 5}', '{"Encrypt": "\\ud800"}')] == [400, 403]


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.binary(max_size=60), st.text(max_size=20), st.sampled_from(["GET", "POST", "", None]), st.booleans())
def test_nothing_reaches_the_server_as_an_exception(body: bytes, query: str, method: Any, is_signed: bool) -> None:
    """No socket is there either."""
    app = Callback("/nonexistent", TOKEN, AES_KEY, APP_ID)
    environ = {"QUERY_STRING": (signed() + "&" if is_signed else "") + query, "REQUEST_METHOD": method,
               "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}  # fmt: skip
    status: list[str] = []
    app(environ, lambda said, _headers: status.append(said))
    assert status[0][:3] in ("400", "403", "405")


@pytest.mark.parametrize(
    "wrong",
    [{"token": ""}, {"aes_key": "short", "app_id": APP_ID}, {"aes_key": AES_KEY}, {"previous_aes_key": OLD_KEY},
     {"only_encrypted": True}, {"aes_key": AES_KEY, "app_id": APP_ID, "previous_aes_key": "short"}],
)  # fmt: skip
def test_wrong_keys_are_found_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Callback(**({"socket": "/nonexistent", "token": TOKEN} | wrong))


# ---- events


def test_an_event_is_handed_to_the_daemon(daemon: FakeDaemon, make: Make) -> None:
    at = int(time.time())
    answer = push(make(account="main"), xml("event", at=at, Event="CLICK", EventKey="k"))
    assert (answer.status, answer.body) == (200, b"success")
    assert told(daemon, 1) == [{"openid": PERSON, "event": "menu", "at": at, "account": "main"}]


def test_without_an_account_none_is_named(daemon: FakeDaemon, make: Make) -> None:
    assert push(make(), receipt()).status == 200
    assert "account" not in told(daemon, 1)[0]


def test_json_pushes_are_taken(daemon: FakeDaemon, make: Make) -> None:
    fields = {"ToUserName": ACCOUNT_NAME, "FromUserName": PERSON, "CreateTime": int(time.time()), "MsgType": "event",
              "Event": "TEMPLATESENDJOBFINISH", "MsgID": 3717005636572528642, "Status": "success"}  # fmt: skip
    assert push(make(), json.dumps(fields)).status == 200
    assert told(daemon, 1)[0]["msgid"] == 3717005636572528642


def test_what_is_no_concern_of_the_daemon_is_answered_and_dropped(daemon: FakeDaemon, make: Make) -> None:
    app = make()
    assert push(app, xml("event", Event="VIEW", EventKey="http://example.com")) == push(app, receipt())
    assert len(told(daemon, 1)) == 1 and app.close() and len(daemon.events) == 1


@pytest.mark.parametrize("key", [AES_KEY, OLD_KEY])
def test_safe_mode(daemon: FakeDaemon, safe: Callback, key: str) -> None:
    assert ask(safe, *sealed(receipt(), key)).status == 200
    assert told(daemon, 1)[0]["event"] == "finish"


def test_compatible_mode_counts_what_is_encrypted(daemon: FakeDaemon, safe: Callback, make: Make) -> None:
    at = int(time.time())
    beside = xml("event", at=at, Event="SCAN", EventKey="1").removeprefix("<xml>").removesuffix("</xml>")
    query, body = sealed(receipt(5), beside=beside.replace("<ToUserName>", "<To>").replace("</ToUserName>", "</To>"))
    assert ask(safe, query, body).status == 200
    assert told(daemon, 1)[0]["event"] == "finish"
    assert ask(make(), query, body).status == 200  # who has no key reads what is plain
    assert told(daemon, 2)[1]["event"] == "scan"


def test_with_a_key_plain_pushes_are_still_taken(daemon: FakeDaemon, safe: Callback) -> None:
    assert push(safe, receipt()).status == 200
    assert len(told(daemon, 1)) == 1


def test_a_repeat_is_answered_and_told_once(daemon: FakeDaemon, make: Make) -> None:
    app = make()
    bodies = [receipt(1), receipt(2), text("hello"), xml("event", Event="subscribe", EventKey="qrscene_1", Ticket="t")]
    for body in bodies * 3:
        assert push(app, body).body == b"success"
    assert app.close() and [each["event"] for each in daemon.events] == ["finish", "finish", "message", "subscribe"]


# ---- 0 and 1


@pytest.mark.parametrize(("content", "order"), [("0", "0"), ("１", "1")])
def test_an_order_is_answered_with_the_daemons_text(
    daemon: FakeDaemon, make: Make, content: str, order: str
) -> None:
    app = make(account="main")
    answer = push(app, text(content))
    fields, as_json = parse(answer.body)
    assert not as_json and answer.headers["Content-Type"].startswith("application/xml")
    assert abs(int(fields.pop("CreateTime")) - time.time()) < 5
    assert fields == {"ToUserName": PERSON, "FromUserName": ACCOUNT_NAME, "MsgType": "text", "Content": REPLIES[order]}
    assert daemon.orders == [{"openid": PERSON, "content": order, "account": "main"}]
    assert told(daemon, 1)[0]["event"] == "message"


def test_a_repeated_order_gets_the_same_answer_and_is_asked_once(daemon: FakeDaemon, make: Make) -> None:
    app = make(clock=lambda at=time.time(): at)
    first = push(app, text("0"))
    assert push(app, text("0")) == first and REPLIES["0"].encode() in first.body
    assert app.close() and len(daemon.orders) == len(daemon.events) == 1


@pytest.mark.parametrize("key", [AES_KEY, OLD_KEY])
@pytest.mark.usefixtures("daemon")
def test_the_answer_is_encrypted_when_the_push_was(safe: Callback, key: str) -> None:
    cover, _ = parse(ask(safe, *sealed(text("0"), key)).body)
    assert cover["MsgSignature"] == sha1(TOKEN, cover["TimeStamp"], cover["Nonce"], cover["Encrypt"])
    message, app_id = Key(key).open(cover["Encrypt"])
    assert app_id == APP_ID.encode() and parse(message)[0]["Content"] == REPLIES["0"]
    assert parse(push(safe, text("1", MsgId=5)).body)[0]["Content"] == REPLIES["1"]


@pytest.mark.usefixtures("daemon")
def test_json_is_answered_in_json(make: Make) -> None:
    fields = {"ToUserName": ACCOUNT_NAME, "FromUserName": PERSON, "CreateTime": int(time.time()), "MsgType": "text",
              "Content": "0", "MsgId": 1}  # fmt: skip
    answer = push(make(), json.dumps(fields))
    assert json.loads(answer.body)["Content"] == REPLIES["0"]
    assert answer.headers["Content-Type"].startswith("application/json")


def test_a_daemon_with_nothing_to_say_and_one_that_refuses(
    daemon: FakeDaemon, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    daemon.refuse["subscriber.reply"] = [-32602]
    assert push(app, text("0", MsgId=1)).body == b"success"
    monkeypatch.setitem(REPLIES, "0", " ")
    assert push(app, text("0", MsgId=2)).body == b"success"
    assert app.close() and len(daemon.orders) == 1


def test_an_order_that_cannot_be_asked_now_is_told_later_and_in_order(daemon: FakeDaemon, make: Make) -> None:
    app = make()
    daemon.deaf = True
    began = time.monotonic()
    answer = push(app, text("0", MsgId=1))
    assert (answer.status, answer.body) == (200, b"success")
    assert 1.5 < time.monotonic() - began < 4.0  # WeChat waits five seconds
    began = time.monotonic()
    assert push(app, text("1", MsgId=2)).body == b"success"  # it must not overtake, nor wait
    assert time.monotonic() - began < 1.0
    daemon.deaf = False
    daemon.hang_up()
    wait_for(lambda: len(daemon.orders) == 2, "both orders")
    assert [each["content"] for each in daemon.orders] == ["0", "1"]


@pytest.mark.parametrize("code", [-32005, -32603, -32001])
def test_an_order_that_the_daemon_cannot_take_now_is_kept(daemon: FakeDaemon, make: Make, code: int) -> None:
    daemon.refuse["subscriber.reply"] = [code, code]
    assert push(make(), text("0")).body == b"success"
    if code != -32001:
        wait_for(lambda: daemon.orders, "the order")


# ---- the daemon goes and comes


def test_what_came_while_the_daemon_was_away_is_told_when_it_is_back(tmp_path: Path, make: Make) -> None:
    app = make()
    for i in range(1, 501):
        assert push(app, receipt(i)).status == 200
    with fake_daemon(tmp_path) as daemon:
        assert [each["msgid"] for each in told(daemon, 500)] == list(range(1, 501))
        assert daemon.lines <= 10
    assert push(app, receipt(501)).status == 200
    with fake_daemon(tmp_path) as daemon:
        assert [each["msgid"] for each in told(daemon, 1)] == [501]


def test_a_lost_connection_is_made_again_and_kept_otherwise(daemon: FakeDaemon, make: Make) -> None:
    app = make()
    for i in range(1, 6):
        push(app, receipt(i))
        told(daemon, i)
    assert daemon.connections == 1
    daemon.hang_up()
    push(app, receipt(6))
    assert len(told(daemon, 6)) == 6 and daemon.connections == 2


def test_what_the_daemon_wants_later_it_gets_later_and_what_it_refuses_is_dropped(
    daemon: FakeDaemon, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    daemon.refuse["subscriber.event"] = [-32005, -32005, -32602]
    daemon.refuse_lines = [-32005, -32001]
    for i in range(1, 5):
        push(app, receipt(i))
    wait_for(lambda: not app._outbox, "an empty queue")
    assert len(daemon.events) == 3 and "refused an event" in caplog.text
    daemon.refuse["subscriber.event"] = [-32603] * 5 + [-32603] * 2
    push(app, receipt(5))
    wait_for(lambda: not app._outbox, "an end of the trying")
    push(app, receipt(6))
    assert told(daemon, 4)[3]["msgid"] == 6
    assert PERSON not in caplog.text and TOKEN not in caplog.text


def test_a_small_max_request_makes_smaller_batches(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    for i in range(1, 300):
        push(app, receipt(i) if i != 7 else xml("event", Event="TEMPLATESENDJOBFINISH", MsgID=7, Status="长" * 200))
    with fake_daemon(tmp_path, max_request=500) as daemon:
        told(daemon, 298)
        assert [each["msgid"] for each in daemon.events] == [i for i in range(1, 300) if i != 7]
    assert "longer than the daemon's max_request" in caplog.text


def test_what_is_no_daemon_is_tried_again(tmp_path: Path, make: Make) -> None:
    import socket

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "fanoutd.sock"))
    listener.listen()

    def babble() -> None:
        with listener.accept()[0] as connection:
            connection.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n{"error": 5, "id": null}\n')
            connection.recv(1 << 16)

    threading.Thread(target=babble, daemon=True).start()
    app = make()
    assert push(app, receipt()).status == 200
    wait_for(lambda: app._outbox._client is None and app._outbox._thread, "the first attempt")
    listener.close()
    (tmp_path / "fanoutd.sock").unlink()
    with fake_daemon(tmp_path) as daemon:
        assert len(told(daemon, 1)) == 1


def test_a_full_queue_is_500_and_the_repeat_is_taken(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox.Outbox.__init__, "__defaults__", (3,))
    app = make()
    answers = [push(app, receipt(i)).status for i in (1, 2, 3, 4, 4)]
    assert answers == [200, 200, 200, 500, 500]
    with fake_daemon(tmp_path) as daemon:
        told(daemon, 3)
        wait_for(lambda: not app._outbox, "an empty queue")
        assert push(app, receipt(4)).status == 200
        assert [each["msgid"] for each in told(daemon, 4)] == [1, 2, 3, 4]


@pytest.mark.usefixtures("daemon")
def test_after_close_nothing_is_taken(make: Make) -> None:
    app = make()
    assert app.close() and push(app, receipt()).status == 500


def test_close_says_when_something_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = Callback(tmp_path / "fanoutd.sock", TOKEN)
    push(app, receipt())
    began = time.monotonic()
    assert app.close(0.2) is False and time.monotonic() - began < 2.0
    assert "1 events of WeChat were not told" in caplog.text
    wait_for(lambda: app._outbox._thread is None, "the end of the thread")


# ---- processes


def test_a_forked_child_tells_its_own_and_not_its_parents(tmp_path: Path, make: Make) -> None:
    app = make()
    push(app, receipt(1))  # waits in the parent: there is no daemon yet
    app._outbox._changed.acquire()  # as another thread might at the moment of the fork
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if push(app, receipt(2)).status == 200 and app.close(20.0) else 2
        finally:
            os._exit(code)
    app._outbox._changed.release()
    with fake_daemon(tmp_path) as daemon:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sorted(each["msgid"] for each in told(daemon, 2)) == [1, 2]
        assert app.close(20.0) and len(daemon.events) == 2


PROGRAM = """
import sys
from fanoutd.callback import Callback
from support.pushes import TOKEN, push
from test_callback import receipt
app = Callback(sys.argv[1], TOKEN)
for i in range(1, 1001):
    assert push(app, receipt(i)).status == 200
"""


def test_the_end_of_the_interpreter_waits_until_all_is_told(daemon: FakeDaemon) -> None:
    command = [sys.executable, "-c", PROGRAM, str(daemon.path)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": "tests:."})
    assert [each["msgid"] for each in daemon.events] == list(range(1, 1001))


def test_the_end_of_the_interpreter_waits_no_longer_than_it_should(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "nobody")]
    began = time.monotonic()
    run = subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": "tests:."},
                         capture_output=True, text=True)  # fmt: skip
    assert "1000 events of WeChat were not told" in run.stderr
    assert 3.0 < time.monotonic() - began < 20.0
