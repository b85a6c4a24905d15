"""The stand-in for the WeChat API must be strict where WeChat is, and cruel on command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from fanoutd.cli.sandbox import sandbox as command
from fanoutd.errors import NotNow, NotPermitted
from fanoutd.sandbox import Options
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.http import BadRequest, Parser, Request
from fanoutd.sandbox.keywords import fits
from fanoutd.sandbox.options import duration
from fanoutd.sandbox.people import FATES, FAULTS, fate, fault
from fanoutd.sandbox.repeats import Repeats
from fanoutd.sandbox.tokens import Tokens
from support.sandbox import COMMAND, SandboxProcess

TOKEN = "/cgi-bin/token"
STABLE = "/cgi-bin/stable_token"
SEND = {"custom": "/cgi-bin/message/custom/send", "template": "/cgi-bin/message/template/send"}
SEND["subscribe"] = "/cgi-bin/message/subscribe/bizsend"
CREDENTIALS = {"grant_type": "client_credential", "appid": "wx0123456789abcdef", "secret": "any"}
DATA = {"thing1": {"value": "饭好了"}}
TEXT = {"touser": "oBODY", "msgtype": "text", "text": {"content": "x"}}
CARD = {"touser": "oBODY", "template_id": "TPL", "data": DATA}


class Caller:
    """A client with one token on one kept-alive connection."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.token = ""
        self.refresh()

    def refresh(self) -> None:
        self.token = self.session.post(self.sandbox.url + STABLE, json=CREDENTIALS).json()["access_token"]

    def post(self, channel: str, data: bytes, token: str | None = None) -> requests.Response:
        query = {"access_token": self.token if token is None else token}
        return self.session.post(self.sandbox.url + SEND[channel], params=query, data=data, timeout=5)

    def send(self, channel: str, body: object, token: str | None = None) -> dict[str, Any]:
        answer = self.post(channel, json.dumps(body, ensure_ascii=False).encode(), token).json()
        assert isinstance(answer, dict)
        return answer

    def custom(self, openid: str = "oPERSON", content: str = "你好") -> dict[str, Any]:
        return self.send("custom", {"touser": openid, "msgtype": "text", "text": {"content": content}})

    def template(self, openid: str = "oPERSON", **more: object) -> dict[str, Any]:
        return self.send("template", {"touser": openid, "template_id": "TPL", "data": DATA} | more)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "ledger.jsonl") as process:
        yield process


@pytest.fixture
def sandbox(shared: SandboxProcess) -> Iterator[SandboxProcess]:
    """The one of this module, with its switches as they were at first."""
    before = shared.set_options()
    yield shared
    shared.set_options(**before)


@pytest.fixture
def caller(sandbox: SandboxProcess) -> Iterator[Caller]:
    caller = Caller(sandbox)
    yield caller
    caller.session.close()


def connect(sandbox: SandboxProcess) -> socket.socket:
    port = urlsplit(sandbox.url).port
    return socket.create_connection(("127.0.0.1", port or 0), timeout=5)


def exchange(sandbox: SandboxProcess, data: bytes) -> bytes:
    """Send, and read until the other side closes."""
    with connect(sandbox) as sock:
        sock.sendall(data)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end


def rows_of(sandbox: SandboxProcess, openid: str) -> list[dict[str, Any]]:
    return [row for row in sandbox.ledger_rows() if row["openid"] == openid]


# The process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_asked_even_with_an_answer_under_way(tmp_path: Path, signum: int) -> None:
    with SandboxProcess(tmp_path / "ledger.jsonl", latency="30s") as process, connect(process) as sock:
        assert process.url == f"http://127.0.0.1:{urlsplit(process.url).port}"
        sock.sendall(b"GET /cgi-bin/token HTTP/1.1\r\n\r\n")
        until(lambda: process.stats()["in_flight"] == 2)  # that one, and the asking itself
        process.process.send_signal(signum)
        assert process.process.wait(5) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--latency", "soon"], "240ms"),
        (["--no-window", "1.5"], "share from 0 to 1"),
        (["--minute-limit", "-1"], "whole number"),
        (["--list-end", "never"], "extra, empty, repeat"),
        (["--callback-aes-key", "short"], "EncodingAESKey"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_that_says_what_is_right(flags: list[str], words: str) -> None:
    result = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=15)
    assert result.returncode == 2 and words in result.stderr


