"""wechatpy, a client that somebody else wrote, takes the sandbox for WeChat: it is not told of another address.

Its own way from a URL to an answer is untouched but for the last step, where the host's name becomes an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient
from wechatpy.exceptions import APILimitedException, WeChatClientException

from fanoutd.sandbox.errcodes import ERRMSG
from support.api import CUSTOM, Api, clean_api
from support.sandbox import SandboxProcess

WECHAT = "https://api.weixin.qq.com"


class _Rerouted(HTTPAdapter):
    """Whatever is for WeChat goes to the sandbox."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        assert request.url is not None and request.url.startswith(WECHAT)
        request.url = self._url + request.url.removeprefix(WECHAT)
        return super().send(request, *args, **kwargs)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "ledger.jsonl") as process:
        yield process


@pytest.fixture
def sandbox(shared: SandboxProcess) -> Iterator[SandboxProcess]:
    with clean_api(shared):
        yield shared


@pytest.fixture
def client(sandbox: SandboxProcess) -> WeChatClient:
    return client_of(sandbox)


def client_of(sandbox: SandboxProcess) -> WeChatClient:
    client = WeChatClient("wx0123456789abcdef", "secret", timeout=10)
    client._http.mount("https://", _Rerouted(sandbox.url))
    return client


def row_of(sandbox: SandboxProcess, openid: str) -> dict[str, Any]:
    [row] = [row for row in sandbox.ledger_rows() if row["openid"] == openid]
    return row


# Tokens


def test_it_fetches_one_token_for_many_calls_and_another_when_that_was_revoked(
    sandbox: SandboxProcess, client: WeChatClient
) -> None:
    before = sandbox.stats()["token_fetches"]["plain"]
    for _ in range(3):
        assert client.message.send_text("oTOKEN", "你好")["errcode"] == 0
    first = client.access_token
    assert sandbox.stats()["token_fetches"]["plain"] == before + 1
    sandbox.revoke()
    assert client.message.send_text("oTOKEN", "你好")["errcode"] == 0
    assert client.access_token != first
    assert sandbox.stats()["token_fetches"]["plain"] == before + 2


@pytest.mark.parametrize("errcode", [40013, 40125, 40164, 40243, 89503])
def test_it_understands_why_there_is_no_token(sandbox: SandboxProcess, client: WeChatClient, errcode: int) -> None:
    sandbox.control("token_error", {"errcode": errcode})
    with pytest.raises(WeChatClientException) as raised:
        client.fetch_access_token()
    assert raised.value.errcode == errcode and raised.value.errmsg.startswith(ERRMSG[errcode])


# Messages


def test_it_sends_text_and_news_as_raw_utf8(sandbox: SandboxProcess, client: WeChatClient) -> None:
    client.message.send_text("oTEXT", "饭好了 \\u", account="zhang@gh_test")
    body = row_of(sandbox, "oTEXT")["body"]
    assert body["text"] == {"content": "饭好了 \\u"} and body["customservice"] == {"kf_account": "zhang@gh_test"}
    article = {"title": "标题", "description": "d", "url": "https://example.com", "image": "https://example.com/i"}
    client.message.send_articles("oNEWS", [article])
    [sent] = row_of(sandbox, "oNEWS")["body"]["news"]["articles"]
    assert (sent["title"], sent["picurl"]) == ("标题", "https://example.com/i")
    with pytest.raises(WeChatClientException, match="45008"):
        client.message.send_articles("oNEWS", [article, article])


def test_all_its_kinds_of_custom_messages_are_taken(sandbox: SandboxProcess, client: WeChatClient) -> None:
    message = client.message
    page = {"title": "t", "appid": "wx01", "pagepath": "index", "thumb_media_id": "THUMB"}
    menu = {"head_content": "?", "list": [{"id": "1", "content": "yes"}], "tail_content": "!"}
    message.send_image("oKINDS", "MEDIA")
    message.send_voice("oKINDS", "MEDIA")
    message.send_video("oKINDS", "MEDIA", "title", "description")
    message.send_music("oKINDS", "https://example.com/a", "https://example.com/b", "THUMB")
    message.send_articles("oKINDS", "MEDIA")
    message.send_link("oKINDS", {"title": "t", "description": "d", "url": "https://example.com", "image": ""})
    message.send_card("oKINDS", "CARD")
    message.send_mini_program_page("oKINDS", page)
    message.send_msg_menu("oKINDS", menu)
    kinds = [row["body"]["msgtype"] for row in sandbox.ledger_rows() if row["openid"] == "oKINDS"]
    assert kinds == [
        "image", "voice", "video", "music", "mpnews", "link", "wxcard", "miniprogrampage", "msgmenu"
    ]  # fmt: skip


