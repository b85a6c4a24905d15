"""Messages: what the operator wrote and the values given, as the bytes that WeChat gets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd import message
from fanoutd.message import RenderError, compile_body

OPENID = "oABC_def-123456"
#: What JSON can write without \\u: all but most control characters, and no lone surrogates.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="".join(map(chr, range(32)))))
LINES = st.lists(TEXT).map("\n".join)


def sent(body: dict[str, Any], values: dict[str, str], channel: str = "custom", **more: Any) -> Any:
    return json.loads(compile_body(body, values, channel=channel, **more).render(OPENID))


def keyword(key: str, text: str, too_long: str = "cut") -> str:
    body = {"template_id": "T", "data": {key: {"value": "{content}"}}}
    value = sent(body, {"content": text}, channel="template", too_long=too_long)["data"][key]["value"]
    assert isinstance(value, str)
    return value


@given(LINES, LINES)
def test_every_text_arrives_as_it_was_given_in_raw_utf8(content: str, phone: str) -> None:
    body = {"msgtype": "text", "text": {"content": "{content}|{phone}"}}
    data = compile_body(body, {"content": content, "phone": phone}, channel="custom").render(OPENID)
    assert json.loads(data)["text"]["content"] == f"{content}|{phone}"
    assert data.startswith(b'{"touser":"' + OPENID.encode() + b'","msgtype"')
    assert not re.search(rb"(?<!\\)(\\\\)*\\u", data)


@given(LINES, LINES)
def test_a_text_of_one_person_arrives_alike(content: str, city: str) -> None:
    body = {"msgtype": "text", "text": {"content": "{content} {city}"}}
    compiled = compile_body(body, {"content": content}, {"city"}, channel="custom")
    data = compiled.render(OPENID, {"city": city})
    assert json.loads(data) == {"touser": OPENID, "msgtype": "text", "text": {"content": f"{content} {city}"}}
    assert not re.search(rb"(?<!\\)(\\\\)*\\u", data)


@given(st.text())
def test_doubled_braces_are_literal(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert "".join(str(each) for each in message.parse(doubled)) == text


@given(st.text("{}ab "))
def test_braces_in_values_are_never_expanded(value: str) -> None:
    assert sent({"text": "{content}{{b}}"}, {"content": value, "a": "no", "b": "no"})["text"] == value + "{b}"


class Upper(dict[str, str]):
    """Every plain name in capitals."""

    def __missing__(self, name: str) -> str:
        if not name.isidentifier():
            raise KeyError(name)
        return name.upper()


@given(st.text("{}a "))
def test_a_text_with_braces_is_understood_as_python_formatting_does_or_refused(text: str) -> None:
    try:
        expected = text.format_map(Upper())
    except (ValueError, KeyError):
        expected = None
    try:
        got = "".join(each if isinstance(each, str) else each.text.upper() for each in message.parse(text))
    except ValueError:
        got = None
    assert got == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a { b", "lone { at '{ b'"),
        ("a } b", "lone } at '} b'"),
        ("{}", "no placeholder"),
        ("{a b}", "no placeholder"),
        ("{a!r}", "no placeholder"),
        ("{a.b}", "no placeholder"),
        ("{0}", "no placeholder"),
    ],
)
def test_a_lone_brace_or_odd_name_is_refused_with_the_field(text: str, words: str) -> None:
    with pytest.raises(RenderError, match=re.escape(words)) as error:
        compile_body({"text": {"content": text}}, {}, channel="custom")
    assert str(error.value).startswith("text.content: ")


def test_a_value_that_nobody_gives_is_named_with_its_field() -> None:
    with pytest.raises(RenderError, match=r"^text\.content: nothing is given for \{city\}$"):
        compile_body({"text": {"content": "in {city}"}}, {"content": "x"}, channel="custom")
    open_for_each = compile_body({"text": {"content": "in {city}"}}, {}, {"city"}, channel="custom")
    with pytest.raises(RenderError, match=r"^text\.content: nothing is given for \{city\}$"):
        open_for_each.render(OPENID, {"town": "x"})


def test_the_whole_body_arrives_with_lists_and_numbers() -> None:
    body = {
        "msgtype": "news", "n": 1, "f": 1.5, "yes": True, "empty": {}, "none": [],
        "news": {"articles": [{"title": "{content}", "url": "https://example.com"}, {"title": "{city}"}]},
    }
    data = compile_body(body, {"content": '"\\'}, {"city"}, channel="custom").render(OPENID, {"city": "西安"})
    body["news"] = {"articles": [{"title": '"\\', "url": "https://example.com"}, {"title": "西安"}]}
    assert json.loads(data) == {"touser": OPENID, **body}


def test_a_body_without_keys_is_still_json() -> None:
    assert compile_body({}, {}, channel="custom").render(OPENID) == b'{"touser":"oABC_def-123456"}'


def test_the_id_against_doubles_is_for_templates_only() -> None:
    body = {"template_id": "T"}
    template = compile_body(body, {}, channel="template").render(OPENID, client_msg_id="c-1")
    custom = compile_body(body, {}, channel="custom").render(OPENID, client_msg_id="c-1")
    assert json.loads(template) == {"touser": OPENID, "client_msg_id": "c-1", "template_id": "T"}
    assert json.loads(custom) == {"touser": OPENID, "template_id": "T"}


@pytest.mark.parametrize("text", ["a\x00b", "a\x0bb", "a\x1fb"])
def test_a_character_that_json_must_escape_becomes_a_blank(text: str) -> None:
    assert sent({"text": "{content}"}, {"content": text})["text"] == "a b"


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert sent({"text": "{content}"}, {"content": "a\ud800b"})["text"] == "a?b"


@pytest.mark.parametrize(("key", "limit", "ending"), [
    ("thing1", 20, "…"), ("character_string10", 32, "..."), ("phone_number2", 17, "..."), ("const7", 20, "…"),
    ("name1", 20, "…"),
])
def test_a_keyword_over_its_limit_ends_in_an_ellipsis(key: str, limit: int, ending: str) -> None:
    assert keyword(key, "1" * limit) == "1" * limit
    assert keyword(key, "1" * (limit + 1)) == "1" * (limit - len(ending)) + ending


def test_a_name_with_chinese_in_it_is_shorter() -> None:
    assert keyword("name1", "王" * 10) == "王" * 10
    assert keyword("name1", "x" * 10 + "王") == "x" * 9 + "…"


@pytest.mark.parametrize(("key", "text", "words"), [
    ("phone_number2", "转8", "17 digits and symbols"), ("phrase1", "ok", "5 Chinese characters"),
    ("number2", "1" * 33, "33 characters, WeChat takes 32"), ("thing1", "", "is empty"),
])
@pytest.mark.parametrize("too_long", ["cut", "fail"])
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_a_keyword_that_a_cut_cannot_mend_is_named(
    key: str, text: str, words: str, too_long: str, channel: str
) -> None:
    body = {"template_id": "T", "data": {key: {"value": "{content}"}}}
    with pytest.raises(RenderError, match=rf"^data\.{key}\.value: .*{words}") as error:
        compile_body(body, {"content": text}, channel=channel, too_long=too_long)
    assert (error.value.path, error.value.names) == (("data", key, "value"), ("content",))
    assert error.value.empty == (text == "")
    each = compile_body(body, {}, {"content"}, channel=channel, too_long=too_long)
    with pytest.raises(RenderError, match=words):
        each.render(OPENID, {"content": text})


@pytest.mark.parametrize("key", ["time3", "date1", "keyword1", "first"])
def test_a_keyword_that_a_cut_would_falsify_is_left_alone(key: str) -> None:
    assert keyword(key, "1" * 50) == "1" * 50


def test_line_breaks_and_control_characters_become_blanks_in_a_keyword() -> None:
    assert keyword("thing1", "a\r\nb\nc\rd\te\u2028f") == "a b c d e f"


def test_the_same_text_is_whole_in_a_custom_message_and_beside_the_keywords() -> None:
    values = {"content": "line\n" * 10}
    keyword_like = {"data": {"thing1": {"value": "{content}"}}}
    assert sent(keyword_like, values)["data"]["thing1"]["value"] == values["content"]
    assert sent({"url": "{content}"}, values, channel="template")["url"] == values["content"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("x" * 21, "data.thing1.value: 21 characters, WeChat takes 20"), ("a\nb", "line break")],
)
def test_with_fail_a_keyword_is_refused_instead_of_changed(text: str, words: str) -> None:
    with pytest.raises(RenderError, match=words):
        keyword("thing1", text, too_long="fail")
    assert keyword("thing1", "x" * 20, too_long="fail") == "x" * 20


def test_a_keyword_of_one_person_is_cut_for_that_person() -> None:
    body = {"data": {"thing1": {"value": "{content}, {city}"}}}
    compiled = compile_body(body, {"content": "hello"}, {"city"}, channel="template")
    near, far = (json.loads(compiled.render(OPENID, {"city": city}))["data"] for city in ("Rome", "C" * 30))
    assert near["thing1"]["value"] == "hello, Rome"
    assert far["thing1"]["value"] == f"hello, {'C' * 12}…"


def test_the_names_of_a_body_are_found_at_any_depth() -> None:
    body = {"a": "{x} {{y}}", "b": [{"c": "{z}"}], "{n}": 1}
    assert message.placeholders(body) == {"x", "z"}


def test_a_text_is_counted_in_bytes_when_all_is_filled_in() -> None:
    body = {"msgtype": "text", "text": {"content": "{content} {phone} {name}"}}
    known = {"content": "供" * 680, "phone": "110"}  # 2,040 and 3 bytes, and 2 blanks: room for 3
    each = compile_body(body, known, {"name"}, channel="custom")
    assert len(json.loads(each.render(OPENID, {"name": "王"}))["text"]["content"].encode()) == 2048
    with pytest.raises(RenderError, match=r"^text\.content: 2051 bytes \(687 characters\), WeChat takes 2048 bytes"):
        each.render(OPENID, {"name": "王二"})
    with pytest.raises(RenderError, match=r"2051 bytes \(687 characters\)"):
        compile_body(body, {**known, "name": "王二"}, channel="custom")


def test_an_empty_text_is_refused_and_other_msgtypes_have_no_such_limit() -> None:
    body = {"msgtype": "text", "text": {"content": "{name}"}}
    with pytest.raises(RenderError, match=r"^text\.content: is empty"):
        compile_body(body, {}, {"name"}, channel="custom").render(OPENID, {"name": ""})
    news = {"msgtype": "news", "news": {"articles": [{"title": "{content}", "description": ""}]}}
    assert sent(news, {"content": "供" * 3000})["news"]["articles"][0]["title"] == "供" * 3000


LINKED = {
    "template_id": "T", "url": "{link}", "miniprogram": {"appid": "{app}", "pagepath": "{page}"},
    "data": {"thing1": {"value": "x", "color": "#173177"}},
}


@pytest.mark.parametrize("open_names", [set(), {"link", "app", "page"}, {"link"}, {"page"}])
@pytest.mark.parametrize(("values", "left"), [
    ({"link": "https://example.com", "app": "wx1", "page": "i?a=b"}, {"url", "miniprogram"}),
    ({"link": "", "app": "wx1", "page": ""}, {"miniprogram"}),
    ({"link": "https://example.com", "app": "wx1", "page": ""}, {"url", "miniprogram"}),
])
def test_links_that_are_empty_are_left_out(open_names: set[str], values: dict[str, str], left: set[str]) -> None:
    known = {name: value for name, value in values.items() if name not in open_names}
    data = json.loads(compile_body(LINKED, known, open_names, channel="template").render(OPENID, values))
    assert set(data) == {"touser", "template_id", "data", *left}
    assert data["data"] == LINKED["data"]
    assert data.get("url") in (None, values["link"])
    wanted = {name: values[key] for name, key in (("appid", "app"), ("pagepath", "page")) if values[key]}
    assert data.get("miniprogram") == wanted


@pytest.mark.parametrize("mini", [{}, {"appid": "", "pagepath": ""}, {"appid": "{app}", "pagepath": "{page}"}])
def test_a_mini_program_without_an_appid_is_left_out(mini: dict[str, str]) -> None:
    body = {"template_id": "T", "url": "", "miniprogram": mini}
    assert sent(body, {"app": "", "page": "x"}, "template") == {"touser": OPENID, "template_id": "T"}
    for each in ({}, {"app": "", "page": "x"}):
        open_names = {"app", "page"} - set(each)
        data = compile_body(body, each, open_names, channel="subscribe").render(OPENID, {"app": "", "page": "x"})
        assert json.loads(data) == {"touser": OPENID, "template_id": "T"}


def test_a_page_is_a_link_of_subscription_notifications() -> None:
    assert sent({"template_id": "T", "page": "{x}"}, {"x": ""}, "subscribe") == {"touser": OPENID, "template_id": "T"}
    assert sent({"page": ""}, {}, "custom") == {"touser": OPENID, "page": ""}


def test_a_subscription_notification_has_no_id_against_doubles() -> None:
    data = compile_body({"template_id": "T"}, {}, channel="subscribe").render(OPENID, client_msg_id="c-1")
    assert json.loads(data) == {"touser": OPENID, "template_id": "T"}


def test_a_body_that_fits_nobody_says_why_for_each() -> None:
    with pytest.raises(RenderError) as error:
        compile_body({"data": {"phrase1": {"value": "ok"}}}, {}, channel="template")
    broken = message.broken_body("template", error.value)
    for _ in range(2):
        with pytest.raises(RenderError, match=r"^data\.phrase1\.value: "):
            broken.render(OPENID, {}, "c-1")


def test_what_is_the_same_for_all_is_one_piece() -> None:
    body = compile_body(LINKED, {"link": "l", "app": "a", "page": "p"}, channel="template")
    assert [type(part) for part in body._parts] == [bytes]
