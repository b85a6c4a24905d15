"""Every kind of answer that WeChat is known to give, on a whole daemon: what the ledger and the store must say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fanoutd.dispatcher.receipts import STATUSES, state_of
from fanoutd.outcome import State
from support.bench import wait_for
from support.daemon import Daemon
from support.sandbox import SandboxProcess

_serial = count()


class Canned(Daemon):
    ACCOUNT = 'max_failures = 1\ntimeout = "3s"'


@pytest.fixture(scope="module")
def d(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests whose people are their own."""
    made = Canned(tmp_path_factory.mktemp("canned"), workers=2, concurrency=8)
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """For answers that concern the whole account."""
    made: list[Daemon] = []

    def make(**options: Any) -> Daemon:
        made.append(Canned(tmp_path, **{"workers": 2, "concurrency": 8} | options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def somebody(d: Daemon, custom: Sequence[int | str] = (0,), template: Sequence[int | str] = (0,)) -> str:
    """A person with these answers to their calls, the last one for ever after."""
    openid = f"oCANNED{next(_serial):021d}"
    d.sandbox.script(openid, *custom)
    d.sandbox.script(openid, *template, channel="template")
    return openid


def send(d: Daemon, *openids: str) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", openids=list(openids))["campaign"]
    return campaign


def row(d: Daemon, campaign: str, state: str = "done") -> dict[str, Any]:
    """What has come of the one person of it."""
    d.until(campaign, state, 60)
    (found,) = d.rows(campaign)
    return found


def outcome(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["state"], found["channel"], found["errcode"], found["attempts"]


def messages(d: Daemon, openid: str) -> list[dict[str, Any]]:
    """What the ledger has of this person."""
    return [each for each in d.sandbox.ledger_rows() if each["openid"] == openid]


def test_accepted(d: Daemon) -> None:
    openid = somebody(d)
    assert outcome(row(d, send(d, openid))) == ("sent", "custom", "0", 1)
    assert [each["channel"] for each in messages(d, openid)] == ["custom"]


@pytest.mark.parametrize("errcode", [45015, 45047])
def test_a_shut_window_leads_to_the_template_whose_msgid_is_kept(d: Daemon, errcode: int) -> None:
    openid = somebody(d, [errcode])
    found = row(d, send(d, openid))
    assert outcome(found) == ("sent", "template", "0", 2)
    (message,) = messages(d, openid)
    assert message["channel"] == "template" and found["msgid"] == str(message["msgid"])


@pytest.mark.parametrize("errcode", [43004, 40003, 48002, 50005, 43019, 46004, 49003])
def test_what_is_final_about_a_person_fails_them_with_this_code_and_tries_no_template(d: Daemon, errcode: int) -> None:
    openid = somebody(d, [errcode])
    campaign = send(d, openid)
    assert outcome(row(d, campaign)) == ("failed", "custom", str(errcode), 1)
    assert d.call("campaign.get", campaign=campaign)["errors"] == {str(errcode): 1}
    assert not messages(d, openid)


@pytest.mark.parametrize("errcode", [43004, 43101])
def test_a_refused_template_fails_by_its_own_code(d: Daemon, errcode: int) -> None:
    openid = somebody(d, [45015], [errcode])
    assert outcome(row(d, send(d, openid))) == ("failed", "template", str(errcode), 2)
    assert not messages(d, openid)


def test_a_code_that_nobody_knows_fails_one_person(d: Daemon) -> None:
    openid = somebody(d, [99999])
    assert outcome(row(d, send(d, openid))) == ("failed", "custom", "99999", 1)


def test_busy_twice_is_tried_again_on_the_same_channel(d: Daemon) -> None:
    openid = somebody(d, [-1, -1, 0])
    assert outcome(row(d, send(d, openid))) == ("sent", "custom", "0", 3)
    assert len(messages(d, openid)) == 1


@pytest.mark.parametrize(("fault", "accepted"), [
    ("bad_gateway_before", 0), ("bad_gateway_after", 1), ("reset_before", 0), ("reset_after", 1), ("half_json", 1),
    ("truncated", 1),
])  # fmt: skip
def test_no_answer_on_custom_is_unknown_and_never_crosses_over(d: Daemon, fault: str, accepted: int) -> None:
    openid = somebody(d, [fault])
    assert outcome(row(d, send(d, openid))) == ("unknown", "custom", None, 1)
    assert [each["channel"] for each in messages(d, openid)] == ["custom"] * accepted


@pytest.mark.parametrize("fault", ["bad_gateway_before", "bad_gateway_after", "reset_before", "reset_after"])
def test_no_answer_on_template_is_asked_again_under_the_same_key(d: Daemon, fault: str) -> None:
    openid = somebody(d, [45015], [fault, 0])
    found = row(d, send(d, openid))
    assert outcome(found) == ("sent", "template", "0", 3)
    (message,) = messages(d, openid)
    assert found["msgid"] == str(message["msgid"]) and message["client_msg_id"]


def test_a_revoked_token_is_exchanged_once_and_everybody_is_reached(own: Callable[..., Daemon]) -> None:
    d = own(latency="40ms")
    first = [somebody(d) for _ in range(4)]
    d.until(send(d, *first))
    fetched = d.sandbox.stats()["token_fetches"]["stable"]
    d.sandbox.revoke()
    people = [somebody(d) for _ in range(60)]
    found = d.until(send(d, *people), seconds=60)
    assert found["counts"]["sent_custom"] == 60 and d.accepted() == dict.fromkeys((*first, *people), 1)
    assert d.sandbox.stats()["token_fetches"]["stable"] == fetched + 1
    assert d.sandbox.stats()["refused"]["40001"] > 0


def test_a_token_that_ends_while_both_workers_send(own: Callable[..., Daemon]) -> None:
    d = own(latency="100ms", token_life="2s", concurrency=2)
    people = [somebody(d) for _ in range(120)]
    found = d.until(send(d, *people), seconds=90)
    assert found["counts"]["sent_custom"] == 120 and d.accepted() == dict.fromkeys(people, 1)


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_a_token_that_is_refused_for_ever_stops_the_campaign_and_fails_nobody(
    own: Callable[..., Daemon], errcode: int
) -> None:
    d = own()
    openid = somebody(d, [errcode])
    campaign = send(d, openid)
    found = d.until(campaign, "paused", 60)
    assert "token" in found["reason"] or "credential" in found["reason"]
    assert found["counts"]["pending"] == 1 and not messages(d, openid)


def test_a_used_up_quota_keeps_the_person_pending_and_says_so(own: Callable[..., Daemon]) -> None:
    d = own()
    openid = somebody(d, [45009])
    campaign = send(d, openid)
    found = wait_for(lambda: _with_reason(d, campaign), "a reason")
    assert (found["state"], found["counts"]["pending"], found["counts"]["failed"]) == ("running", 1, 0)
    assert not messages(d, openid)  # nor by the template


def test_too_many_calls_rest_and_go_on(own: Callable[..., Daemon]) -> None:
    d = own()
    openid = somebody(d, [45011, 0])
    campaign = send(d, openid)
    found = wait_for(lambda: _with_reason(d, campaign), "a reason")
    assert found["state"] == "running" and found["counts"]["pending"] == 1
    last = d.until(campaign, seconds=100)
    assert outcome(d.rows(campaign)[0]) == ("sent", "custom", "0", 2) and last["reason"] is None
    assert len(messages(d, openid)) == 1


def _with_reason(d: Daemon, campaign: str) -> dict[str, Any] | None:
    found: dict[str, Any] = d.call("campaign.get", campaign=campaign)
    return found if found["reason"] else None


# ---- 47003 names the field


class Refusing(BaseHTTPRequestHandler):
    """An API that hands out a token and refuses a field of every template."""

    protocol_version = "HTTP/1.1"
    calls: int

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "stable_token" in self.path:
            answer: dict[str, Any] = {"access_token": "T" * 40, "expires_in": 7200}
        elif "custom" in self.path:
            answer = {"errcode": 45015, "errmsg": "response out of time limit or subscription is canceled"}
        else:
            type(self).calls += 1
            answer = {"errcode": 47003, "errmsg": "argument invalid! data.thing1.value is emtpy rid: 65c0-2"}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Roomy(ThreadingHTTPServer):
    """All workers connect at once: with the 5 places of the default some would not be heard before their timeout."""

    request_queue_size = 512


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Daemon]:
    Refusing.calls = 0
    server = Roomy(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sandbox = SandboxProcess(tmp_path / "ledger.jsonl")
    sandbox.url = f"http://127.0.0.1:{server.server_port}"
    d = Canned(tmp_path, workers=4, concurrency=64, sandbox=sandbox)
    yield d
    d.close()
    sandbox.close()
    server.shutdown()


def test_a_refused_field_fails_the_person_and_at_the_start_stops_the_campaign_naming_it(refusing: Daemon) -> None:
    few = [f"oCANNED{next(_serial):021d}" for _ in range(19)]
    campaign = send(refusing, *few)
    assert refusing.until(campaign)["errors"] == {"47003": 19}
    assert outcome(refusing.rows(campaign)[0]) == ("failed", "template", "47003", 2)

    Refusing.calls = 0
    many = [f"oCANNED{next(_serial):021d}" for _ in range(600)]
    campaign = send(refusing, *many)
    found = refusing.until(campaign, "paused")
    assert found["reason"].startswith("message refused: ") and "data.thing1" in found["reason"]
    assert 20 <= Refusing.calls <= 20 + 3 * 5  # the first five of each other worker may be answered late
    wait_for(lambda: not refusing.call("daemon.status")["shards"]["leased"], "all given back")
    found = refusing.call("campaign.get", campaign=campaign)  # it may have paused before all were planned
    assert (found["counts"]["failed"], found["counts"]["pending"]) == (Refusing.calls, found["total"] - Refusing.calls)


# ---- finish events


def event(d: Daemon, openid: str, status: str, msgid: int = 0) -> None:
    assert d.call("subscriber.event", openid=openid, event="finish", msgid=msgid, status=status) == {}


def test_a_status_is_compared_without_blanks_and_case() -> None:
    assert {state_of(each) for each in ("success", " Success ", "SUCCESS")} == {State.SENT}
    failures = ("failed:user block", "failed: system failed", "failed:freq limit", "Failed:UserBlock", "new", "", None)
    assert {state_of(each) for each in failures} == {State.FAILED}
    assert len(STATUSES) == 4


def _unanswered(d: Daemon) -> tuple[str, str]:
    """A template message that was accepted, whose answer never comes: (openid, campaign)."""
    openid = somebody(d, [45015], ["reset_after"])
    campaign = send(d, openid)
    assert row(d, campaign)["state"] == "unknown"
    return openid, campaign


@pytest.mark.parametrize(("status", "state"), [
    ("success", "sent"), ("failed:user block", "failed"), ("nobody knows", "failed"),
])  # fmt: skip
def test_a_late_finish_event_without_an_id_settles_the_unknown(d: Daemon, status: str, state: str) -> None:
    openid, campaign = _unanswered(d)
    event(d, openid, status)
    wait_for(lambda: d.rows(campaign)[0]["state"] == state, state)
    event(d, openid, "failed:user block" if state == "sent" else "success")  # doubled, and it says otherwise
    event(d, openid, status)
    assert d.rows(campaign)[0]["state"] == state


@pytest.mark.parametrize("msgid", [0, None])
def test_a_finish_event_for_one_that_was_answered_changes_nothing(d: Daemon, msgid: int | None) -> None:
    openid = somebody(d, [45015])
    campaign = send(d, openid)
    known = row(d, campaign)
    for status in ("failed:user block", "success", "success"):
        event(d, openid, status, int(known["msgid"]) if msgid is None else msgid)
    assert d.rows(campaign)[0] == known


def test_a_finish_event_before_the_answer(own: Callable[..., Daemon]) -> None:
    """The call is on the wire when WeChat tells that it was delivered; the answer comes, or the call is repeated."""
    d = own(latency="500ms")
    openid, lost = somebody(d, [45015]), somebody(d, [45015], ["reset_after", 0])
    campaign = send(d, openid, lost)
    wait_for(lambda: d.accepted()[openid] and d.accepted()[lost], "both accepted")
    for each in (openid, lost):
        event(d, each, "success", messages(d, each)[0]["msgid"])
    found = d.until(campaign)
    assert found["counts"]["sent_template"] == 2 and found["counts"]["unknown"] == 0
    assert d.accepted() == {openid: 1, lost: 1}


def test_an_event_that_comes_before_the_store_knows_of_the_unknown_is_not_lost(d: Daemon) -> None:
    openid = somebody(d, [45015], ["reset_after"])
    campaign = send(d, openid)
    wait_for(lambda: messages(d, openid), "it was accepted")
    event(d, openid, "success")
    found = d.until(campaign, seconds=60)
    wait_for(lambda: d.rows(campaign)[0]["state"] == "sent", f"{found['counts']} settled")
