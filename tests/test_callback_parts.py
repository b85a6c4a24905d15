"""The call-back's pure parts: signature, encryption, parsing, what a push means, and what came already."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanoutd.callback.crypto import Key, Keys
from fanoutd.callback.dedupe import Seen
from fanoutd.callback.errors import Broken, Forged
from fanoutd.callback.parsing import parse
from fanoutd.callback.push import read
from fanoutd.callback.reply import text_reply
from fanoutd.callback.signature import is_fresh, matches, sign
from support.pushes import ACCOUNT_NAME, PERSON, xml

AT = 1_714_037_059
AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode().rstrip("=")
APP_ID = "wx0123456789abcdef"


def meaning(kind: str, **fields: Any) -> list[dict[str, Any]]:
    """The parameters of each event of a push that was made at AT."""
    return [notice.params for notice in read(parse(xml(kind, at=AT, **fields).encode())[0]).notices]


def keys(kind: str, **fields: Any) -> list[tuple[str, ...]]:
    push = read(parse(xml(kind, **({"at": AT} | fields)).encode())[0])
    return [notice.key for notice in push.notices]


# ---- signature


def test_the_published_vector() -> None:
    signature = "899cf89e464efb63f54ddac96b0a0a235f53aa78"
    assert sign("AAAAA", "1714037059", "486452656") == signature
    assert matches(signature, "AAAAA", "1714037059", "486452656")
    assert not matches(signature, "AAAAB", "1714037059", "486452656")
    assert not matches("", "AAAAA", "1714037059", "486452656")
    assert not matches("签名\udc80", "AAAAA", "1714037059", "486452656")


@pytest.mark.parametrize(
    ("timestamp", "fresh"),
    [(str(AT), True), (str(AT - 300), True), (str(AT - 301), False), (str(AT + 300), True), (str(AT + 301), False),
     ("", False), ("-1", False), ("1e9", False), (f" {AT}", False), ("١٧١٤٠٣٧٠٥٩", False), ("9" * 400, False)],
)  # fmt: skip
def test_a_timestamp_is_believed_for_five_minutes(timestamp: str, fresh: bool) -> None:
    assert is_fresh(timestamp, float(AT)) is fresh


# ---- encryption


@given(st.binary(max_size=300))
def test_what_is_sealed_is_opened(message: bytes) -> None:
    keys = Keys(APP_ID, [Key(AES_KEY)])
    assert keys.open(Key(AES_KEY).seal(message, APP_ID))[0] == message


def test_the_sealed_form_is_wechats() -> None:
    """Made here by hand with nothing of the module: 16 bytes, length, message, app_id, padded to 32."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(32))
    plain = b"r" * 16 + (5).to_bytes(4, "big") + b"hello" + APP_ID.encode()
    fill = 32 - len(plain) % 32
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    sealed = base64.b64encode(encryptor.update(plain + bytes([fill]) * fill) + encryptor.finalize()).decode()
    assert Key(AES_KEY).seal(b"hello", APP_ID, b"r" * 16) == sealed
    assert Key(AES_KEY).open(sealed) == (b"hello", APP_ID.encode())


def test_the_key_before_opens_too_and_answers() -> None:
    now, before = Key(AES_KEY), Key(OTHER_KEY)
    keys = Keys(APP_ID, [now, before])
    assert keys.open(now.seal(b"new", APP_ID)) == (b"new", now)
    assert keys.open(before.seal(b"old", APP_ID)) == (b"old", before)


def test_another_account_is_forged_and_rubbish_is_broken() -> None:
    keys = Keys(APP_ID, [Key(AES_KEY)])
    with pytest.raises(Forged):
        keys.open(Key(AES_KEY).seal(b"x", "wxffffffffffffffff"))
    sealed = Key(AES_KEY).seal(b"x" * 100, APP_ID)
    for bad in ("", "é", "====", "AAAA", sealed[:-4], base64.b64encode(b"\0" * 64).decode(), "\ud800",
                Key(OTHER_KEY).seal(b"x", APP_ID)):  # fmt: skip
        with pytest.raises(Broken):
            keys.open(bad)


def test_a_length_that_is_not_there_is_broken() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(32))
    for plain in (b"r" * 16 + b"\xff\xff\xff\xff" + b"x" * 11 + b"\x01", b"r" * 15 + b"\x10" * 17):
        encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
        sealed = base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode()
        with pytest.raises(Broken):
            Key(AES_KEY).open(sealed)