def test_every_switch_is_an_option_too(tmp_path: Path) -> None:
    given = {
        "windows": True, "list_end": "empty", "page_size": 7, "quota_subscribe": 3, "no_consent": 0.5,
        "callback_url": "http://127.0.0.1:9/", "callback_aes_key": "a" * 43, "event_delay": 0.2, "event_first": True,
    }  # fmt: skip
    with SandboxProcess(tmp_path / "ledger.jsonl", **given) as process:
        assert process.set_options().items() >= given.items()
    help_text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=15).stdout
    assert [each for each in Options().as_dict() if f"--{each.replace('_', '-')} " not in help_text] == []


def test_a_ledger_or_port_that_is_not_to_be_had_is_told(sandbox: SandboxProcess, tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="cannot write the ledger"):
        command.main(["--ledger", str(tmp_path / "missing" / "ledger.jsonl")], standalone_mode=False)
    with pytest.raises(NotNow, match="choose another --port"):
        command.main(["--port", str(urlsplit(sandbox.url).port)], standalone_mode=False)


def test_durations_are_read_as_people_write_them() -> None:
    written = ("0ms", "240ms", "5s", "10m", "2h", 0.5)
    assert [duration(each) for each in written] == [0, 0.24, 5, 600, 7200, 0.5]


# Tokens


def test_a_stable_token_stays_the_same_while_its_life_shrinks() -> None:
    tokens = Tokens()
    first, life = tokens.stable("wx", 1000.0, 7200.0)
    assert life == 7200
    assert tokens.stable("wx", 1000.0 + 6855, 7200.0) == (first, 345)
    renewed, life = tokens.stable("wx", 1000.0 + 6900, 7200.0)
    assert renewed != first and life == 7200
    tokens.check(first, 1000.0 + 7199)
    with pytest.raises(Refused, match="42001"):
        tokens.check(first, 1000.0 + 7200)


def test_a_plain_token_kills_the_one_before_after_five_minutes_and_no_stable_one() -> None:
    tokens = Tokens()
    stable, _ = tokens.stable("wx", 0.0, 7200.0)
    first, _ = tokens.plain("wx", 0.0, 7200.0)
    second, _ = tokens.plain("wx", 10.0, 7200.0)
    assert first != second
    tokens.check(first, 309.0)
    with pytest.raises(Refused, match="40001"):
        tokens.check(first, 310.0)
    tokens.check(second, 310.0)
    tokens.check(stable, 310.0)


def test_a_forced_refresh_kills_at_once_but_not_twice_in_thirty_seconds_nor_21_times_a_day() -> None:
    tokens = Tokens()
    first, _ = tokens.stable("wx", 0.0, 7200.0)
    second, _ = tokens.stable("wx", 1.0, 7200.0, force=True)
    assert second != first
    with pytest.raises(Refused, match="40001"):
        tokens.check(first, 1.0)
    assert tokens.stable("wx", 30.0, 7200.0, force=True)[0] == second
    for nth in range(1, 20):
        tokens.stable("wx", 1.0 + 30 * nth, 7200.0, force=True)
    with pytest.raises(Refused, match="45009"):
        tokens.stable("wx", 1.0 + 30 * 20, 7200.0, force=True)


def test_both_token_endpoints_give_tokens_that_are_good(caller: Caller) -> None:
    plain = caller.session.get(caller.sandbox.url + TOKEN, params=CREDENTIALS).json()
    stable = caller.session.post(caller.sandbox.url + STABLE, json=CREDENTIALS).json()
    assert plain["expires_in"] == 7200 and 6900 < stable["expires_in"] <= 7200
    assert stable["access_token"] == caller.token
    for token in (plain["access_token"], stable["access_token"]):
        assert caller.send("custom", TEXT | {"touser": "oTOKEN"}, token)["errcode"] == 0


@pytest.mark.parametrize(
    ("change", "errcode"),
    [({"grant_type": "x"}, 40002), ({"appid": ""}, 41002), ({"secret": None}, 41004)],
)
def test_a_token_wants_all_credentials(sandbox: SandboxProcess, change: dict[str, Any], errcode: int) -> None:
    given = CREDENTIALS | change
    assert requests.post(sandbox.url + STABLE, json=given).json()["errcode"] == errcode
    assert requests.get(sandbox.url + TOKEN, params=given).json()["errcode"] == errcode


