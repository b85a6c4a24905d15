"""A campaign's template against the account's list: what does not fit is stopped before anybody is sent to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fanoutd.config import Account, load
from fanoutd.dispatcher import templates
from fanoutd.dispatcher.templates import CannotTell, Template, Templates, mismatches, objections, understood
from fanoutd.store import Database, open_store, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.listing import LIST, Listing, template
from support.sandbox import SandboxProcess

# ---- the core


def body(*keys: str, template_id: str = "TPL") -> dict[str, Any]:
    return {"template_id": template_id, "data": {key: {"value": "x"} for key in keys}}


@pytest.mark.parametrize(("message", "in_template", "words"), [
    (("thing1", "time2"), ("time2", "thing1"), []),
    (("thing1",), ("thing1", "time2"), ["data.time2 is in the template but not in the message"]),
    (("thing1", "thing9"), ("thing1",), ["data.thing9 is in the message but not in the template"]),
    (("thing2",), ("thing1",), ["data.thing1 is in the template but not in the message",
                                "data.thing2 is in the message but not in the template"]),
    (("keyword1", "keyword2"), ("first", "keyword1", "keyword2", "remark"), []),
    (("first", "keyword1", "remark"), ("keyword1",), []),
    (("first", "keyword2"), ("first", "keyword1"), ["data.keyword1 is in the template but not in the message",
                                                    "data.keyword2 is in the message but not in the template"]),
    (("thing1",), (), []),
])
def test_keys_are_compared_both_ways_but_for_what_wechat_filters(
    message: tuple[str, ...], in_template: tuple[str, ...], words: list[str]
) -> None:
    assert mismatches(body(*message), Template("TPL", "", in_template)) == words


def test_a_template_that_is_not_in_the_list_is_named_and_an_empty_list_contradicts_nothing() -> None:
    listed = {"OTHER": Template("OTHER", "", ())}
    assert objections(body(), listed) == ["template_id 'TPL' is not among the account's 1 templates"]
    assert objections(body(), {}) == []
    assert objections(body(template_id="{which}"), listed) == []
    assert objections(body(), {"TPL": Template("TPL", "", ("thing1",))}) != []


def test_wechats_answer_is_understood_with_old_and_new_templates() -> None:
    old = {"template_id": "A", "title": "订单", "content": "{{first.DATA}}\n单号：{{keyword1.DATA}}\n{{ remark.DATA }}"}
    answer = {"template_list": [old, template("B", "thing1", "character_string2"), {"title": "odd"}, None]}
    assert understood(answer) == {
        "A": Template("A", "订单", ("first", "keyword1", "remark")),
        "B": Template("B", "订单", ("thing1", "character_string2")),
    }


@pytest.mark.parametrize(("answer", "words"), [
    ({"errcode": 40001, "errmsg": "invalid credential"}, r"\(40001\)"), ({"errcode": 48001}, "may not use this call"),
    ({"error": "no such endpoint"}, "cannot be understood"), ([], "cannot be understood"),
    ({"template_list": "x"}, "cannot be understood"), (None, "cannot be understood"), ({"errcode": 0}, r"\(0\)"),
])
def test_an_answer_without_a_list_tells_nothing(answer: object, words: str) -> None:
    with pytest.raises(CannotTell, match=words):
        understood(answer)


# ---- what is kept


class Shelf:
    """A store with a token, a list that can be changed, and a clock."""

    def __init__(self, folder: Path) -> None:
        file = folder / "fanoutd.toml"
        file.write_text(
            '[account.main]\napp_id = "wx1"\napp_secret = "s"\n[message.m.template]\ntemplate_id = "TPL"\n'
            'data.thing1.value = "{content}"\n'
        )
        file.chmod(0o600)
        self.config = load(file, {})
        self.config.daemon.state_dir.mkdir()
        self.db: Database = open_store(self.config.store_url)
        migrate(self.db)
        self.token(7200)
        self.listed: dict[str, Template] | str = {"TPL": Template("TPL", "", ("thing1",))}
        self.fetched: list[str] = []
        self.now = 0.0
        self.made = 0
        self.renewals: list[str] = []
        self.renewed = 0
        """Seconds that a renewed token lives; 0: there is none."""
        self.templates = Templates(self.config.accounts, self.renew, self.fetch, lambda: self.now)

    def renew(self, db: Database, account: str, patience: float) -> None:
        assert db is self.db and patience > 0
        self.renewals.append(account)
        if self.renewed:
            self.token(self.renewed)

    def token(self, seconds: int) -> None:
        with self.db.transaction():
            tokens.save(self.db, "main", Token("the-token", wall_ms() + seconds * 1000, wall_ms()))

    def fetch(self, account: Account, token: str) -> dict[str, Template]:
        assert account.name == "main"
        self.fetched.append(token)
        if isinstance(self.listed, str):
            raise CannotTell(self.listed)
        return self.listed

    def campaign(self, *channels: str) -> Campaign:
        self.made += 1
        definition = {"bodies": {channel: body("thing1") for channel in channels or ("template",)}}
        return Campaign(f"c-{self.made}", "main", "m", None, None, None, "planning", None, None, 0, None, None, None,
                        False, "node1", "list", definition)  # fmt: skip

    def objection(self, *channels: str) -> str | None:
        return self.templates.objection(self.db, self.campaign(*channels))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_list_is_asked_for_once_in_ten_minutes_and_not_for_other_channels(shelf: Shelf) -> None:
    assert shelf.objection("custom", "subscribe") is None
    assert shelf.fetched == []
    assert [shelf.objection("custom", "template") for _ in range(5)] == [None] * 5
    assert shelf.fetched == ["the-token"]
    shelf.now += templates.KEPT + 1
    assert shelf.objection() is None
    assert len(shelf.fetched) == 2


def test_a_template_mended_in_the_console_is_seen_at_once(shelf: Shelf) -> None:
    good, shelf.listed = shelf.listed, {"TPL": Template("TPL", "", ("thing1", "time2"))}
    why = shelf.objection()
    assert why is not None and "data.time2 is in the template but not in the message" in why
    assert "[message.m.template]" in why and "submit it again" in why
    assert len(shelf.fetched) == 1
    shelf.listed, shelf.now = good, 1.0
    assert shelf.objection() is None


def test_a_campaign_is_objected_to_once(shelf: Shelf) -> None:
    shelf.listed = {"OTHER": Template("OTHER", "", ())}
    campaign = shelf.campaign()
    why = shelf.templates.objection(shelf.db, campaign)
    assert why is not None and "template_id 'TPL' is not among the account's 1 templates" in why
    assert shelf.templates.objection(shelf.db, campaign) is None  # somebody has resumed it
    assert shelf.objection() is not None


def test_a_list_that_cannot_be_had_stops_nobody_and_is_told_once(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.listed = "no list today"
    with caplog.at_level(logging.WARNING):
        assert [shelf.objection() for _ in range(3)] == [None] * 3
        assert len(shelf.fetched) == 1
        shelf.now += templates.GIVEN_UP + 1
        assert shelf.objection() is None
    assert len(shelf.fetched) == 2
    assert [each.getMessage() for each in caplog.records] == [
        "account main: templates are not checked: no list today"
    ]


def test_without_a_token_or_an_account_there_is_nothing_to_ask_with(shelf: Shelf) -> None:
    shelf.listed = {"OTHER": Template("OTHER", "", ())}
    shelf.token(-1)
    assert shelf.objection() is None
    assert shelf.templates.objection(shelf.db, replace(shelf.campaign(), account="gone")) is None
    assert (shelf.fetched, shelf.renewals) == ([], ["main"])
    shelf.renewed = 7200
    assert shelf.objection() is not None
    assert shelf.renewals == ["main", "main"]


def test_no_token_is_in_the_words_when_the_api_cannot_be_reached(shelf: Shelf) -> None:
    account = replace(shelf.config.accounts["main"], api_base="http://127.0.0.1:9")
    with pytest.raises(CannotTell) as error:
        templates.fetch_list(account, "the-token")
    assert str(error.value) == "the list of templates does not come (ConnectionError)"


# ---- the whole daemon

PEOPLE = [follower(i) for i in range(3)]
FITS = template("TPL", "thing1", "phone_number2")


@pytest.fixture
def api() -> Iterator[Listing]:
    with Listing(FITS) as listing:
        yield listing


@pytest.fixture
def daemon(tmp_path: Path, api: Listing) -> Iterator[Daemon]:
    d = Daemon(tmp_path, workers=1, sandbox=cast(SandboxProcess, api))
    yield d
    d.close()


def submit(d: Daemon, **params: Any) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", openids=PEOPLE, **params)["campaign"]
    return campaign


def calls(api: Listing) -> int:
    return sum("/message/" in path for path, _ in api.asked)


def test_campaigns_whose_template_fits_are_sent_and_cost_one_question(daemon: Daemon, api: Listing) -> None:
    for _ in range(3):
        assert daemon.until(submit(daemon))["counts"]["sent_custom"] == 3
    assert api.times(LIST) == 1
    assert next(query for path, query in api.asked if path == LIST) == {"access_token": ["the-token"]}


def test_a_template_that_does_not_fit_pauses_the_campaign_before_anybody_is_called(
    daemon: Daemon, api: Listing
) -> None:
    api.list(template("TPL", "thing1", "time3"))
    campaign = submit(daemon)
    found = daemon.until(campaign, "paused")
    assert "data.time3 is in the template but not in the message" in found["reason"]
    assert "data.phone_number2 is in the message but not in the template" in found["reason"]
    assert (found["total"], calls(api)) == (0, 0)
    later = daemon.until(submit(daemon, send_at="2001-01-01T00:00:00+08:00"), "paused")
    assert "[message.supply.template]" in later["reason"]
    daemon.call("daemon.reload")  # another dispatcher: it has not looked at the campaign
    assert daemon.call("campaign.resume", campaign=campaign)["state"] == "planning"
    assert daemon.until(campaign)["counts"]["sent_custom"] == 3  # by the operator's word
    assert calls(api) == 3


def test_an_unknown_template_pauses_the_campaign(daemon: Daemon, api: Listing) -> None:
    api.list(template("OTHER", "thing1"))
    assert "template_id 'TPL' is not among" in daemon.until(submit(daemon), "paused")["reason"]
    assert calls(api) == 0


@pytest.mark.parametrize("answer", [404, {"errcode": 48001, "errmsg": "no"}, {"error": "no such endpoint"}])
def test_when_the_list_cannot_be_had_the_campaign_goes_on(daemon: Daemon, api: Listing, answer: object) -> None:
    api.answers[LIST] = answer
    for _ in range(2):
        assert daemon.until(submit(daemon))["state"] == "done"
    assert api.times(LIST) == 1
    log = (daemon.folder / "fanoutd.log").read_text()
    assert log.count("account main: templates are not checked: ") == 1
    assert "the-token" not in log


def test_while_the_list_does_not_come_other_campaigns_go_on(daemon: Daemon, api: Listing) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(text + '[message.text.custom]\nmsgtype = "text"\ntext.content = "{content}"\n')
    assert daemon.cli("reload").returncode == 0
    with api.silent():
        waiting = [submit(daemon, message="supply") for _ in range(3)]
        wait_for(lambda: api.times(LIST) == 1, "the question for the list")
        assert daemon.until(submit(daemon, message="text"), seconds=3)["state"] == "done"
        assert {daemon.call("campaign.get", campaign=each)["state"] for each in waiting} == {"planning"}
    for each in waiting:
        daemon.until(each)


def test_subscription_notifications_go_out_by_their_own_path(daemon: Daemon, api: Listing) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(
        text + '[message.note.subscribe]\ntemplate_id = "SUB"\npage = ""\nminiprogram.appid = "wx2"\n'
        'data.thing8.value = "{content}"\n[message.both]\nchannels = ["custom", "subscribe"]\n[message.both.custom]\n'
        'msgtype = "text"\ntext.content = "{content}"\n[message.both.subscribe]\ntemplate_id = "SUB"\n'
        'data.thing8.value = "{content}"\n'
    )
    assert daemon.cli("reload").returncode == 0
    campaign = submit(daemon, message="note")
    found = daemon.until(campaign)
    assert (found["counts"]["sent_subscribe"], found["total"]) == (3, 3)
    assert {(row["channel"], row["msgid"]) for row in daemon.rows(campaign)} == {("subscribe", "200163836")}
    sent = [what for path, what in api.asked if path == "/cgi-bin/message/subscribe/bizsend"]
    said = {"template_id": "SUB", "miniprogram": {"appid": "wx2"}, "data": {"thing8": {"value": "hello"}}}
    assert sorted(sent, key=lambda each: str(each["touser"])) == [{"touser": openid, **said} for openid in PEOPLE]
    api.answers["/cgi-bin/message/custom/send"] = {"errcode": 45015, "errmsg": "out of time"}
    campaign = submit(daemon, message="both")
    assert daemon.until(campaign)["counts"]["sent_subscribe"] == 3
    assert {row["attempts"] for row in daemon.rows(campaign)} == {2}
    assert api.times(LIST) == 0


def test_a_subscription_notification_whose_answer_was_lost_is_held_like_a_custom_message(
    daemon: Daemon, api: Listing
) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(text + '[message.note.subscribe]\ntemplate_id = "SUB"\ndata.thing8.value = "{content}"\n')
    assert daemon.cli("reload").returncode == 0
    api.answers["/cgi-bin/message/subscribe/bizsend"] = 502
    campaign = submit(daemon, message="note")
    assert daemon.until(campaign)["counts"]["unknown"] == 3
    assert api.times("/cgi-bin/message/subscribe/bizsend") == 3