@given(st.binary(max_size=200))
def test_opening_anything_at_all_is_at_worst_broken(data: bytes) -> None:
    with pytest.raises((Broken, Forged)):
        Keys(APP_ID, [Key(AES_KEY)]).open(base64.b64encode(data).decode())


@pytest.mark.parametrize("bad", ["", "short", "x" * 44, "ü" * 43, AES_KEY[:-1] + "\n"])
def test_a_key_that_is_none_is_said_without_showing_it(bad: str) -> None:
    with pytest.raises(ValueError, match=r"^previous_aes_key must be") as caught:
        Key(bad, "previous_aes_key")
    assert len(bad) < 2 or bad not in str(caught.value)


# ---- parsing


def test_xml_and_json_mean_the_same() -> None:
    body = "<xml><A><![CDATA[你]]>好</A><L><I>1</I></L><N><I>1</I><I>2</I></N><E/></xml>".encode()
    assert parse(body) == ({"A": "你好", "L": {"I": "1"}, "N": {"I": ["1", "2"]}, "E": ""}, False)
    assert parse(b'\xef\xbb\xbf {"A": 1, "L": {"I": "1"}}\n') == ({"A": 1, "L": {"I": "1"}}, True)
    assert parse(b"<xml><L><I>1</I></L><L><I>2</I></L><L><I>3</I></L></xml>")[0]["L"] == [
        {"I": "1"}, {"I": "2"}, {"I": "3"}]  # fmt: skip


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))