def test_missing_wrong_and_expired_tokens_are_told_apart(caller: Caller) -> None:
    body = TEXT | {"touser": "oTOKEN"}
    assert caller.send("custom", body, token="")["errcode"] == 41001
    assert caller.send("custom", body, token="92_wrong")["errcode"] == 40001
    caller.sandbox.set_options(token_life="20ms")
    short = requests.get(caller.sandbox.url + TOKEN, params=CREDENTIALS).json()
    until(lambda: caller.send("custom", body, short["access_token"])["errcode"] == 42001)


def test_revoked_tokens_are_dead_until_the_next_one_is_fetched(caller: Caller) -> None:
    assert caller.custom()["errcode"] == 0
    assert caller.sandbox.revoke() >= 1
    assert caller.custom()["errcode"] == 40001
    caller.refresh()
    assert caller.custom()["errcode"] == 0


# Messages


def test_an_accepted_message_is_in_the_ledger_before_its_answer(caller: Caller) -> None:
    before = time.time()
    for nth in range(20):
        assert caller.custom("oLEDGER", f"第{nth}") == {"errcode": 0, "errmsg": "ok"}
        assert len(rows_of(caller.sandbox, "oLEDGER")) == nth + 1
    row = rows_of(caller.sandbox, "oLEDGER")[-1]
    assert row["body"] == {"touser": "oLEDGER", "msgtype": "text", "text": {"content": "第19"}}
    assert row["channel"] == "custom" and before <= row["t"] <= time.time()
    assert row["at"].endswith("+00:00")


def test_a_template_message_gets_a_64_bit_msgid_of_its_own(caller: Caller) -> None:
    first, second = caller.template("oMSGID"), caller.template("oMSGID")
    assert 2**53 < first["msgid"] < second["msgid"] < 2**63
    assert [row["msgid"] for row in rows_of(caller.sandbox, "oMSGID")] == [first["msgid"], second["msgid"]]


def test_a_repeated_client_msg_id_is_answered_alike_and_not_accepted_again(caller: Caller) -> None:
    first = caller.template("oDUPE", client_msg_id="c-1")
    assert caller.template("oDUPE", client_msg_id="c-1") == first
    assert caller.template("oDUPE2", client_msg_id="c-1")["msgid"] != first["msgid"]
    [row] = rows_of(caller.sandbox, "oDUPE")
    assert row["client_msg_id"] == "c-1" and row["msgid"] == first["msgid"]


def test_a_client_msg_id_is_remembered_for_its_time_and_no_longer() -> None:
    repeats = Repeats()
    repeats.remember(("oLONG", "c-1"), 1, 0.0, 1000.0)
    repeats.remember(("oSHORT", "c-1"), 2, 0.0, 600.0)
    assert repeats.find(("oSHORT", "c-1"), 599.0) == 2
    assert repeats.find(("oSHORT", "c-1"), 600.0) is None
    repeats.remember(("oSHORT", "c-1"), 3, 600.0, 600.0)
    assert repeats.find(("oSHORT", "c-1"), 700.0) == 3
    assert repeats.find(("oLONG", "c-1"), 999.0) == 1


@pytest.mark.parametrize(
    ("channel", "body", "errcode"),
    [
        ("custom", {**TEXT, "touser": None}, 40003),
        ("custom", {**TEXT, "touser": "has blanks"}, 40003),
        ("custom", {**TEXT, "msgtype": "telegram"}, 45050),
        ("custom", {**TEXT, "msgtype": ["text"]}, 45050),
        ("custom", {**TEXT, "text": {"content": ""}}, 44004),
        ("custom", {**TEXT, "text": None}, 44004),
        ("custom", {**TEXT, "text": {"content": "饭" * 683}}, 45002),
        ("custom", {"touser": "oBODY", "msgtype": "image", "image": {}}, 40007),
        ("custom", {"touser": "oBODY", "msgtype": "news", "news": {"articles": [{}, {}]}}, 45008),
        ("custom", [TEXT], 47001),
        ("template", {**CARD, "touser": ""}, 40003),
        ("template", {**CARD, "template_id": ""}, 40037),
        ("template", {**CARD, "data": None}, 47003),
    ],
)
def test_a_wrong_body_gets_wechats_errcode(caller: Caller, channel: str, body: Any, errcode: int) -> None:
    answer = caller.send(channel, body)
    assert answer["errcode"] == errcode and " rid: " in answer["errmsg"]
    assert rows_of(caller.sandbox, "oBODY") == []


