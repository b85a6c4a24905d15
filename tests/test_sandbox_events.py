"""The stand-in pushes events as WeChat does: signed, encrypted on request, late, doubled, and again if not answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import pytest
import requests
from wechatpy.crypto import WeChatCrypto

from fanoutd.sandbox import envelope
from fanoutd.sandbox.events import Events
from fanoutd.sandbox.options import Options
from support.api import SUBSCRIBE, Api, clean_api
from support.bench import wait_for
from support.sandbox import SandboxProcess

TOKEN = "AAAAA"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
APP_ID = "wxb11529c136998cb6"


@dataclass
class Received:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    at: float

    @property
    def fields(self) -> dict[str, str]:
        return {each.tag: each.text or "" for each in ElementTree.fromstring(self.body)}


@dataclass
class Receiver:
    """An account's server. ``answers`` are used in turn, the last one for ever: status and body, after a while."""

    answers: list[tuple[int, str, float]] = field(default_factory=lambda: [(200, "success", 0.0)])
    received: list[Received] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    url: str = ""

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(parts.query))
        self.received.append(Received(handler.command, parts.path, query, body, time.monotonic()))
        self.meanwhile()
        status, text, delay = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        time.sleep(delay)
        text = query.get("echostr", "") if text == "ECHO" else text
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what is tested here."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one segment

        def do_POST(self) -> None:
            receiver.take(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/wechat"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "ledger.jsonl") as process:
        yield process


@pytest.fixture
def api(shared: SandboxProcess, receiver: Receiver) -> Iterator[Api]:
    with clean_api(shared) as api:
        shared.set_options(callback_url=receiver.url, callback_token=TOKEN)
        yield api
        wait_for(lambda: shared.stats()["pushes"]["waiting"] == 0, "the last push", 20)


def pushed(api: Api, receiver: Receiver, count: int) -> list[Received]:
    """What came, when nothing is under way any more."""
    wait_for(lambda: len(receiver.received) >= count and not api.sandbox.stats()["pushes"]["waiting"], "pushes", 20)
    assert len(receiver.received) == count
    return receiver.received


# What is pushed


def test_an_accepted_template_message_is_followed_by_its_finish_event(api: Api, receiver: Receiver) -> None:
    api.sandbox.script("oREFUSED", 43004, channel="template")
    assert api.template("oREFUSED")["errcode"] == 43004
    assert api.custom("oFINISH") == 0
    before = int(time.time())
    msgid = api.template("oFINISH", client_msg_id="c-1")["msgid"]
    assert api.template("oFINISH", client_msg_id="c-1")["msgid"] == msgid
    [event] = pushed(api, receiver, 1)
    assert (event.method, event.path) == ("POST", "/wechat")
    assert event.fields == {
        "ToUserName": "gh_0123456789ab", "FromUserName": "oFINISH", "CreateTime": event.fields["CreateTime"],
        "MsgType": "event", "Event": "TEMPLATESENDJOBFINISH", "MsgID": str(msgid), "Status": "success",
    }  # fmt: skip
    assert before <= int(event.fields["CreateTime"]) <= time.time()
    query = event.query
    assert query.keys() == {"signature", "timestamp", "nonce", "openid"} and query["openid"] == "oFINISH"
    assert query["signature"] == envelope.signature(TOKEN, query["timestamp"], query["nonce"])


def test_the_signature_is_that_of_wechats_page() -> None:
    vector = "899cf89e464efb63f54ddac96b0a0a235f53aa78"
    assert envelope.signature("AAAAA", "1714037059", "486452656") == vector


def test_a_subscription_notification_has_an_event_of_its_own(api: Api, receiver: Receiver) -> None:
    msgid = api.template("oSUB", SUBSCRIBE)["msgid"]
    [event] = pushed(api, receiver, 1)
    root = ElementTree.fromstring(event.body)
    assert root.findtext("Event") == "subscribe_msg_sent_event"
    item = root.find("SubscribeMsgSentEvent/List")
    assert item is not None
    assert {each.tag: each.text for each in item} == {
        "TemplateId": "TPL", "MsgID": str(msgid), "ErrorCode": "0", "ErrorStatus": "success",
    }  # fmt: skip


def test_in_safe_mode_another_implementation_can_decrypt_it_and_nothing_is_plain(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(callback_aes_key=AES_KEY, callback_app_id=APP_ID)
    api.template("oSAFE")
    [event] = pushed(api, receiver, 1)
    query = event.query
    assert event.fields.keys() == {"ToUserName", "Encrypt"} and query["encrypt_type"] == "aes"
    assert b"oSAFE" not in event.body
    crypto = WeChatCrypto(TOKEN, AES_KEY, APP_ID)
    text = crypto.decrypt_message(event.body, query["msg_signature"], query["timestamp"], query["nonce"])
    assert ElementTree.fromstring(text).findtext("FromUserName") == "oSAFE"


def test_in_compatible_mode_both_are_there(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(callback_aes_key=AES_KEY, callback_app_id=APP_ID, callback_compatible=True)
    api.sandbox.control("push", {"fields": {"MsgType": "text", "Content": "a]]>b&<c>", "FromUserName": "oBOTH"}})
    [event] = pushed(api, receiver, 1)
    assert event.fields["Content"] == "a]]>b&<c>" and int(event.fields["MsgId"]) > 2**53
    query = event.query
    crypto = WeChatCrypto(TOKEN, AES_KEY, APP_ID)
    text = crypto.decrypt_message(event.body, query["msg_signature"], query["timestamp"], query["nonce"])
    plain = {each.tag: each.text or "" for each in ElementTree.fromstring(text)}
    assert plain == {name: value for name, value in event.fields.items() if name != "Encrypt"}


def test_statuses_doubles_and_ids_of_zero_come_in_their_shares() -> None:
    options = Options().changed(
        {"event_blocked": 0.2, "event_failed": 0.2, "event_freq_limit": 0.2, "event_twice": 0.3}
        | {"event_zero_id": 0.3, "event_lost": 0.1, "event_delay": "2s"}
    )
    events, body = Events(), {"touser": "oSHARE"}
    planned = [events.finished("template", body, msgid, 1.0, options) for msgid in range(1, 2001)]
    firsts = [each[0] for each in planned if each]
    statuses = Counter(each.fields["Status"] for each in firsts)
    assert statuses.keys() == {"success", "failed:user block", "failed: system failed", "failed:freq limit"}
    assert all(280 < statuses[status] < 450 for status in statuses if status != "success")
    assert 150 < sum(not each for each in planned) < 250
    assert 450 < sum(len(each) == 2 for each in planned) < 650
    assert 450 < sum(each.fields["MsgID"] == 0 for each in firsts) < 650
    assert {each.delay for each in firsts} == {2.0}
    assert planned == [Events().finished("template", body, msgid, 1.0, options) for msgid in range(1, 2001)]
    [plain] = events.finished("template", body, 5, 1.0, Options())
    assert (plain.fields["Status"], plain.fields["MsgID"], plain.delay) == ("success", 5, 0.0)


def test_an_event_may_come_twice_and_late(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(event_twice=1, event_delay="300ms", event_zero_id=1)
    began = time.monotonic()
    api.template("oTWICE")
    first, second = pushed(api, receiver, 2)
    assert first.body == second.body and first.fields["MsgID"] == "0"
    assert first.at - began >= 0.3


def test_an_event_may_come_before_the_answer_and_after_the_ledger(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(event_first=True)
    answered, rows = threading.Event(), []

    def look() -> None:
        assert not answered.wait(0.2)
        rows.extend(row for row in api.sandbox.ledger_rows() if row["openid"] == "oFIRST")

    receiver.meanwhile = look
    msgid = api.template("oFIRST")["msgid"]
    answered.set()
    [event] = pushed(api, receiver, 1)
    assert event.fields["MsgID"] == str(msgid) and [row["msgid"] for row in rows] == [msgid]


# How often


def outcome(api: Api) -> tuple[str, int, int]:
    last = api.sandbox._control("GET", "pushes")["pushes"][-1]
    return last["outcome"], last["tries"], last["status"]


def test_a_push_that_is_not_answered_in_time_comes_again_twice_and_no_more(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(callback_timeout="200ms")
    receiver.answers = [(200, "success", 0.5)]
    api.template("oSLOW")
    events = pushed(api, receiver, 3)
    assert len({event.body for event in events}) == 1
    assert all(0.15 < later.at - sooner.at < 3 for sooner, later in pairwise(events))
    assert outcome(api) == ("given_up", 3, 0)


def test_a_push_that_is_answered_the_second_time_is_done(api: Api, receiver: Receiver) -> None:
    api.sandbox.set_options(callback_timeout="100ms")
    receiver.answers = [(503, "", 0.0), (200, "", 0.0)]
    api.template("oAGAIN")
    pushed(api, receiver, 2)
    assert outcome(api) == ("delivered", 2, 200)


def test_junk_is_not_pushed_again_and_a_reply_is_kept(api: Api, receiver: Receiver) -> None:
    receiver.answers = [(200, "<html>oops</html>", 0.0), (200, "<xml><Content>好的</Content></xml>", 0.0)]
    api.sandbox.control("push", {"fields": {"MsgType": "text", "Content": "0"}})
    pushed(api, receiver, 1)
    assert outcome(api) == ("junk", 1, 200)
    api.sandbox.control("push", {"fields": {"MsgType": "text", "Content": "0"}})
    pushed(api, receiver, 2)
    assert outcome(api) == ("delivered", 1, 200)
    assert api.sandbox._control("GET", "pushes")["pushes"][-1]["reply"] == "<xml><Content>好的</Content></xml>"


def test_a_server_that_is_away_is_tried_three_times(api: Api) -> None:
    before = api.sandbox.stats()["pushes"]
    api.sandbox.set_options(callback_url="http://127.0.0.1:9/", callback_timeout="50ms")
    api.template("oAWAY")
    wait_for(lambda: not api.sandbox.stats()["pushes"]["waiting"], "the end of the tries", 20)
    after = api.sandbox.stats()["pushes"]
    assert (after["tries"] - before["tries"], after["given_up"] - before["given_up"]) == (3, 1)


# On command


def test_any_event_can_be_pushed_with_lists_and_objects_in_it(api: Api, receiver: Receiver) -> None:
    fields = {"MsgType": "event", "Event": "subscribe_msg_popup_event", "Popup": {"List": [{"A": "x"}, {"A": 2}]}}
    answer = api.sandbox.control("push", {"fields": fields, "times": 3})
    events = pushed(api, receiver, 3)
    assert {event.body.decode() for event in events} == {answer["xml"]}
    root = ElementTree.fromstring(events[0].body)
    assert [each.text for each in root.findall("Popup/List/A")] == ["x", "2"] and root.find("MsgId") is None


def test_xml_goes_out_as_it_is_and_signatures_can_be_forged(api: Api, receiver: Receiver) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><xml>&a;</xml>'
    api.sandbox.control("push", {"xml": bomb, "forged": True, "delay": 0.05})
    [event] = pushed(api, receiver, 1)
    assert event.body.decode() == bomb
    query = event.query
    assert query["signature"] != envelope.signature(TOKEN, query["timestamp"], query["nonce"])


@pytest.mark.parametrize(("answer", "expected"), [("ECHO", "delivered"), ("success", "junk")])
def test_the_url_can_be_verified(api: Api, receiver: Receiver, answer: str, expected: str) -> None:
    receiver.answers = [(200, answer, 0.0)]
    api.sandbox.control("push", {"verify": True})
    [asked] = pushed(api, receiver, 1)
    assert asked.method == "GET" and asked.query["echostr"]
    assert asked.query["signature"] == envelope.signature(TOKEN, asked.query["timestamp"], asked.query["nonce"])
    assert outcome(api)[0] == expected


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("message", {"MsgType": "text"}),
        ("menu", {"Event": "CLICK"}),
        ("subscribe", {"Event": "subscribe", "EventKey": ""}),
        ("scan", {"Event": "SCAN"}),
    ],
)
def test_an_action_may_push_its_event_and_opens_its_window(
    api: Api, receiver: Receiver, event: str, fields: dict[str, str]
) -> None:
    api.sandbox.set_options(windows=True)
    api.sandbox.control("interact", {"openid": f"o{event}", "event": event, "push": True})
    [received] = pushed(api, receiver, 1)
    assert received.fields.items() >= (fields | {"FromUserName": f"o{event}"}).items()
    assert api.custom(f"o{event}") == 0


@pytest.mark.parametrize("document", [{}, {"fields": []}, {"fields": {}, "times": 0}, {"fields": {}, "delay": "1s"}])
def test_a_push_that_makes_no_sense_is_refused(api: Api, receiver: Receiver, document: object) -> None:
    assert requests.post(f"{api.sandbox.url}/_sandbox/push", json=document).status_code == 400
    api.sandbox.set_options(callback_url="")
    refused = requests.post(f"{api.sandbox.url}/_sandbox/push", json={"fields": {}})
    assert refused.status_code == 400 and "callback_url" in refused.json()["error"]
    assert receiver.received == []


def test_a_wrong_aes_key_is_told_when_it_is_set(api: Api) -> None:
    answer = requests.post(f"{api.sandbox.url}/_sandbox/options", json={"callback_aes_key": "short"})
    assert answer.status_code == 400 and "EncodingAESKey" in answer.json()["error"]


def test_a_flood_of_finish_events_leaves_the_sandbox_answering(api: Api, receiver: Receiver) -> None:
    api.sandbox.control("push", {"fields": {"Event": "TEMPLATESENDJOBFINISH", "MsgType": "event"}, "times": 500})
    assert api.custom("oFLOOD") == 0
    pushed(api, receiver, 500)