BROKEN = {
    "nothing": b"",
    "blanks": b"  \n",
    "words": b"hello",
    "half": b"<xml><A>",
    "two roots": b"<a><b>1</b></a><c/>",
    "no fields": b"<xml>text</xml>",
    "doctype": b"<!DOCTYPE xml><xml><A>1</A></xml>",
    "file": b'<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/passwd">]><xml><A>&x;</A></xml>',
    "dtd elsewhere": b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:9/x.dtd"><xml><A>1</A></xml>',
    "laughs": f'<!DOCTYPE xml [<!ENTITY l0 "ha">{LAUGHS}]><xml><A>&l9;</A></xml>'.encode(),
    "entity": b"<xml><A>&nosuch;</A></xml>",
    "deep": b"<a>" * 1000 + b"</a>" * 1000,
    "doctype in utf-16": "<!DOCTYPE xml><xml><A>1</A></xml>".encode("utf-16"),
    "bytes": b"<xml><A>\xff\xfe</A></xml>",
    "nul": b"<xml><A>\0</A></xml>",
    "json half": b'{"A": ',
    "json list": b"[1]",
    "json deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "json bytes": b'{"A": "\xff"}',
    "json number": b'{"A": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_push_is_broken(body: bytes) -> None:
    with pytest.raises(Broken):
        parse(body)


# ---- what a push means


@pytest.mark.parametrize(
    ("kind", "fields", "event"),
    [
        ("text", {"Content": "hello", "MsgId": 1}, "message"),
        ("image", {"PicUrl": "http://example.com/x", "MsgId": 1}, "message"),
        ("voice", {"MediaId": "m", "MsgId": 1}, "message"),
        ("location", {"Location_X": "23.1", "MsgId": 1}, "message"),
        ("text", {"Content": "yes", "MsgId": 1, "bizmsgmenuid": "101"}, "menu"),
        ("event", {"Event": "subscribe"}, "subscribe"),
        ("event", {"Event": "subscribe", "EventKey": "qrscene_123", "Ticket": "t"}, "subscribe"),
        ("event", {"Event": "unsubscribe"}, "unsubscribe"),
        ("event", {"Event": "SCAN", "EventKey": "123", "Ticket": "t"}, "scan"),
        ("event", {"Event": "CLICK", "EventKey": "k"}, "menu"),
        ("event", {"Event": "scancode_push", "EventKey": "k", "ScanCodeInfo": "<ScanType>qrcode</ScanType>"}, "menu"),
        ("event", {"Event": "scancode_waitmsg", "EventKey": "k"}, "menu"),
        ("event", {"Event": "user_pay_from_pay_cell", "TransId": "1"}, "pay"),
    ],
)
def test_a_push_is_one_event(kind: str, fields: dict[str, Any], event: str) -> None:
    assert meaning(kind, **fields) == [{"openid": PERSON, "event": event, "at": AT}]


@pytest.mark.parametrize(
    "fields",
    [{"Event": "VIEW", "EventKey": "http://example.com"}, {"Event": "LOCATION", "Latitude": "1"},
     {"Event": "pic_sysphoto", "EventKey": "k"}, {"Event": "location_select", "EventKey": "k"},
     {"Event": "MASSSENDJOBFINISH", "MsgID": 1, "Status": "send success"}, {"Event": "debug_demo"}, {}],
)  # fmt: skip
def test_what_opens_no_window_is_no_event(fields: dict[str, Any]) -> None:
    assert meaning("event", **fields) == []


@pytest.mark.parametrize("status", ["success", "failed:user block", "failed: system failed", "failed:freq limit"])
def test_a_receipt_bears_id_and_status(status: str) -> None:
    expected = {"openid": PERSON, "event": "finish", "at": AT, "msgid": 3717005636572528642, "status": status}
    found = meaning("event", Event="TEMPLATESENDJOBFINISH", MsgID=3717005636572528642, Status=status)
    assert found == [expected]


def test_a_receipt_without_an_id() -> None:
    assert meaning("event", Event="TEMPLATESENDJOBFINISH", MsgID=0, Status="success")[0]["msgid"] == 0
    assert meaning("event", Event="TEMPLATESENDJOBFINISH", Status="success")[0]["msgid"] is None
    assert meaning("event", Event="TEMPLATESENDJOBFINISH", MsgID=1 << 64, Status="x" * 500)[0] == {
        "openid": PERSON, "event": "finish", "at": AT, "msgid": None, "status": "x" * 200}  # fmt: skip


def item(msgid: int, code: int) -> str:
    return f"<TemplateId>T</TemplateId><MsgID>{msgid}</MsgID><ErrorCode>{code}</ErrorCode><ErrorStatus>s</ErrorStatus>"


def test_subscription_receipts_come_one_or_several() -> None:
    one = meaning("event", Event="subscribe_msg_sent_event", SubscribeMsgSentEvent=f"<List>{item(7, 0)}</List>")
    assert [(each["msgid"], each["status"], each["channel"]) for each in one] == [(7, "success", "subscribe")]
    both = f"<List>{item(7, 0)}</List><List>{item(8, 43101)}</List>"
    several = meaning("event", Event="subscribe_msg_sent_event", SubscribeMsgSentEvent=both)
    assert [(each["msgid"], each["status"]) for each in several] == [(7, "success"), (8, "failed:43101")]


@pytest.mark.parametrize("several", [False, True])
def test_subscription_receipts_in_json(several: bool) -> None:
    row = {"TemplateId": "T", "MsgID": "7", "ErrorCode": "0", "ErrorStatus": "success"}
    fields = {"ToUserName": ACCOUNT_NAME, "FromUserName": PERSON, "CreateTime": AT, "MsgType": "event",
              "Event": "subscribe_msg_sent_event", "List": [row, row | {"MsgID": 8}] if several else row}  # fmt: skip
    found = [notice.params["msgid"] for notice in read(parse(json.dumps(fields).encode())[0]).notices]
    assert found == ([7, 8] if several else [7])


@pytest.mark.parametrize(
    ("content", "order"),
    [("0", "0"), ("1", "1"), (" 0\n", "0"), ("０", "0"), ("１", "1"), ("\u30001 ", "1"),
     ("2", None), ("00", None), ("10", None), ("0.", None), ("٠", None), ("", None), ("回复0", None)],
)  # fmt: skip
def test_only_0_and_1_are_orders(content: str, order: str | None) -> None:
    found = read(parse(xml("text", at=AT, Content=content, MsgId=1).encode())[0])
    assert [each.params["event"] for each in found.notices] == ["message"]
    assert (found.order and found.order.params) == (order and {"openid": PERSON, "content": order})


@pytest.mark.parametrize(
    "fields",
    [{}, {"MsgType": "text"}, {"MsgType": "text", "FromUserName": "<b>", "CreateTime": AT},
     {"MsgType": "text", "FromUserName": PERSON}, {"MsgType": "text", "FromUserName": PERSON, "CreateTime": "now"},
     {"MsgType": "text", "FromUserName": PERSON, "CreateTime": 1.5}, {"MsgType": {"a": 1}}, {"Encrypt": "x"},
     {"MsgType": "text", "FromUserName": [PERSON], "CreateTime": AT}, {"MsgType": True},
     {"MsgType": "event", "Event": "subscribe"},
     {"MsgType": "event", "Event": "subscribe_msg_sent_event", "FromUserName": PERSON, "CreateTime": AT, "List": 3},
     {"MsgType": "text", "FromUserName": PERSON, "CreateTime": 1 << 50}],
)  # fmt: skip
def test_a_push_without_what_every_push_has_is_broken(fields: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        read(fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([PERSON, "event"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("MsgType", "Event", "FromUserName", "CreateTime", "MsgID", "Status", "Content", "List", "EventKey", "MsgId")
EVENT = st.sampled_from(["TEMPLATESENDJOBFINISH", "subscribe_msg_sent_event", "SCAN"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON), EVENT)
def test_no_fields_whatever_raise_anything_else(fields: dict[str, Any], event: str) -> None:
    for each in (fields, fields | {"MsgType": "event", "Event": event, "FromUserName": PERSON, "CreateTime": AT}):
        try:
            json.dumps([notice.params for notice in read(each).notices])
        except Broken:
            pass


# ---- what came already


def test_two_receipts_of_one_second_are_two_and_a_repeat_is_one() -> None:
    def receipt(**fields: Any) -> tuple[str, ...]:
        return keys("event", **({"Event": "TEMPLATESENDJOBFINISH", "MsgID": 7, "Status": "success"} | fields))[0]

    assert receipt() == receipt(at=AT + 5)
    others = [receipt(MsgID=8), receipt(MsgID=0), receipt(MsgID=0, at=AT + 5), receipt(MsgID=0, Status="failed:x"),
              receipt(MsgID=0, openid=PERSON[:-1] + "2")]  # fmt: skip
    assert len({receipt(), *others}) == 6


def test_messages_and_events_that_only_look_alike_are_told_apart() -> None:
    messages = [keys("text", Content="a", MsgId=1), keys("text", Content="a", MsgId=2),
                keys("text", Content="a", MsgId=1, at=AT + 1),
                keys("text", Content="a", MsgId=1, openid=PERSON[:-1] + "2")]  # fmt: skip
    events = [keys("event", Event="CLICK", EventKey="a"), keys("event", Event="CLICK", EventKey="b"),
              keys("event", Event="SCAN", EventKey="a")]  # fmt: skip
    assert len({*map(tuple, messages + events)}) == 7
    assert keys("event", Event="CLICK", EventKey="a") == events[0] and keys("text", Content="a", MsgId=1) == messages[0]


def test_a_repeat_is_known_for_five_minutes_and_its_answer_too() -> None:
    seen = Seen(span=300.0)
    assert seen.take(("a",), 1000.0) and not seen.take(("a",), 1299.0)
    seen.answer(("a",), "hello")
    assert not seen.take(("a",), 1301.0) and seen.answered(("a",)) == "hello"
    assert seen.take(("a",), 3000.0) and seen.answered(("a",)) is None


def test_what_was_not_dealt_with_is_taken_again() -> None:
    seen = Seen()
    assert seen.take(("a",), 0.0)
    seen.drop(("a",))
    assert seen.take(("a",), 1.0)


def test_a_flood_fills_no_memory_and_the_newest_are_known() -> None:
    seen = Seen(most=1000)
    for i in range(10_000):
        assert seen.take((str(i),), i / 10_000)
        assert not seen.take((str(max(0, i - 999)),), i / 10_000)
    assert len(seen._new) + len(seen._old) <= 2000


# ---- replies


def test_a_reply_is_what_wechat_wants_and_cannot_be_broken_out_of() -> None:
    text = "已取消 ]]></Content><x/> \x00\ud800\uffff"
    fields, as_json = parse(text_reply(PERSON, ACCOUNT_NAME, text, AT, as_json=False))
    assert not as_json and fields == {
        "ToUserName": PERSON, "FromUserName": ACCOUNT_NAME, "CreateTime": str(AT), "MsgType": "text",
        "Content": "已取消 ]]></Content><x/> "}  # fmt: skip
    fields, as_json = parse(text_reply(PERSON, ACCOUNT_NAME, text, AT, as_json=True))
    assert as_json and fields["Content"] == "已取消 ]]></Content><x/> " and fields["CreateTime"] == AT


def test_signing_is_sha1_of_the_sorted_parts() -> None:
    assert sign("t", "b", "a") == hashlib.sha1(b"abt").hexdigest()