@pytest.mark.parametrize(
    ("data", "errcode"),
    [
        (b"", 44002),
        (b'{"touser":', 47001),
        (b'{"touser":"\xff"}', 47001),
        (b"[" * 100_000, 47001),
        (json.dumps({**TEXT, "text": {"content": "饭"}}).encode(), 47002),
    ],
)
def test_a_body_that_is_no_raw_utf8_json_is_refused(caller: Caller, data: bytes, errcode: int) -> None:
    assert caller.post("custom", data).json()["errcode"] == errcode


def test_a_text_of_just_2048_bytes_with_a_backslash_before_u_is_fine(caller: Caller) -> None:
    assert caller.custom("oLONG", "\\u" + "饭" * 682)["errcode"] == 0


def test_the_wrong_verb_is_refused(sandbox: SandboxProcess) -> None:
    assert requests.get(sandbox.url + SEND["custom"]).json()["errcode"] == 43002
    assert requests.get(sandbox.url + STABLE).json()["errcode"] == 43002
    assert requests.post(sandbox.url + TOKEN).json()["errcode"] == 43001


GOOD = {
    "thing1": ["饭" * 20, "a b"], "number2": ["12.5", "9" * 32], "letter3": ["abc"], "symbol4": ["%#"],
    "character_string5": ["A-1/b"], "time6": ["15:01", "2019年10月1日 15:01", "10:00~12:00"],
    "date7": ["2019年10月1日", "2019年10月1日~2019年10月3日"], "amount8": ["¥100.50", "100元"],
    "phone_number9": ["+86-0766-66888866"], "car_number10": ["粤A8Z888挂"], "name11": ["张三", "a" * 20],
    "phrase12": ["已发货"], "const13": ["", "待付款"], "keyword1": ["whatever it is, at any length"],
}  # fmt: skip
BAD = {
    "thing1": ["饭" * 21, "two\nlines", ""], "number2": ["twelve", "9" * 33], "letter3": ["a1", "a" * 33],
    "symbol4": ["%%%%%%"], "character_string5": ["编号1", "a" * 33], "time6": ["noon"], "date7": ["10/1"],
    "amount8": ["1" * 13], "phone_number9": ["call me", "1" * 18], "car_number10": ["粤A888888挂"],
    "name11": ["张" * 11, "a" * 21], "phrase12": ["ok", "六个字的短语"], "const13": ["a" * 21],
    "keyword1": [""],
}  # fmt: skip


@pytest.mark.parametrize("key", GOOD)
def test_each_keyword_takes_what_its_type_allows_and_nothing_else(key: str) -> None:
    assert [value for value in GOOD[key] if not fits(key, value)] == []
    assert [value for value in BAD[key] if fits(key, value)] == []


def test_a_broken_keyword_is_named_unless_the_sandbox_is_lenient(caller: Caller) -> None:
    data = {**DATA, "phone_number2": {"value": "饭"}, "thing3": {"value": ""}}
    answer = caller.template("oKEYWORD", data=data)
    assert answer["errcode"] == 47003 and "data.phone_number2.value invalid" in answer["errmsg"]
    answer = caller.template("oKEYWORD", data={"thing3": {"value": ""}})
    assert "data.thing3.value is emtpy" in answer["errmsg"]
    caller.sandbox.set_options(lenient=True)
    assert caller.template("oKEYWORD", data=data)["errcode"] == 0


# Who answers what


