"""Message bodies as configuration: every msgtype, templates and subscription notifications, and what is wrong there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import Config, load, show
from fanoutd.config.msgtypes import KINDS
from fanoutd.errors import BadConfig
from fanoutd.master import submission
from fanoutd.master.rpc import RpcError
from fanoutd.message import compile_body

ACCOUNT = '[account.main]\napp_id = "wx1"\napp_secret = "s3cret"\n'

#: A complete body of each msgtype, as WeChat's page has it.
WHOLE = {
    "text": 'text.content = "{content}"',
    "image": 'image.media_id = "M"',
    "voice": 'voice.media_id = "M"',
    "video": 'video = { media_id = "M", thumb_media_id = "T", title = "{content}", description = "D" }',
    "music": 'music = { title = "T", description = "D", musicurl = "u", hqmusicurl = "h", thumb_media_id = "M" }',
    "news": 'news.articles = [{ title = "{content}", description = "D", url = "u", picurl = "p" }]',
    "mpnews": 'mpnews.media_id = "M"',
    "mpnewsarticle": 'mpnewsarticle.article_id = "A"',
    "msgmenu": 'msgmenu = { head_content = "{content}", list = [{ id = 101, content = "yes" }, { id = "2", '
               'content = "no" }], tail_content = "bye" }',
    "wxcard": 'wxcard.card_id = "C"',
    "miniprogrampage": 'miniprogrampage = { title = "{content}", appid = "wx2", pagepath = "p", thumb_media_id = "M" }',
    "link": 'link = { title = "{content}", description = "D", url = "u", thumb_url = "t" }',
}


def loaded(folder: Path, text: str) -> Config:
    file = folder / "fanoutd.toml"
    file.write_text(ACCOUNT + text, encoding="utf-8")
    file.chmod(0o600)
    return load(file, {})


def refused(folder: Path, text: str) -> str:
    with pytest.raises(BadConfig) as error:
        loaded(folder, text)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}/fanoutd.toml: ")


def custom(msgtype: str, body: str, more: str = "") -> str:
    return f'{more}\n[message.m.custom]\nmsgtype = "{msgtype}"\n{body}\n'


def template(body: str, channel: str = "template", more: str = "") -> str:
    return f'{more}\n[message.m.{channel}]\ntemplate_id = "T"\n{body}\n'


def test_there_is_a_body_for_every_msgtype() -> None:
    assert set(WHOLE) == set(KINDS)


@pytest.mark.parametrize("msgtype", WHOLE)
def test_every_msgtype_is_taken_and_sent_as_it_is_written(tmp_path: Path, msgtype: str) -> None:
    text = custom(msgtype, WHOLE[msgtype] + '\ncustomservice.kf_account = "test1@gh_abc"')
    config = loaded(tmp_path, text)
    body = tomllib.loads(text)["message"]["m"]["custom"]
    assert config.messages["m"].bodies == {"custom": body}
    sent = json.loads(compile_body(body, {"content": "供应"}, channel="custom").render("o12345"))
    assert sent == {"touser": "o12345", **json.loads(json.dumps(body).replace("{content}", "供应"))}
    assert [line for line in config.warnings if "mini programs" in line] == list(config.warnings)
    assert bool(config.warnings) == (msgtype == "link")
    assert tomllib.loads(show(config))["message"]["m"]["custom"] == body


def test_the_example_in_etc_has_a_good_body_of_each(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "etc" / "fanoutd.toml").read_text(encoding="utf-8")
    written = dict(re.findall(r'^# msgtype = "(\w+)".*\n((?:# .*\n)+)', text, re.MULTILINE))
    assert set(written) == set(KINDS) - {"text"}
    for msgtype, body in written.items():
        config = loaded(tmp_path, custom(msgtype, re.sub("^# ", "", body, flags=re.MULTILINE)))
        assert set(config.messages["m"].bodies["custom"]) == {"msgtype", msgtype}
    found = re.search(r"^# \[message\.supply\.subscribe\]\n((?:# .*\n)+)", text, re.MULTILINE)
    assert found
    config = loaded(tmp_path, f"[message.m.subscribe]\n{re.sub('^# ', '', found[1], flags=re.MULTILINE)}")
    assert set(config.messages["m"].bodies["subscribe"]) == {"template_id", "page", "miniprogram", "data"}


@pytest.mark.parametrize(("msgtype", "body", "words"), [
    ("text", "", "text: is missing; a message of msgtype text wants a table of that name"),
    ("text", 'text = "hello"', "text: is missing"),
    ("text", "text = {}", "text.content: is missing or empty; text needs it"),
    ("text", 'text.content = ""', "text.content: is missing or empty"),
    ("text", "text.content = 5", "text.content: wants a text"),
    ("text", 'text.contnet = "x"', 'text.contnet: unknown key; did you mean "content"?'),
    ("text", f'text.content = "{"供" * 683}"', "text.content: 2049 bytes (683 characters), WeChat takes 2048 bytes"),
    ("text", 'text.content = "x"\nimage.media_id = "M"', 'image: belongs to msgtype = "image"; here it is "text"'),
    ("image", 'image.url = "x"', "image.media_id: is missing or empty; image needs it"),
    ("video", 'video.title = "x"', "video.media_id: is missing or empty; video needs it; it has media_id, thumb_media"),
    ("video", 'video = { media_id = "M", descripton = "x" }', 'video.descripton: unknown key; did you mean "descripti'),
    ("music", 'music = { musicurl = "x" }', "music.thumb_media_id: is missing"),
    ("news", "news = {}", "news.articles: wants exactly one article (WeChat takes no more): [{ title = "),
    ("news", 'news.articles = [{ title = "1" }, { title = "2" }]', "news.articles: wants exactly one article"),
    ("news", 'news.articles = { title = "1" }', "news.articles: wants exactly one article"),
    ("news", 'news.articles = [{ title = "x", pic_url = "x" }]', 'news.articles.0.pic_url: unknown key; did you mean'),
    ("news", 'news.articles = [{ url = "x" }]', "news.articles.0.title: is missing or empty"),
    ("mpnews", "mpnews = {}", "mpnews.media_id: is missing"),
    ("mpnewsarticle", "mpnewsarticle = {}", "mpnewsarticle.article_id: is missing"),
    ("msgmenu", 'msgmenu.head_content = "x"', 'msgmenu.list: wants at least one choice: [{ id = "1", content = '),
    ("msgmenu", "msgmenu.list = []", "msgmenu.list: wants at least one choice"),
    ("msgmenu", 'msgmenu.list = ["yes"]', 'msgmenu.list.0: wants a table like { id = "1", content = "…" }'),
    ("msgmenu", 'msgmenu.list = [{ id = 1, content = "x" }, { id = 2 }]', "msgmenu.list.1.content: is missing"),
    ("msgmenu", 'msgmenu.list = [{ content = "x" }]', "msgmenu.list.0.id: is missing or empty"),
    ("msgmenu", 'msgmenu = { head_content = 1, list = [{ id = 1, content = "x" }] }', "msgmenu.head_content: wants a"),
    ("wxcard", "wxcard = {}", "wxcard.card_id: is missing"),
    ("miniprogrampage", 'miniprogrampage = { appid = "a", pagepath = "p" }', "miniprogrampage.thumb_media_id: is miss"),
    ("link", 'link = { title = "x" }', "link.url: is missing"),
    ("txt", "", 'msgtype: unknown msgtype "txt"; did you mean "text"? There are: text, image, voice, video, music, '),
    ("sms", "", 'msgtype: unknown msgtype "sms"; there are: text, image'),
    ("text", 'text.content = "x"\ncustomservice = {}', "customservice.kf_account: wants the sender's full name, like"),
    ("text", 'text.content = "x"\ncustomservice.kf_account = "test1"', "customservice.kf_account: wants the sender's"),
])
def test_a_wrong_custom_body_is_named_with_what_is_right(tmp_path: Path, msgtype: str, body: str, words: str) -> None:
    assert refused(tmp_path, custom(msgtype, body)).startswith(f"[message.m.custom] {words}")


def test_a_key_that_wechat_may_add_passes(tmp_path: Path) -> None:
    config = loaded(tmp_path, custom("text", 'text.content = "x"\naimsgcontext = { is_ai_msg = 1 }'))
    assert config.messages["m"].bodies["custom"]["aimsgcontext"] == {"is_ai_msg": 1}


@pytest.mark.parametrize(("channel", "body", "words"), [
    ("template", 'data.phrase1.value = "ok"', "data.phrase1.value: has what WeChat refuses there; it takes up to 5 Ch"),
    ("template", 'data.thing1.value = ""', "data.thing1.value: is empty"),
    ("template", 'data.thing1 = { value = "x", color = 1 }', 'data.thing1.color: wants a text, like "#173177"'),
    ("template", 'miniprogram = "wx1"', "miniprogram: wants a table"),
    ("template", 'miniprogram = { app_id = "wx1" }', "miniprogram.app_id: unknown key; there are: appid, pagepath"),
    ("template", 'miniprogram.pagepath = "p"', "miniprogram.appid: is missing"),
    ("template", 'page = "p"', "page: unknown key; a template message's link is called url"),
    ("subscribe", 'url = "p"', "url: unknown key; a subscription notification's link is called page"),
    ("subscribe", "page = 1", "page: wants a text"),
    ("subscribe", 'data.thing1 = "x"', "data.thing1: wants a text"),
    ("subscribe", 'client_msg_id = "x"', "client_msg_id: is filled in by fanoutd"),
])
def test_a_wrong_body_of_keywords_is_named(tmp_path: Path, channel: str, body: str, words: str) -> None:
    assert refused(tmp_path, template(body, channel)).startswith(f"[message.m.{channel}] {words}")


def test_with_fail_a_fixed_value_that_is_too_long_is_an_error_and_with_cut_it_is_cut(tmp_path: Path) -> None:
    body = f'data.thing1.value = "{"供" * 21}"'
    assert loaded(tmp_path, template(body)).messages["m"].too_long == "cut"
    words = refused(tmp_path, template(body, more='[message.m]\ntoo_long = "fail"'))
    assert words.startswith("[message.m.template] data.thing1.value: 21 characters, WeChat takes 20")


def test_a_subscription_notification_needs_its_template(tmp_path: Path) -> None:
    text = '[message.m.subscribe]\npage = "https://example.com"'
    assert refused(tmp_path, text).startswith("[message.m.subscribe] template_id: is missing")


@pytest.mark.parametrize("channels", [
    ["subscribe"], ["custom", "subscribe"], ["subscribe", "template", "custom"], ["template", "subscribe", "custom"],
])
def test_the_channels_may_stand_in_any_order(tmp_path: Path, channels: list[str]) -> None:
    bodies = custom("text", 'text.content = "{content}"') + template("") + template("", "subscribe")
    config = loaded(tmp_path, f"[message.m]\nchannels = {json.dumps(channels)}\n{bodies}")
    assert config.messages["m"].channels == tuple(channels)
    config = loaded(tmp_path, bodies)
    assert config.messages["m"].channels == ("custom", "template", "subscribe")


def test_what_wechat_shows_no_more_is_taken_with_one_line_each(tmp_path: Path) -> None:
    old = 'data.first = { value = "{phone}", color = "#173177" }\ndata.keyword1 = { value = "x", color = "#173177" }\n'
    config = loaded(tmp_path, template(old + 'data.remark.value = ""'))
    assert list(config.warnings) == [
        "[message.m.template] data.first.color, data.keyword1.color: sent as it is, but WeChat shows no colours since "
        "2023",
        "[message.m.template] data.first, data.remark: sent as it is, but WeChat shows first and remark no more since "
        "2023",
    ]
    assert config.messages["m"].bodies["template"]["data"]["first"]["color"] == "#173177"


# ---- submissions


MESSAGE = """
[message.m]
channels = ["custom", "template"]
variables = ["tree", "city"]
[message.m.custom]
msgtype = "text"
text.content = "{content} {tree} {city} {now} {campaign} {reference}"
[message.m.template]
template_id = "T"
data.thing1.value = "{content}"
data.phone_number2.value = "{phone}"
data.time3.value = "{now}"
data.phrase4.value = "{tree}"
data.thing5.value = "{city}"
[message.call]
[message.call.template]
template_id = "T"
data.phone_number2.value = "tel {phone}"
data.thing1.value = "{content}"
[message.plain]
[message.plain.custom]
msgtype = "text"
text.content = "{phone}"
"""


def submitted(folder: Path, **params: Any) -> dict[str, Any]:
    given = {"message": "m", "content": "hello", "openids": ["o12345"], **params}
    return submission.document(given, loaded(folder, MESSAGE), now_ms=1_700_000_000_000, uid=0, pid=0)


@pytest.mark.parametrize(("params", "field", "words"), [
    ({"phone": "call me"}, "phone",
     "phone: template field phone_number2 of message 'm': has what WeChat refuses there; it takes up to 17 digits"),
    ({"data": {"tree": "oak"}}, "data.tree", "data.tree: template field phrase4 of message 'm': has what WeChat ref"),
    ({"data": {"tree": "好大一棵香樟"}}, "data.tree", "6 characters, WeChat takes 5: up to 5 Chinese characters"),
    ({"content": "供" * 683}, "content", "content: text.content of message 'm': 2095 bytes (723 char"),
    ({"content": "x" * 1900, "data": {"city": "y" * 200}}, "content", "bytes ("),
    ({"content": "供" * 640, "reference": "y" * 128}, "content", "characters), WeChat takes 2048 bytes"),
    ({"message": "plain"}, "phone", "phone: text.content of message 'plain': is empty, which WeChat refuses"),
    ({"message": "call"}, "phone", "phone: template field phone_number2 of message 'call': has what WeChat refuses"),
])
def test_what_wechat_would_refuse_of_everybody_is_refused_at_once(
    tmp_path: Path, params: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(RpcError) as error:
        submitted(tmp_path, **params)
    assert (error.value.code, error.value.data) == (-32602, {"field": field})
    assert words in error.value.message and "\n" not in error.value.message


@pytest.mark.parametrize("params", [
    {}, {"phone": "+86 (571) 8888-8888"[:17]}, {"phone": "13800000000/13900000000"}, {"content": "供" * 600},
    {"send_at": "9999-12-31T23:59:59+00:00"}, {"data": {"tree": "香樟"}},
    {"data": {"tree": "香樟", "city": "杭" * 40}}, {"message": "plain", "phone": "1"},
])
def test_what_wechat_takes_of_somebody_is_taken(tmp_path: Path, params: dict[str, Any]) -> None:
    assert submitted(tmp_path, **params)["message"] == params.get("message", "m")


def test_with_fail_a_text_too_long_for_its_template_is_refused_at_once(tmp_path: Path) -> None:
    long = {"message": "call", "phone": "1", "content": "供" * 21}
    text = MESSAGE.replace("[message.call]", '[message.call]\ntoo_long = "fail"').replace("tel ", "")
    config = loaded(tmp_path, text)
    with pytest.raises(RpcError, match=r"content: template field thing1 .*21 characters, WeChat takes 20"):
        submission.document({**long, "openids": ["o12345"]}, config, now_ms=0, uid=0, pid=0)
    config = loaded(tmp_path, text.replace('"fail"', '"cut"'))
    assert submission.document({**long, "openids": ["o12345"]}, config, now_ms=0, uid=0, pid=0)["content"] == "供" * 21
