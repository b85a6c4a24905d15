"""The stand-in's followers, page by page with all that is odd about WeChat's lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.followers import Listing
from support.api import SUBSCRIBE, Api, clean_api
from support.sandbox import SandboxProcess

GET = "/cgi-bin/user/get"
OF_TAG = "/cgi-bin/user/tag/get"
INFO = "/cgi-bin/user/info"
BATCH = "/cgi-bin/user/info/batchget"
BLACKLIST = "/cgi-bin/tags/members/getblacklist"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "ledger.jsonl") as process:
        yield process


@pytest.fixture
def api(shared: SandboxProcess) -> Iterator[Api]:
    with clean_api(shared) as api:
        yield api


def pages(api: Api, calls: int) -> list[dict[str, Any]]:
    """That many calls, each from where the last one ended."""
    found: list[dict[str, Any]] = []
    for _ in range(calls):
        found.append(api.get(GET, next_openid=found[-1]["next_openid"] if found else ""))
    return found


def test_the_last_page_carries_the_last_openid_and_the_next_call_nobody_and_no_data(api: Api) -> None:
    api.sandbox.set_options(page_size=2)
    api.sandbox.control("followers", {"openids": ["oA", "oB", "oC", "oB"]})
    assert pages(api, 3) == [
        {"total": 3, "count": 2, "data": {"openid": ["oA", "oB"]}, "next_openid": "oB"},
        {"total": 3, "count": 1, "data": {"openid": ["oC"]}, "next_openid": "oC"},
        {"total": 3, "count": 0, "next_openid": ""},
    ]


def test_lists_may_also_end_with_an_empty_next_openid_or_repeat_their_last_page(api: Api) -> None:
    api.sandbox.control("followers", {"openids": ["oA", "oB", "oC"]})
    api.sandbox.set_options(page_size=2, list_end="empty")
    assert [(page["count"], page["next_openid"]) for page in pages(api, 2)] == [(2, "oB"), (1, "")]
    api.sandbox.set_options(list_end="repeat")
    assert [(page["count"], page["next_openid"]) for page in pages(api, 4)] == [(2, "oB")] + [(1, "oC")] * 3
    answer = requests.post(f"{api.sandbox.url}/_sandbox/options", json={"list_end": "never"})
    assert answer.status_code == 400 and "extra, empty, repeat" in answer.json()["error"]


@given(st.integers(0, 40), st.integers(1, 15), st.sampled_from(["extra", "empty", "repeat"]))
def test_who_pages_to_the_end_sees_everybody_once_however_lists_end(people: int, size: int, end: str) -> None:
    listing = Listing.of(f"o{nth}" for nth in range(people))
    seen: list[str] = []
    after, before = "", None
    while after != before:
        openids, following = listing.page(after, size, end)
        seen += openids
        after, before = following, after
        if not openids or not following:
            break
    assert list(dict.fromkeys(seen)) == list(listing.openids)
    assert end == "repeat" or len(seen) == people


def test_nobody_at_all_is_one_page_without_data(api: Api) -> None:
    assert pages(api, 1) == [{"total": 0, "count": 0, "next_openid": ""}]
    assert api.get("/cgi-bin/tags/get") == {"tags": []}


def test_an_unknown_next_openid_is_refused(api: Api) -> None:
    api.sandbox.control("followers", {"openids": ["oA"], "tags": {"2": {"name": "vip", "openids": ["oA"]}}})
    assert api.get(GET, next_openid="oSTRANGER")["errcode"] == 40003
    assert api.post(OF_TAG, {"tagid": 2, "next_openid": "oSTRANGER"})["errcode"] == 40003
    assert api.post(BLACKLIST, {"begin_openid": "oSTRANGER"})["errcode"] == 40003


def test_followers_may_be_made_by_number_ten_thousand_a_page(api: Api) -> None:
    made = api.sandbox.control("followers", {"count": 23_000, "prefix": "oMADE"})
    assert made == {"followers": 23_000, "tags": 0, "blacklist": 0}
    found = pages(api, 4)
    assert [page["count"] for page in found] == [10_000, 10_000, 3_000, 0]
    openids = [openid for page in found[:3] for openid in page["data"]["openid"]]
    assert openids == [f"oMADE{nth:023}" for nth in range(23_000)] and len(openids[0]) == 28


def test_tags_list_their_members_and_members_their_tags(api: Api) -> None:
    api.sandbox.set_options(page_size=2)
    tags = {"2": {"name": "星标组", "openids": ["oA", "oB", "oC"]}, "101": {"name": "vip", "openids": ["oC"]}}
    api.sandbox.control("followers", {"openids": ["oA", "oB", "oC"], "tags": tags})
    assert api.get("/cgi-bin/tags/get") == {
        "tags": [{"id": 2, "name": "星标组", "count": 3}, {"id": 101, "name": "vip", "count": 1}]
    }
    assert api.post(OF_TAG, {"tagid": 2}) == {"count": 2, "data": {"openid": ["oA", "oB"]}, "next_openid": "oB"}
    assert api.post(OF_TAG, {"tagid": 2, "next_openid": "oB"})["data"] == {"openid": ["oC"]}
    assert api.post(OF_TAG, {"tagid": 2, "next_openid": "oC"}) == {"count": 0, "next_openid": ""}
    assert api.post(OF_TAG, {"tagid": 3})["errcode"] == api.post(OF_TAG, {"tagid": "2"})["errcode"] == 45159
    assert api.post("/cgi-bin/tags/getidlist", {"openid": "oC"}) == {"tagid_list": [2, 101]}
    assert api.post("/cgi-bin/tags/getidlist", {"openid": "oNOBODY"}) == {"tagid_list": []}
    assert api.post("/cgi-bin/tags/getidlist", {"openid": "not one"})["errcode"] == 40003
    api.sandbox.control("followers", {"tags": {"7": {"name": "many", "count": 3, "prefix": "oMANY"}}})
    assert [tag["count"] for tag in api.get("/cgi-bin/tags/get")["tags"]] == [3]
    assert api.get(GET)["total"] == 3


def test_information_is_of_followers_and_of_others_only_that_they_are_none(api: Api) -> None:
    tags = {"2": {"name": "vip", "openids": ["oA"]}}
    api.sandbox.control("followers", {"openids": ["oA", "oB"], "tags": tags, "gone": ["oB"]})
    info = api.get(INFO, openid="oA", lang="en")
    assert (info["subscribe"], info["openid"], info["language"], info["tagid_list"]) == (1, "oA", "en", [2])
    assert info["subscribe_time"] > 0 and not info.keys() & {"nickname", "headimgurl"}
    assert api.get(INFO, openid="oB") == {"subscribe": 0, "openid": "oB"}
    assert api.get(INFO, openid="")["errcode"] == 40003
    batch = api.post(BATCH, {"user_list": [{"openid": "oA", "lang": "en"}, {"openid": "oB"}]})
    assert batch == {"user_info_list": [info, {"subscribe": 0, "openid": "oB"}]}
    assert api.get(GET)["data"] == {"openid": ["oA"]}


@pytest.mark.parametrize(
    ("people", "errcode"),
    [
        ([{"openid": "oA"}] * 101, 40032),
        ([], 40032),
        (None, 40032),
        (["oA"], 40031),
        ([{"openid": "!"}], 40003),
    ],
)
def test_a_batch_is_of_one_to_a_hundred_people(api: Api, people: object, errcode: int) -> None:
    assert len(api.post(BATCH, {"user_list": [{"openid": "oA"}] * 100})["user_info_list"]) == 100
    assert api.post(BATCH, {"user_list": people})["errcode"] == errcode


def test_the_blacklist_is_paged_by_a_thousand_and_its_people_and_those_who_left_get_no_message(api: Api) -> None:
    black = [f"oBLACK{nth}" for nth in range(1001)]
    api.sandbox.control("followers", {"blacklist": black, "gone": ["oGONE"]})
    first = api.post(BLACKLIST, {"begin_openid": ""})
    assert (first["total"], first["count"], first["next_openid"]) == (1001, 1000, "oBLACK999")
    second = api.post(BLACKLIST, {"begin_openid": "oBLACK999"})
    assert second["data"] == {"openid": ["oBLACK1000"]}
    for openid, errcode in (("oBLACK1000", 43019), ("oGONE", 43004), ("oOTHER", 0)):
        assert api.custom(openid) == api.template(openid)["errcode"] == errcode
        assert api.template(openid, SUBSCRIBE)["errcode"] == errcode
    api.sandbox.script("oGONE", 0)
    assert api.custom("oGONE") == 0


@pytest.mark.parametrize(
    "document",
    [
        [], {"people": []}, {"openids": "oA"}, {"openids": ["not one"]}, {"openids": [1]}, {"count": -1},
        {"count": 5, "prefix": "x" * 21}, {"count": 5, "prefix": "你"}, {"tags": []}, {"tags": {"two": {}}},
        {"tags": {"2": {"openids": []}}}, {"tags": {"2": {"name": "x"}}}, {"blacklist": {}},
        {"blacklist": ["oA"], "gone": 1},
    ],
)  # fmt: skip
def test_followers_that_make_no_sense_change_nothing(api: Api, document: object) -> None:
    api.sandbox.control("followers", {"openids": ["oKEPT"]})
    answer = requests.post(f"{api.sandbox.url}/_sandbox/followers", json=document)
    assert answer.status_code == 400 and answer.json()["error"]
    assert api.get(GET)["data"] == {"openid": ["oKEPT"]}
    assert api.post(BLACKLIST, {})["total"] == 0


def test_a_page_after_somebody_who_is_not_there_is_refused_by_the_listing_itself() -> None:
    with pytest.raises(Refused, match="40003"):
        Listing.of(["oA"]).page(1, 10, "extra")