def test_everybody_answers_as_their_fate_says(caller: Caller) -> None:
    shares = {"no_window": 0.3, "used_up": 0.1, "unfollowed": 0.1, "busy": 0.1, "no_consent": 0.1, "seed": 7}
    options = Options().changed(caller.sandbox.set_options(**shares))
    people = [f"oFATE{nth}" for nth in range(200)]
    fates = {person: fate(person, options) for person in people}
    assert set(fates.values()) == set(FATES)
    for person in people:
        assert caller.custom(person)["errcode"] == FATES[fates[person]][0]
    for person in people:
        again = {"no_window": 45015, "used_up": 45047, "unfollowed": 43004}
        assert caller.custom(person)["errcode"] == again.get(fates[person], 0)
        assert caller.template(person)["errcode"] == (43004 if fates[person] == "unfollowed" else 0)
        answer = caller.send("subscribe", CARD | {"touser": person})
        assert answer["errcode"] == (43101 if fates[person] == "no_consent" else 0)


def test_fates_fall_in_their_shares_and_differ_with_the_seed() -> None:
    people = [f"o{nth}" for nth in range(5000)]
    one, two = Options(no_window=0.33, seed=1), Options(no_window=0.33, seed=2)
    assert 1550 < sum(fate(person, one) == "no_window" for person in people) < 1750
    assert [fate(person, one) for person in people] != [fate(person, two) for person in people]


def test_drops_by_share_close_the_connection_and_only_later_ones_accept(caller: Caller) -> None:
    options = Options().changed(caller.sandbox.set_options(drop_before=0.2, drop_after=0.2))
    people = [f"oDROP{nth}" for nth in range(60)]
    lost = {person for person in people if no_answer(caller, person)}
    assert lost == {person for person in people if fault(person, 1, options)}
    accepted = {row["openid"] for row in caller.sandbox.ledger_rows()}
    assert accepted & lost == {person for person in lost if fault(person, 1, options) == "drop_after"}
    assert accepted >= set(people) - lost and lost - accepted


def no_answer(caller: Caller, openid: str) -> bool:
    try:
        caller.custom(openid)
    except requests.ConnectionError:
        return True
    return False


def test_a_script_is_followed_in_turn_and_its_last_answer_stays(caller: Caller) -> None:
    caller.sandbox.script("oSCRIPT", -1, 45047, 0)
    assert [caller.custom("oSCRIPT")["errcode"] for _ in range(4)] == [-1, 45047, 0, 0]
    assert len(rows_of(caller.sandbox, "oSCRIPT")) == 2
    caller.sandbox.script("oSCRIPT", 43101, channel="template")
    assert caller.template("oSCRIPT")["errcode"] == 43101
    caller.sandbox.script("oSCRIPT", channel="template")
    assert caller.template("oSCRIPT")["errcode"] == 0


@pytest.mark.parametrize("document", [{"o": 0}, {"o": [True]}, {"o": ["explode"]}, {"o": {"sms": [0]}}])
def test_a_script_that_makes_no_sense_is_refused_whole(caller: Caller, document: Any) -> None:
    answer = requests.post(f"{caller.sandbox.url}/_sandbox/people", json={"oGOOD": [45015], **document})
    assert answer.status_code == 400 and answer.json()["error"]
    assert caller.custom("oGOOD")["errcode"] == 0


@pytest.mark.parametrize("name", ["drop_before", "drop_after"])
def test_a_dropped_call_gets_a_fin_and_no_byte(caller: Caller, name: str) -> None:
    caller.sandbox.script(f"o{name}", name)
    assert exchange(caller.sandbox, raw_send(caller, f"o{name}")) == b""
    assert len(rows_of(caller.sandbox, f"o{name}")) == (name == "drop_after")


@pytest.mark.parametrize("name", ["reset_before", "reset_after"])
def test_a_reset_call_gets_a_reset(caller: Caller, name: str) -> None:
    caller.sandbox.script(f"o{name}", name)
    with pytest.raises(ConnectionResetError):
        exchange(caller.sandbox, raw_send(caller, f"o{name}"))
    assert len(rows_of(caller.sandbox, f"o{name}")) == (name == "reset_after")


@pytest.mark.parametrize("name", ["hang_before", "hang_after"])
def test_a_hanging_call_lasts_until_the_client_gives_up(caller: Caller, name: str) -> None:
    caller.sandbox.set_options(idle="50ms")
    caller.sandbox.script(f"o{name}", name)
    with connect(caller.sandbox) as sock:
        sock.sendall(raw_send(caller, f"o{name}"))
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(5)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert len(rows_of(caller.sandbox, f"o{name}")) == (name == "hang_after")


