"""Requests and submissions as pure functions: what is taken, what is refused and by which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.config import Config, load
from fanoutd.ids import keyed_campaign_id
from fanoutd.master import rpc, submission
from fanoutd.master.carried import CARRIED
from fanoutd.master.rpc import Bad, Bare, Batch, Request, RpcError
from support.master import write_config

PEOPLE = ["o12345", "o12346"]
UPLOAD = "u-0123456789abcdef0123"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load(write_config(tmp_path_factory.mktemp("config")), {})


# ---- lines


def code(line: bytes) -> int:
    asked = rpc.parse(line)
    assert isinstance(asked, Bad), asked
    return asked.error.code


def elements(batch: Batch) -> Iterator[Any]:
    while not batch.values.exhausted:
        yield batch.values.next()


@pytest.mark.parametrize("line", [
    b"{nonsense", b"\xff\xfe", "{}".encode("utf-16"), b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"NaN",
    b'{"content":"\\ud800"}', b'{"a":1,"a":2}', b'{"a":Infinity}', b'{} {}', b"\x00", b'\xef\xbb\xbf{}',
])
def test_what_is_no_json_text_is_a_parse_error(line: bytes) -> None:
    assert code(line) == -32700


@pytest.mark.parametrize("line", [
    b"[]", b"5", b"null", b'"x"', b'{"jsonrpc":"2.0","id":1}', b'{"method":"daemon.ping","id":1}',
    b'{"jsonrpc":"1.0","method":"x"}', b'{"jsonrpc":"2.0","method":5}', b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","method":"x","id":{}}', b'{"jsonrpc":"2.0","method":"x","id":true}',
    b'{"jsonrpc":"2.0","method":"x","id":1e999}',
])
def test_what_is_no_request_is_an_invalid_one(line: bytes) -> None:
    assert code(line) == -32600


def test_params_go_by_name() -> None:
    assert code(b'{"jsonrpc":"2.0","method":"x","params":[1]}') == -32602
    assert rpc.parse(b'{"jsonrpc":"2.0","id":null,"method":"x","params":[]}') == Request(None, False, "x", {})
    assert rpc.parse(b'{"jsonrpc":"2.0","method":"x"}') == Request(None, True, "x", {})


def test_an_error_bears_the_requests_id_where_it_has_one() -> None:
    asked = rpc.parse(b'{"jsonrpc":"2.0","id":7}')
    assert isinstance(asked, Bad)
    assert asked.id == 7


def test_an_object_without_jsonrpc_and_method_is_a_submission_but_not_in_a_batch() -> None:
    assert rpc.parse(b'{"content":"x"}') == Bare({"content": "x"})
    batch = rpc.parse(b'[{"content":"x"}]')
    assert isinstance(batch, Batch)
    asked = rpc.interpret(next(elements(batch)))
    assert isinstance(asked, Bad)
    assert asked.error.code == -32600


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.just("2.0") | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["jsonrpc", "method", "id", "params", "content"]) | st.text(), inner, max_size=5),
).map(lambda value: json.dumps(value).encode()))
def test_nothing_that_a_client_writes_is_an_exception(line: bytes) -> None:
    asked = rpc.parse(line)
    for each in elements(asked) if isinstance(asked, Batch) else ():
        assert isinstance(rpc.interpret(each), Request | Bad)


@given(st.lists(st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers())
                | st.dictionaries(st.text(), st.text()), min_size=1, max_size=5),
       st.sampled_from([None, 0, 3, "\t\r "]), st.booleans())
def test_a_batch_has_the_values_that_were_written(values: list[Any], indent: str | int | None, ascii: bool) -> None:
    line = json.dumps(values, indent=indent, ensure_ascii=ascii).replace("\n", "\r").encode("utf-8", "replace")
    batch = rpc.parse(b" " + line + b" \r")
    assert isinstance(batch, Batch)
    assert list(elements(batch)) == json.loads(line)


def test_a_pair_of_surrogates_is_a_character_and_a_lone_one_is_none() -> None:
    assert rpc.parse(b'{"content":"\\ud83d\\ude00 \\\\ud800"}') == Bare({"content": "😀 \\ud800"})
    assert code(b'{"content":"\\ud83d\\ude00 \\ud800"}') == -32700


# ---- submissions


def accepted(config: Config, **params: Any) -> dict[str, Any]:
    return submission.document(params, config, now_ms=1_700_000_000_000, uid=33, pid=44)


def refused(config: Config, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        submission.document(submission.from_bare(params), config, now_ms=0, uid=0, pid=0)
    assert error.value.code == -32602
    assert "\n" not in error.value.message
    return error.value


def test_the_document_has_every_key(config: Config) -> None:
    document = accepted(config, message="supply", content="供应")
    assert document.pop("campaign").startswith("c-")
    assert document == {
        "v": 1, "at": 1_700_000_000_000, "account": "main", "message": "supply", "audience": "default",
        "content": "供应", "phone": None, "data": {}, "openids": None, "upload": None, "test": False, "page": None,
        "page_size": 500,
        "send_at": None, "cron": None, "key": None, "reference": None, "uid": 33, "pid": 44,
    }


def test_all_of_it_is_kept(config: Config) -> None:
    document = accepted(
        config, message="supply", content="x", phone=110, data={"colour": 5}, openids=PEOPLE, key=7, reference="r",
        send_at="2026-01-02T03:04:05+08:00", account="main", audience=None, test=None, dry_run=False,
    )
    assert document["campaign"] == keyed_campaign_id("main", "7")
    assert (document["phone"], document["data"], document["key"]) == ("110", {"colour": "5"}, "7")
    assert (document["audience"], document["openids"]) == (None, PEOPLE)
    assert document["send_at"] == 1767294245000


@pytest.mark.parametrize("flag", [2, "2", "02"])
def test_flag_is_the_page_as_number_or_decimal(config: Config, flag: object) -> None:
    params = submission.from_bare({"content": "x", "flag": flag, "phone": "110", "message": "supply"})
    assert accepted(config, **params)["page"] == 2


def test_php_writes_an_empty_object_as_a_list(config: Config) -> None:
    assert accepted(config, message="supply", content="x", data=[])["data"] == {}


def test_content_may_be_missing_when_the_message_does_not_use_it(config: Config) -> None:
    assert accepted(config, message="fixed")["content"] is None
    assert refused(config, message="supply").data == {"field": "content"}


@pytest.mark.parametrize(("field", "params"), [
    ("content", {"content": ""}), ("content", {"content": " \n"}), ("content", {"content": 5}),
    ("content", {"content": "供" * 683}), ("phone", {"phone": True}), ("phone", {"phone": "1" * 201}),
    ("data", {"data": [1]}), ("data.colour", {"data": {"colour": []}}), ("data.size", {"data": {"size": "5"}}),
    ("data.content", {"data": {"content": "5"}}),
    ("message", {"message": "nope"}), ("message", {"message": 5}), ("message", {"message": None}),
    ("account", {"account": "nope"}), ("audience", {"audience": "nope"}),
    ("audience", {"audience": "default", "openids": PEOPLE}),
    ("openids", {"openids": []}), ("openids", {"openids": "o12345"}), ("openids", {"openids": {}}),
    ("openids[1]", {"openids": ["o12345", "no spaces"]}), ("openids[0]", {"openids": ["o12345\n"]}),
    ("openids[0]", {"openids": ["o1234"]}), ("openids[0]", {"openids": ["o" * 65]}), ("openids[0]", {"openids": [5]}),
    ("page", {"page": -1}), ("page", {"page": "1.5"}), ("page", {"page": True}), ("page", {"page": 10**30}),
    ("page", {"page": 0, "openids": PEOPLE}), ("page_size", {"page_size": 0}), ("flag", {"flag": 1, "page": 1}),
    ("page", {"flag": "x"}), ("page", {"page": "²"}),
    ("send_at", {"send_at": "soon"}), ("send_at", {"send_at": "2026-01-02T03:04:05"}), ("send_at", {"send_at": 5}),
    ("key", {"key": ""}), ("key", {"key": "k" * 201}), ("reference", {"reference": []}),
    ("colour", {"colour": "red"}), ("test", {"test": "o1"}), ("upload", {"upload": "u"}),
    ("audience", {"audience": "default", "test": "o12345"}), ("openids", {"openids": PEOPLE, "test": "o12345"}),
    ("openids", {"openids": PEOPLE, "upload": UPLOAD}), ("upload", {"upload": UPLOAD, "test": "o12345"}),
    ("cron", {"cron": "0 9 * *"}), ("cron", {"cron": "0 25 * * *"}), ("cron", {"cron": "0 0 31 2 *"}),
    ("cron", {"cron": 5}), ("send_at", {"cron": "* * * * *", "send_at": "2026-01-02T03:04:05Z"}),
    ("test", {"cron": "* * * * *", "test": "o12345"}),
    ("upload", {"cron": "* * * * *", "upload": UPLOAD}),
    ("page", {"page": 0, "test": "o12345"}), ("page", {"page": 0, "upload": UPLOAD}),
])
def test_a_submission_that_is_refused_names_its_field(config: Config, field: str, params: dict[str, Any]) -> None:
    assert refused(config, **{"content": "x", "message": "supply", **params}).data == {"field": field}


def test_the_embedded_audience_is_one_like_others(config: Config) -> None:
    assert accepted(config, message="supply", content="x", audience="followers")["audience"] == "followers"


def test_one_that_comes_again_has_an_id_of_its_own_kind(config: Config) -> None:
    document = accepted(config, message="supply", content="x", cron=" 0 9  * * 1 ")
    assert document["cron"] == "0 9 * * 1" and document["campaign"].startswith("r-")
    keyed = {"message": "supply", "content": "x", "key": "weekly"}
    once, often = accepted(config, **keyed), accepted(config, **keyed, cron="0 9 * * 1")
    assert (once["campaign"][:2], often["campaign"][:2]) == ("k-", "r-")
    assert submission.keyed_id({**keyed, "cron": "0 9 * * 1"}, config) == often["campaign"]


def test_a_test_is_a_list_of_one(config: Config) -> None:
    document = accepted(config, message="supply", content="x", test="o12345")
    assert (document["openids"], document["test"], document["audience"]) == (["o12345"], True, None)


# ---- parameters of what the dispatcher answers


def test_carried_parameters_are_complete() -> None:
    assert CARRIED["campaign.deliveries"]({"campaign": "c-1", "after": 7, "limit": "10"}) == {
        "campaign": "c-1", "state": None, "after": 7, "limit": 10,
    }


@pytest.mark.parametrize(("method", "params", "wanted"), [
    ("campaign.get", {}, -32602), ("campaign.get", {"campaign": 5}, -32602),
    ("campaign.get", {"campaign": "A B"}, -32002),
    ("campaign.get", {"campaign": "c-1", "x": 1}, -32602), ("campaign.list", {"state": "gone"}, -32602),
    ("campaign.list", {"state": []}, -32602), ("campaign.list", {"since": "2h"}, -32602),
    ("campaign.list", {"problems": 1}, -32602), ("campaign.list", {"limit": 0}, -32602),
    ("campaign.history", {}, -32602),
    ("campaign.list", {"before": []}, -32602), ("campaign.deliveries", {"campaign": "c-1", "after": []}, -32602),
    ("campaign.deliveries", {"campaign": "c-1", "limit": 10**9}, -32602),
])
def test_carried_parameters_are_checked(method: str, params: dict[str, Any], wanted: int) -> None:
    with pytest.raises(RpcError) as error:
        CARRIED[method](params)
    assert error.value.code == wanted