def test_it_sends_templates_and_subscription_notifications(sandbox: SandboxProcess, client: WeChatClient) -> None:
    content = "{{first.DATA}}\n餐品：{{thing1.DATA}}"
    sandbox.control("templates", [
        {"template_id": "TPL", "title": "到餐提醒", "content": content},
        {"template_id": "SUB", "content": "{{thing1.DATA}}", "family": "subscribe"},
    ])  # fmt: skip
    [template] = client.template.get_all_private_template()["template_list"]
    assert (template["template_id"], template["content"]) == ("TPL", content)
    data = {"thing1": {"value": "饭", "color": "#173177"}}
    msgid = client.message.send_template("oTPL", "TPL", data)["msgid"]
    assert row_of(sandbox, "oTPL")["msgid"] == msgid
    client.message.send_template("oTPLMINI", "TPL", data, mini_program={"appid": "wx01", "pagepath": "index"})
    assert row_of(sandbox, "oTPLMINI")["body"]["miniprogram"]["pagepath"] == "index"
    assert client.message.send_subscribe_message("oSUB", "SUB", data)["errcode"] == 0
    assert row_of(sandbox, "oSUB")["channel"] == "subscribe"
    for wrong, errcode in (("OTHER", 40037), ("SUB", 40037), ("TPL", 47003)):
        with pytest.raises(WeChatClientException) as raised:
            client.message.send_template("oTPLWRONG", wrong, {})
        assert raised.value.errcode == errcode
    assert "data.thing1.value is emtpy" in raised.value.errmsg


@pytest.mark.parametrize("errcode", [-1, 40003, 43004, 45011, 45015, 45047, 45087, 48001, 48002])
def test_it_understands_refusals(sandbox: SandboxProcess, client: WeChatClient, errcode: int) -> None:
    sandbox.script("oREFUSED", errcode)
    with pytest.raises(WeChatClientException) as raised:
        client.message.send_text("oREFUSED", "x")
    assert raised.value.errcode == errcode and raised.value.errmsg.startswith(ERRMSG[errcode])


def test_it_knows_a_used_up_day_when_it_sees_it(sandbox: SandboxProcess, client: WeChatClient) -> None:
    sandbox.control("new_day")
    sandbox.set_options(quota_custom=1)
    client.message.send_text("oQUOTA", "x")
    with pytest.raises(APILimitedException):
        client.message.send_text("oQUOTA", "x")
    quota = client.post("openapi/quota/get", data={"cgi_path": CUSTOM})["quota"]
    assert quota == {"daily_limit": 1, "used": 1, "remain": 0}


# People


@pytest.mark.parametrize("end", ["extra", "empty"])
@pytest.mark.parametrize("count", [0, 1, 10, 25, 30])
def test_it_pages_through_all_followers_and_stops(
    sandbox: SandboxProcess, client: WeChatClient, count: int, end: str
) -> None:
    sandbox.set_options(page_size=10, list_end=end)
    sandbox.control("followers", {"count": count})
    before = sandbox.stats()["requests"].get("/cgi-bin/user/get", 0)
    openids = list(client.user.iter_followers())
    assert len(openids) == len(set(openids)) == count
    pages = -(-count // 10) + (1 if end == "extra" or not count else 0)
    assert sandbox.stats()["requests"]["/cgi-bin/user/get"] - before == pages


def test_it_sees_tags_and_who_has_them(sandbox: SandboxProcess, client: WeChatClient) -> None:
    sandbox.set_options(page_size=2)
    tags = {"2": {"name": "星标组", "openids": ["oA", "oB", "oC"]}}
    sandbox.control("followers", {"openids": ["oA", "oB", "oC", "oD"], "tags": tags, "blacklist": ["oD"]})
    assert client.tag.get() == [{"id": 2, "name": "星标组", "count": 3}]
    assert list(client.tag.iter_tag_users(2)) == ["oA", "oB", "oC"]
    assert client.tag.get_user_tag("oA") == [2]
    assert client.tag.get_black_list()["data"]["openid"] == ["oD"]


def test_it_gets_information_one_by_one_and_a_hundred_at_a_time(sandbox: SandboxProcess, client: WeChatClient) -> None:
    sandbox.control("followers", {"count": 100, "prefix": "oINFO"})
    openids = [f"oINFO{nth:023}" for nth in range(100)]
    people = client.user.get_batch(openids)
    assert [person["openid"] for person in people] == openids
    assert all(person["subscribe"] == 1 for person in people)
    assert client.user.get(openids[0]) == people[0]
    assert client.user.get("oSTRANGER") == {"subscribe": 0, "openid": "oSTRANGER"}
    with pytest.raises(WeChatClientException, match="40032"):
        client.user.get_batch([*openids, "oMORE"])


def test_it_learns_wechats_addresses(client: WeChatClient) -> None:
    assert client.misc.get_wechat_ips() == ["127.0.0.1"]


def test_a_plain_client_and_it_share_no_token(sandbox: SandboxProcess, client: WeChatClient) -> None:
    mine = Api(sandbox)
    assert client.message.send_text("oBOTH", "x")["errcode"] == 0
    assert client.access_token != mine.token and mine.custom("oBOTH") == 0
