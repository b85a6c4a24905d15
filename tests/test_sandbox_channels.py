"""What the stand-in for the WeChat API says to messages on its three channels, and to too many of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from fanoutd import outcome
from fanoutd.sandbox.errcodes import ERRMSG, Refused
from fanoutd.sandbox.msgtypes import REQUIRED
from fanoutd.sandbox.quota import DOCUMENTED, Quota
from fanoutd.sandbox.stats import Stats
from fanoutd.sandbox.windows import Windows
from support.api import CREDENTIALS, CUSTOM, DATA, STABLE, SUBSCRIBE, TEMPLATE, Api, clean_api
from support.sandbox import SandboxProcess

TYPING = "/cgi-bin/message/custom/typing"
GET_QUOTA = "/cgi-bin/openapi/quota/get"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "ledger.jsonl") as process:
        yield process


@pytest.fixture
def api(shared: SandboxProcess) -> Iterator[Api]:
    with clean_api(shared) as api:
        yield api


def rows_of(api: Api, openid: str) -> list[dict[str, Any]]:
    return [row for row in api.sandbox.ledger_rows() if row["openid"] == openid]


# Custom messages

GOOD: dict[str, dict[str, Any]] = {
    "text": {"content": "饭" * 682 + "ab"},
    "image": {"media_id": "MEDIA"},
    "voice": {"media_id": "MEDIA"},
    "video": {"media_id": "MEDIA", "thumb_media_id": "THUMB", "title": "", "description": "d"},
    "music": {"musicurl": "https://example.com/a", "hqmusicurl": "https://example.com/b", "thumb_media_id": "THUMB"},
    "news": {"articles": [{"title": "t", "description": "d", "url": "https://example.com", "picurl": ""}]},
    "mpnews": {"media_id": "MEDIA"},
    "mpnewsarticle": {"article_id": "ARTICLE"},
    "msgmenu": {"head_content": "?", "list": [{"id": "1", "content": "yes"}, {"id": "2", "content": "no"}]},
    "wxcard": {"card_id": "CARD"},
    "miniprogrampage": {"title": "t", "appid": "wx01", "pagepath": "index", "thumb_media_id": "THUMB"},
    "link": {"title": "t", "description": "d", "url": "https://example.com", "thumb_url": ""},
}


@pytest.mark.parametrize("msgtype", GOOD)
def test_every_msgtype_is_taken_as_documented_and_not_without_what_it_must_have(api: Api, msgtype: str) -> None:
    assert api.custom(f"o{msgtype}", msgtype, GOOD[msgtype]) == 0
    for name, errcode in REQUIRED[msgtype].items():
        assert api.custom(f"o{msgtype}", msgtype, GOOD[msgtype] | {name: ""}) == errcode
        without = {key: value for key, value in GOOD[msgtype].items() if key != name}
        assert api.custom(f"o{msgtype}", msgtype, without) == errcode
    assert api.post(CUSTOM, {"touser": f"o{msgtype}", "msgtype": msgtype})["errcode"] in REQUIRED[msgtype].values()
    [row] = rows_of(api, f"o{msgtype}")
    assert row["body"][msgtype] == GOOD[msgtype]


def test_the_examples_are_all_msgtypes_that_there_are() -> None:
    assert GOOD.keys() == REQUIRED.keys()


@pytest.mark.parametrize(
    ("msgtype", "content", "errcode"),
    [
        ("text", {"content": "饭" * 682 + "abc"}, 45002),  # 2049 bytes, 685 characters
        ("news", {"articles": GOOD["news"]["articles"] * 2}, 45008),
        ("news", {"articles": [{}]}, 44003),
        ("msgmenu", {"list": [{"id": "1"}]}, 40035),
        ("hologram", {"x": "y"}, 45050),
        ([], {}, 45050),
    ],
)
def test_limits_of_custom_messages(api: Api, msgtype: Any, content: object, errcode: int) -> None:
    body = {"touser": "oLIMIT", "msgtype": msgtype, str(msgtype): content}
    assert api.post(CUSTOM, body)["errcode"] == errcode


def test_the_customer_service_account_is_a_name_at_an_account(api: Api) -> None:
    assert api.custom("oKF", customservice={"kf_account": "zhang@gh_test"}) == 0
    for wrong in ("zhang", "", {}, {"kf_account": "zhang"}, {"kf_account": 1}):
        assert api.custom("oKF", customservice=wrong) == 61451
    assert len(rows_of(api, "oKF")) == 1


def test_typing_lasts_until_a_message_and_wants_a_recent_action_where_windows_count(api: Api) -> None:
    def typing(command: str = "Typing") -> int:
        return int(api.post(TYPING, {"touser": "oTYPING", "command": command})["errcode"])

    assert [typing("Dancing"), typing(), typing(), typing("CancelTyping"), typing()] == [45072, 0, 45081, 0, 0]
    assert api.custom("oTYPING") == 0
    api.sandbox.set_options(windows=True)
    assert typing() == 45080
    api.sandbox.control("interact", {"openid": "oTYPING", "event": "menu"})
    assert typing() == 0


# Templates and subscription notifications

LIST = [
    {
        "template_id": "TPL",
        "title": "到餐提醒",
        "content": "{{first.DATA}}\n餐品：{{thing1.DATA}}\n时间：{{ time2.DATA }}\n{{remark.DATA}}",
        "example": "餐品：饭",
    },
    {"template_id": "SUB", "title": "提醒", "content": "{{thing1.DATA}}", "family": "subscribe"},
]


def test_before_a_list_is_set_any_template_is_good_and_the_list_is_empty(api: Api) -> None:
    assert api.template(template_id="whatever")["errcode"] == 0
    assert api.get("/cgi-bin/template/get_all_private_template") == {"template_list": []}


def test_with_a_list_unknown_templates_and_missing_keywords_are_refused(api: Api) -> None:
    assert api.sandbox.control("templates", LIST) == {"templates": 2}
    [shown] = api.get("/cgi-bin/template/get_all_private_template")["template_list"]
    assert shown == {**LIST[0], "primary_industry": "", "deputy_industry": ""}
    assert api.template(template_id="OTHER")["errcode"] == 40037
    answer = api.template()
    assert answer["errcode"] == 47003
    assert answer["errmsg"].startswith("argument invalid! data.time2.value is emtpy rid: ")
    data = DATA | {"time2": {"value": "15:04"}}
    assert api.template(data=data)["errcode"] == 0
    assert api.template(template_id="SUB", path=SUBSCRIBE)["errcode"] == 0
    assert api.template(template_id="SUB")["errcode"] == api.template(path=SUBSCRIBE)["errcode"] == 40037
    api.sandbox.set_options(lenient=True)
    assert api.template()["errcode"] == 0
    api.sandbox.control("templates", [])
    assert api.template()["errcode"] == 40037


@pytest.mark.parametrize("document", [{}, ["TPL"], [{"title": "t"}], [{"template_id": "T", "family": "mass"}]])
def test_a_list_of_templates_that_makes_no_sense_changes_nothing(api: Api, document: object) -> None:
    answer = requests.post(f"{api.sandbox.url}/_sandbox/templates", json=document)
    assert answer.status_code == 400 and answer.json()["error"]
    assert api.template(template_id="whatever")["errcode"] == 0


def test_first_and_remark_of_historical_templates_are_filtered_whatever_they_hold(api: Api) -> None:
    data = DATA | {"first": {"value": ""}, "remark": {"value": "x\n" * 100, "color": "#173177"}}
    assert api.template(data=data)["errcode"] == 0


@pytest.mark.parametrize(
    ("more", "errcode"),
    [
        ({"url": "https://example.com", "miniprogram": {"appid": "wx01", "pagepath": "index?foo=bar"}}, 0),
        ({"url": None, "miniprogram": None}, 0),
        ({"url": "", "miniprogram": {}}, 0),
        ({"miniprogram": {"appid": "", "pagepath": ""}}, 0),
        ({"miniprogram": {"appid": "gh_01", "pagepath": "index"}}, 40166),
        ({"miniprogram": "wx01"}, 40166),
        ({"miniprogram": {"appid": "wx01", "pagepath": 1}}, 40165),
        ({"page": 1}, 41030),
    ],
)
def test_where_a_tap_leads_is_checked(api: Api, more: dict[str, object], errcode: int) -> None:
    assert api.template(**more)["errcode"] == errcode


def test_a_subscription_notification_has_a_msgid_a_row_a_script_and_no_protection_against_repeats(api: Api) -> None:
    before = api.sandbox.stats()["accepted"]["subscribe"]
    first = api.template("oSUBSCRIBE", SUBSCRIBE, page="https://example.com", client_msg_id="c-1")
    second = api.template("oSUBSCRIBE", SUBSCRIBE, client_msg_id="c-1")
    assert first["errcode"] == second["errcode"] == 0 and first["msgid"] != second["msgid"]
    found = [(row["channel"], row["msgid"]) for row in rows_of(api, "oSUBSCRIBE")]
    assert found == [("subscribe", first["msgid"]), ("subscribe", second["msgid"])]
    assert api.sandbox.stats()["accepted"]["subscribe"] == before + 2
    api.sandbox.script("oSUBSCRIBE", 43101, 0, channel="subscribe")
    assert [api.template("oSUBSCRIBE", SUBSCRIBE)["errcode"] for _ in range(3)] == [43101, 0, 0]
    assert api.template("oSUBSCRIBE")["errcode"] == api.custom("oSUBSCRIBE") == 0
    assert api.template("oSUBSCRIBE", SUBSCRIBE, template_id=None)["errcode"] == 40037
    assert api.template("oSUBSCRIBE", SUBSCRIBE, data={"thing1": {"value": "饭" * 21}})["errcode"] == 47003


# Windows


def test_without_an_action_nobody_may_be_sent_custom_messages_where_windows_count(api: Api) -> None:
    api.sandbox.set_options(windows=True)
    assert api.custom("oWINDOW") == 45015
    api.sandbox.control("interact", {"openid": "oWINDOW", "event": "message"})
    assert [api.custom("oWINDOW") for _ in range(6)] == [0] * 5 + [45047]
    assert api.template("oWINDOW")["errcode"] == 0
    api.sandbox.control("interact", {"openid": "oWINDOW", "event": "menu"})
    assert [api.custom("oWINDOW") for _ in range(4)] == [0] * 3 + [45047]
    api.sandbox.control("interact", {"openid": "oLONGAGO", "event": "message", "at": time.time() - 48 * 3600 - 1})
    assert api.custom("oLONGAGO") == 45015
    assert len(rows_of(api, "oWINDOW")) == 9 and rows_of(api, "oLONGAGO") == []
    api.sandbox.script("oLONGAGO", 0)
    assert api.custom("oLONGAGO") == 0


def test_windows_open_and_close_as_wechats_table_says() -> None:
    hours = 48 * 3600.0
    for event, messages, seconds in (
        ("message", 5, hours), ("menu", 3, 60.0), ("subscribe", 3, 60.0), ("scan", 3, 60.0), ("pay", 1000, hours),
    ):  # fmt: skip
        windows = Windows()
        windows.interact("o", event, 100.0)
        assert windows.refusal("o", 100.0 + seconds) == 45015
        for _ in range(messages):
            assert windows.refusal("o", 100.0) == 0
            windows.sent("o", 100.0)
        assert windows.refusal("o", 100.0) == (0 if event == "pay" else 45047)


def test_windows_do_not_add_up_and_a_new_action_begins_anew() -> None:
    windows = Windows()
    windows.interact("o", "message", 0.0)
    windows.interact("o", "menu", 0.0)
    for _ in range(4):
        windows.sent("o", 1.0)
    assert windows.refusal("o", 1.0) == 0
    windows.sent("o", 1.0)
    assert windows.refusal("o", 1.0) == 45047
    windows.interact("o", "message", 2.0)
    assert windows.refusal("o", 2.0) == 0


@pytest.mark.parametrize(
    "document", [{"openid": "o", "event": "view"}, {"event": "menu"}, {"openid": "o", "at": "now"}, []]
)
def test_an_action_that_makes_no_sense_is_refused(api: Api, document: object) -> None:
    assert requests.post(f"{api.sandbox.url}/_sandbox/interact", json=document).status_code == 400


# Quotas


def test_a_day_quota_is_of_one_path_and_reported(api: Api) -> None:
    api.sandbox.control("new_day")
    api.sandbox.set_options(quota_custom=2, quota_template=1, quota_subscribe=1)
    assert [api.custom() for _ in range(4)] == [0, 0, 45009, 45009]
    assert [api.template()["errcode"] for _ in range(2)] == [0, 45009]
    assert [api.template(path=SUBSCRIBE)["errcode"] for _ in range(2)] == [0, 45009]
    answer = api.post(GET_QUOTA, {"cgi_path": CUSTOM})
    assert answer["errcode"] == 0 and answer["quota"] == {"daily_limit": 2, "used": 2, "remain": 0}
    assert answer["rate_limit"]["call_count"] > 0 and answer["rate_limit"]["refresh_second"] == 60
    assert api.post(GET_QUOTA, {"cgi_path": GET_QUOTA})["quota"]["used"] == 2
    api.sandbox.control("new_day")
    assert api.custom() == 0
    assert api.post(GET_QUOTA, {"cgi_path": CUSTOM})["quota"] == {"daily_limit": 2, "used": 1, "remain": 1}


def test_without_a_limit_the_documented_one_is_reported_and_none_is_kept(api: Api) -> None:
    assert (DOCUMENTED[CUSTOM], DOCUMENTED[TEMPLATE]) == (500_000, 100_000)
    api.sandbox.control("new_day")
    for path, limit in DOCUMENTED.items():
        assert api.post(GET_QUOTA, {"cgi_path": path})["quota"] == {"daily_limit": limit, "used": 0, "remain": limit}


@pytest.mark.parametrize("body", [{}, {"cgi_path": "/nowhere"}, {"cgi_path": 1}])
def test_a_quota_of_no_path_is_76003(api: Api, body: object) -> None:
    assert api.post(GET_QUOTA, body)["errcode"] == 76003


def test_quotas_can_be_set_back_ten_times_a_month_and_each_time_is_counted(api: Api) -> None:
    before = api.sandbox.stats()["quota_clears"]
    api.sandbox.set_options(quota_custom=1)
    credentials = {"appid": "wx01", "appsecret": "any"}
    assert [api.custom(), api.custom()] == [0, 45009]
    assert api.post("/cgi-bin/openapi/quota/clear", {"cgi_path": CUSTOM})["errcode"] == 0
    assert [api.custom(), api.custom()] == [0, 45009]
    assert api.post("/cgi-bin/clear_quota", {})["errcode"] == 41002
    for _ in range(5):
        assert api.post("/cgi-bin/clear_quota", {"appid": "wx01"})["errcode"] == 0
        assert api.post("/cgi-bin/clear_quota/v2", "", **credentials, access_token="none")["errcode"] == 0
    assert api.custom() == 0
    assert api.post("/cgi-bin/clear_quota", {"appid": "wx01"})["errcode"] == 48006
    assert api.post("/cgi-bin/clear_quota/v2", credentials)["errcode"] == 48006
    assert api.post("/cgi-bin/clear_quota/v2", {"appid": "wx01"})["errcode"] == 41004
    assert api.sandbox.stats()["quota_clears"] == before + 15


def test_one_path_can_be_set_back_fifty_times_a_month() -> None:
    quota = Quota()
    for _ in range(50):
        quota.clear_one(CUSTOM)
    with pytest.raises(Refused, match="48006"):
        quota.clear_one(CUSTOM)
    quota.new_day()
    with pytest.raises(Refused, match="48006"):
        quota.clear_one(CUSTOM)
    quota.new_day(month=True)
    quota.clear_one(CUSTOM)


def test_a_quota_that_was_checked_before_it_is_taken_never_exceeds_its_limit() -> None:
    quota = Quota()
    for _ in range(3):
        quota.take("/a", 3)
    with pytest.raises(Refused, match="45009"):
        quota.take("/a", 3)
    quota.take("/b", 3)
    assert quota.report("/a", 3, 0)["quota"] == {"daily_limit": 3, "used": 3, "remain": 0}


# Other operations


def test_a_failed_call_can_be_looked_up_by_its_rid_and_shows_no_token(api: Api) -> None:
    api.sandbox.script("oRID", 45015)
    rid = api.post(CUSTOM, {"touser": "oRID", "msgtype": "text", "text": {"content": "x"}})["errmsg"].split("rid: ")[1]
    found = api.post("/cgi-bin/openapi/rid/get", {"rid": rid})["request"]
    assert found["request_url"] == CUSTOM and json.loads(found["request_body"])["touser"] == "oRID"
    assert json.loads(found["response_body"])["errcode"] == 45015 and rid in found["response_body"]
    assert api.token not in json.dumps(found)
    assert api.post("/cgi-bin/openapi/rid/get", {"rid": "6-6-6"})["errcode"] == 76001
    assert api.post("/cgi-bin/openapi/rid/get", {})["errcode"] == 76002


def test_addresses_and_the_check_of_the_accounts_server(api: Api) -> None:
    for path in ("/cgi-bin/get_api_domain_ip", "/cgi-bin/getcallbackip"):
        assert api.get(path)["ip_list"] == ["127.0.0.1"]
    check = {"action": "all", "check_operator": "DEFAULT"}
    assert api.post("/cgi-bin/callback/check", check)["errcode"] == 40201
    api.sandbox.set_options(callback_url="http://127.0.0.1:9/")
    assert {"dns", "ping"} < api.post("/cgi-bin/callback/check", check).keys()
    assert "ping" not in api.post("/cgi-bin/callback/check", check | {"action": "dns"})
    assert api.post("/cgi-bin/callback/check", check | {"action": "x"})["errcode"] == 40202
    assert api.post("/cgi-bin/callback/check", check | {"check_operator": "x"})["errcode"] == 40203


@pytest.mark.parametrize("path", ["/cgi-bin/user/get", "/cgi-bin/tags/get"])
def test_what_is_read_with_get_wants_get_and_a_token(api: Api, path: str) -> None:
    assert api.post(path, {})["errcode"] == 43001
    assert api.get(path, access_token="")["errcode"] == 41001
    assert api.get(path, access_token="92_x")["errcode"] == 40001


@pytest.mark.parametrize("path", [SUBSCRIBE, TYPING, GET_QUOTA, "/cgi-bin/user/info/batchget", "/cgi-bin/clear_quota"])
def test_what_is_posted_wants_post_and_a_token(api: Api, path: str) -> None:
    assert api.get(path)["errcode"] == 43002
    assert api.post(path, {}, access_token="")["errcode"] == 41001
    assert api.post(path, {}, access_token="92_x")["errcode"] == 40001


# Errors on command


@pytest.mark.parametrize("errcode", [40013, 40125, 40164, 40243, 89503, -1, 45009, 45011])
def test_tokens_can_be_refused_with_any_errcode(api: Api, errcode: int) -> None:
    url = api.sandbox.url
    api.sandbox.control("token_error", {"errcode": errcode, "times": 1})
    refused = requests.post(url + STABLE, json=CREDENTIALS).json()
    assert refused["errcode"] == errcode and refused["errmsg"].startswith(ERRMSG[errcode])
    assert requests.get(url + "/cgi-bin/token", params=CREDENTIALS).json()["errcode"] == errcode
    assert requests.post(url + STABLE, json=CREDENTIALS).json()["access_token"]
    assert api.custom() == 0


def test_a_token_error_may_be_of_one_path_with_words_of_its_own_until_it_is_ended(api: Api) -> None:
    words = "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist"
    api.sandbox.control("token_error", {"errcode": 40164, "errmsg": words, "path": STABLE})
    for _ in range(3):
        assert requests.post(api.sandbox.url + STABLE, json=CREDENTIALS).json()["errmsg"].startswith(words + " rid: ")
    assert requests.get(api.sandbox.url + "/cgi-bin/token", params=CREDENTIALS).json()["access_token"]
    api.sandbox.control("token_error", {})
    assert requests.post(api.sandbox.url + STABLE, json=CREDENTIALS).json()["access_token"]


def test_any_path_can_be_made_to_refuse_or_fail(api: Api) -> None:
    followers = "/cgi-bin/user/get"
    api.sandbox.control("errors", {CUSTOM: 48001, followers: {"errcode": -1, "times": 2}})
    assert [api.custom("oERROR"), api.custom("oERROR"), api.template("oERROR")["errcode"]] == [48001, 48001, 0]
    assert [api.get(followers).get("errcode", 0) for _ in range(3)] == [-1, -1, 0]
    api.sandbox.control("errors", {CUSTOM: None, followers: "reset_before"})
    assert api.custom("oERROR") == 0
    with pytest.raises(requests.ConnectionError):
        api.get(followers)
    api.sandbox.control("errors", {followers: "half_json"})
    with pytest.raises(requests.exceptions.JSONDecodeError):
        api.get(followers)
    api.sandbox.control("errors", {CUSTOM: "drop_after", followers: None})
    with pytest.raises(requests.ConnectionError):
        api.custom("oERROR")
    api.sandbox.control("errors", {CUSTOM: 0})
    assert [row["channel"] for row in rows_of(api, "oERROR")] == ["template", "custom", "custom"]


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("errors", {"/nowhere": 1}), ("errors", []), ("errors", {CUSTOM: "explode"}), ("errors", {CUSTOM: True}),
        ("errors", {CUSTOM: {"errcode": 1, "times": 0}}), ("token_error", {"path": CUSTOM, "errcode": 1}),
    ],
)  # fmt: skip
def test_errors_that_make_no_sense_change_nothing(api: Api, name: str, document: object) -> None:
    answer = requests.post(f"{api.sandbox.url}/_sandbox/{name}", json=document)
    assert answer.status_code == 400 and answer.json()["error"]
    assert api.custom() == 0


def test_there_are_words_for_every_errcode_that_the_sender_knows() -> None:
    assert [errcode for errcode in outcome.TABLE if errcode not in ERRMSG] == []


# Rates


def test_sending_calls_are_counted_by_the_second(api: Api) -> None:
    def counted() -> dict[int, int]:
        return dict(api.sandbox.stats()["seconds"])

    before, began = counted(), int(time.time())
    for _ in range(5):
        api.custom()
        api.template()
        api.get("/cgi-bin/tags/get")
    after = counted()
    assert sum(after.values()) - sum(before.values()) == 10
    assert sum(n for second, n in after.items() if second >= began) >= 10


def test_the_count_by_the_second_goes_back_two_minutes_and_no_more() -> None:
    stats = Stats()
    for second in range(1000, 1300):
        for _ in range(3):
            stats.sending(second + 0.5)
    seconds = stats.as_dict()["seconds"]
    assert seconds == [[second, 3] for second in range(1180, 1300)]
    stats.sending(1400.0)
    assert stats.as_dict()["seconds"] == [[second, 3] for second in range(1281, 1300)] + [[1400, 1]]