def test_broken_answers_are_broken_in_their_own_ways(caller: Caller) -> None:
    names = ("bad_gateway_before", "bad_gateway_after", "half_json", "truncated")
    for name in names:
        caller.sandbox.script(f"o{name}", name)
    for name in names[:2]:
        gateway = caller.post("custom", json.dumps({**TEXT, "touser": f"o{name}"}).encode())
        assert gateway.status_code == 502 and gateway.text.startswith("<html>")
    half = caller.post("custom", json.dumps({**TEXT, "touser": "ohalf_json"}).encode())
    assert half.status_code == 200 and len(half.content) == int(half.headers["Content-Length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(half.content)
    head, _, body = exchange(caller.sandbox, raw_send(caller, "otruncated")).partition(b"\r\n\r\n")
    assert 0 < len(body) < int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert [len(rows_of(caller.sandbox, f"o{name}")) for name in names] == [0, 1, 1, 1]


def test_every_fault_has_a_switch_for_its_share_and_shares_add_up() -> None:
    people = [f"o{nth}" for nth in range(5000)]
    each = Options().changed(dict.fromkeys(FAULTS, 0.05))
    found = Counter(fault(person, 1, each) for person in people)
    assert found.keys() == {*FAULTS, ""}
    assert all(180 < found[name] < 320 for name in FAULTS)
    assert {fault(person, 1, Options(hang_after=1)) for person in people} == {"hang_after"}
    assert {fault(person, 1, Options()) for person in people} == {""}


def test_a_sandbox_that_refuses_gives_open_connections_one_answer_and_listens_again(caller: Caller) -> None:
    with connect(caller.sandbox) as sock:
        sock.sendall(raw_send(caller, "oOPEN"))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        begun = time.monotonic()
        caller.sandbox.set_options(refuse="300ms")
        with pytest.raises(ConnectionRefusedError):
            connect(caller.sandbox)
        sock.sendall(raw_send(caller, "oOPEN"))
        assert b"Connection: close" in read_all(sock)
    until(lambda: reachable(caller.sandbox))
    assert 0.3 <= time.monotonic() - begun < 3
    assert len(rows_of(caller.sandbox, "oOPEN")) == 2


def test_a_sandbox_that_refuses_stops_that_when_told_on_a_connection_that_is_open(caller: Caller) -> None:
    address = f"{caller.sandbox.url}/_sandbox/options"
    with requests.Session() as one, requests.Session() as other:
        for session in (one, other):
            assert session.get(address).status_code == 200
        one.post(address, json={"refuse": "1h"})
        assert not reachable(caller.sandbox)
        other.post(address, json={"refuse": 0})
        assert reachable(caller.sandbox)


def test_a_sandbox_may_refuse_from_its_start(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "ledger.jsonl", refuse="200ms") as process:
        assert not reachable(process)
        until(lambda: reachable(process))


def reachable(sandbox: SandboxProcess) -> bool:
    try:
        connect(sandbox).close()
    except ConnectionRefusedError:
        return False
    return True


# Time


def test_an_answer_takes_the_latency_and_its_spread(caller: Caller) -> None:
    caller.sandbox.set_options(latency="20ms", spread=0.5)
    times = []
    for _ in range(15):
        began = time.monotonic()
        caller.custom("oLATENCY")
        times.append(time.monotonic() - began)
    assert 0.012 < sorted(times)[7] < 0.2 and max(times) - min(times) > 0.008


def test_an_idle_connection_is_closed_by_the_server_and_a_busy_one_is_not(sandbox: SandboxProcess) -> None:
    with connect(sandbox) as sock:
        sandbox.set_options(idle="100ms", latency="300ms")
        sock.sendall(b"GET /cgi-bin/token HTTP/1.1\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        answered = time.monotonic()
        assert sock.recv(1) == b""
        assert 0.05 < time.monotonic() - answered < 3
    assert sandbox.stats()["connections"]["closed_idle"] >= 1


def test_more_calls_in_a_minute_than_allowed_get_45011_on_that_channel(caller: Caller) -> None:
    caller.sandbox.set_options(minute_limit=3)
    assert [caller.custom("oMINUTE")["errcode"] for _ in range(5)] == [0, 0, 0, 45011, 45011]
    assert caller.template("oMINUTE")["errcode"] == 0


# Control


def test_switches_change_while_it_runs_or_say_what_is_wrong(sandbox: SandboxProcess) -> None:
    assert sandbox.set_options(latency="240ms", seed=3)["latency"] == 0.24
    answer = requests.post(f"{sandbox.url}/_sandbox/options", json={"latency": 0, "speed": 1})
    assert answer.status_code == 400 and "no switch 'speed'" in answer.json()["error"]
    assert requests.get(f"{sandbox.url}/_sandbox/options").json()["latency"] == 0.24


def test_stats_count_what_happened(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "ledger.jsonl", no_window=1) as process:
        caller = Caller(process)
        caller.custom("oA")
        caller.template("oA", client_msg_id="1")
        caller.template("oA", client_msg_id="1")
        requests.get(f"{process.url}/nowhere")
        stats = process.stats()
    assert stats["requests"][SEND["template"]] == 2 and stats["requests"]["other"] == 1
    assert stats["accepted"] == {"custom": 0, "template": 1, "subscribe": 0} and stats["refused"] == {"45015": 1}
    assert stats["token_fetches"] == {"plain": 0, "stable": 1} and stats["duplicates"] == 1
    assert 1 <= stats["busiest_second"] <= 3 and stats["connections"]["total"] == 3


# HTTP


def raw_send(caller: Caller, openid: str, *headers: str) -> bytes:
    body = json.dumps({**TEXT, "touser": openid}).encode()
    lines = [f"POST {SEND['custom']}?access_token={caller.token} HTTP/1.1", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def test_pipelined_requests_are_answered_one_by_one_in_their_order(caller: Caller) -> None:
    caller.sandbox.set_options(latency="5ms", spread=1)
    caller.sandbox.script("oPIPE", 0, 45015, 45047)
    data = raw_send(caller, "oPIPE") * 2 + raw_send(caller, "oPIPE", "Connection: close")
    answers = exchange(caller.sandbox, data).split(b"HTTP/1.1 ")[1:]
    assert [json.loads(each.partition(b"\r\n\r\n")[2])["errcode"] for each in answers] == [0, 45015, 45047]


def test_a_request_may_come_byte_by_byte(caller: Caller) -> None:
    with connect(caller.sandbox) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw_send(caller, "oSLOW", "Connection: close"):
            sock.send(bytes([byte]))
        assert read_all(sock).endswith(b'{"errcode":0,"errmsg":"ok"}')


def test_a_client_that_expects_100_continue_gets_it(caller: Caller) -> None:
    head, _, body = raw_send(caller, "oEXPECT", "Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(caller.sandbox) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_shuts_down_its_side_still_gets_its_answer(caller: Caller) -> None:
    caller.sandbox.set_options(latency="50ms")
    with connect(caller.sandbox) as sock:
        sock.sendall(raw_send(caller, "oSHUT"))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"what is this\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (b"PUT /cgi-bin/token HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /nowhere HTTP/1.0\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_for_it_is_told_so(sandbox: SandboxProcess, data: bytes, status: int) -> None:
    assert exchange(sandbox, data).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_body_that_is_too_long_is_refused_while_it_still_comes(sandbox: SandboxProcess) -> None:
    assert requests.post(sandbox.url + STABLE, data=b"x" * 3_000_000).status_code == 413


def test_the_answer_to_head_has_no_body(sandbox: SandboxProcess) -> None:
    answer = exchange(sandbox, b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ") and answer.endswith(b"\r\n\r\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"GET ", b"/x", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b":"]) | st.binary()))
def test_the_parser_takes_any_bytes_in_any_parts(parts: list[bytes]) -> None:
    parser = Parser()
    try:
        for part in parts:
            parser.feed(part)
            while parser.next():
                pass
    except BadRequest as error:
        assert 400 <= error.status < 500


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "ab"]), st.text("a1%+=& 饭", max_size=4))), st.booleans())
def test_a_parameter_is_the_first_value_of_its_name_escaped_or_not(pairs: list[tuple[str, str]], raw: bool) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs) if raw else urlencode(pairs)
    for name in ("a", "b", "ab", "c"):
        assert Request("GET", "/", query, b"", True).parameter(name) == parse_qs(query).get(name, [""])[0]
