"""Access tokens in the whole daemon: revoked, refused, short-lived, from each source, by hand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from support.bench import wait_for
from support.daemon import Daemon, follower
from support.sandbox import SandboxProcess
from support.token_gate import TokenGate

Make = Callable[..., Daemon]

SECRET = "a-secret-of-the-tests"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Make]:
    made: list[Daemon] = []

    def make(account: str = "", **how: Any) -> Daemon:
        kind = type("Configured", (Daemon,), {"ACCOUNT": account})
        made.append(kind(tmp_path, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path / "ledger.jsonl", latency="5ms") as made:
        yield made


@pytest.fixture
def gate(sandbox: SandboxProcess) -> Iterator[TokenGate]:
    made = TokenGate(sandbox)
    yield made
    made.close()


def submit(d: Daemon) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    return campaign


def token_of(d: Daemon) -> dict[str, Any]:
    token: dict[str, Any] = d.call("daemon.status")["accounts"][0]["token"]
    return token


def fetches(sandbox: SandboxProcess) -> dict[str, int]:
    return {pool: count for pool, count in sandbox.stats()["token_fetches"].items() if count}


def everybody_once(d: Daemon, campaign: str) -> bool:
    rows = d.rows(campaign)
    return all(row["state"] == "sent" for row in rows) and list(d.accepted().values()) == [1] * len(rows)


def test_sixty_four_calls_with_a_revoked_token_cost_one_fetch(daemon: Make) -> None:
    d = daemon(followers=1000, workers=2, concurrency=32, latency="150ms")
    campaign = submit(d)
    wait_for(lambda: len(d.accepted()) >= 64, "both workers at full load")
    d.sandbox.revoke()
    d.until(campaign)
    assert everybody_once(d, campaign)
    assert d.sandbox.stats()["refused"]["40001"] >= 32  # all who were on their way to it
    assert fetches(d.sandbox) == {"stable": 2}


def test_a_good_token_that_is_refused_once_costs_nobody_anything(daemon: Make) -> None:
    d = daemon(followers=40, latency="50ms")
    d.sandbox.script(follower(3), 40001, 0)
    d.sandbox.script(follower(4), 42001, 0)
    campaign = submit(d)
    d.until(campaign)
    assert everybody_once(d, campaign)
    assert fetches(d.sandbox) == {"stable": 2}
    assert {row["openid"]: row["attempts"] for row in d.rows(campaign)}[follower(3)] == 2


def test_a_token_that_is_always_refused_pauses_and_fails_nobody_and_a_refresh_lets_it_go_on(daemon: Make) -> None:
    d = daemon(followers=40, latency="20ms")
    d.sandbox.script(follower(3), 40001)
    campaign = submit(d)
    paused = d.until(campaign, "paused")
    assert "40001" in paused["reason"] and paused["counts"]["failed"] == 0
    error = wait_for(lambda: token_of(d)["error"], "the error in the status")
    assert "40001" in error and not token_of(d)["ok"]
    d.sandbox.script(follower(3), 0)
    assert d.cli("token", "refresh").returncode == 0
    d.until(campaign)
    assert everybody_once(d, campaign) and token_of(d)["ok"] and token_of(d)["error"] is None


def test_tokens_that_live_for_two_seconds_are_renewed_by_the_clock(daemon: Make) -> None:
    d = daemon(followers=600, rate=100, token_life="2s")
    campaign = submit(d)
    d.until(campaign)
    assert everybody_once(d, campaign)
    assert 3 <= fetches(d.sandbox)["stable"] <= 16


def test_classic_tokens_come_from_their_own_endpoint_and_only_when_needed(daemon: Make) -> None:
    d = daemon('token = "classic"', followers=300, rate=300, latency="20ms")
    campaign = submit(d)
    wait_for(lambda: len(d.accepted()) > 50, "a first part")
    d.sandbox.revoke()
    d.until(campaign)
    assert everybody_once(d, campaign)
    assert fetches(d.sandbox) == {"plain": 2}
    assert token_of(d)["source"] == "classic"
    assert "no effect" not in (d.folder / "fanoutd.log").read_text()


def put_token(folder: Path, sandbox: SandboxProcess) -> str:
    """What the system does that keeps the table."""
    asked = {"grant_type": "client_credential", "appid": "wx0123456789abcdef", "secret": "another"}
    text: str = requests.get(f"{sandbox.url}/cgi-bin/token", params=asked, timeout=5).json()["access_token"]
    with closing(sqlite3.connect(folder / "token.db")) as link, link:
        link.execute("CREATE TABLE IF NOT EXISTS tp_accesstoken (accesstoken TEXT)")
        link.execute("DELETE FROM tp_accesstoken")
        link.execute("INSERT INTO tp_accesstoken VALUES (?)", (text,))
    return text


def test_a_token_in_a_table_is_used_waited_for_and_never_fetched_or_told(
    daemon: Make, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    first = put_token(tmp_path, sandbox)
    query = "SELECT accesstoken FROM tp_accesstoken"
    d = daemon(f'token = {{ database = "sqlite:///{tmp_path}/token.db", query = "{query}" }}',
               followers=40, sandbox=sandbox)  # fmt: skip
    assert d.until(submit(d))["counts"]["sent_custom"] == 40
    seen = json.loads(d.cli("token", "show", "--json").stdout)
    assert (seen["source"], seen["expires_at"], seen["expires_in"], seen["ok"]) == ("database", None, None, True)
    sandbox.revoke()
    campaign = submit(d)
    reason = wait_for(lambda: d.call("campaign.get", campaign=campaign)["reason"], "a reason")
    assert "refuses the token in the table" in reason
    assert d.call("campaign.get", campaign=campaign)["state"] == "running" and not token_of(d)["ok"]
    forced = d.cli("token", "refresh", "--force")
    assert forced.returncode == 75 and "never fetched here" in forced.stderr
    second = put_token(tmp_path, sandbox)
    assert d.until(campaign)["counts"]["sent_custom"] == 40
    assert fetches(sandbox) == {"plain": 2}  # both by the system that keeps the table
    told = (d.folder / "fanoutd.log").read_text() + (d.folder / "stderr").read_text() + json.dumps(seen) + reason
    assert first not in told and second not in told


def test_a_fatal_refusal_says_what_to_do_and_a_refresh_ends_it(daemon: Make, gate: TokenGate) -> None:
    words = f"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist {SECRET} rid: 1-2"
    gate.answers = [{"errcode": 40164, "errmsg": words}]
    d = daemon(followers=40, sandbox=gate)
    campaign = submit(d)
    paused = d.until(campaign, "paused")
    for words in (paused["reason"], token_of(d)["error"]):
        assert "40164" in words and "add 203.0.113.7 in WeChat's console, 开发→基本配置→IP白名单" in words
    assert paused["counts"]["failed"] == 0 and d.accepted() == {}
    asked = len(gate.asked)
    refused = d.cli("token", "refresh")
    assert refused.returncode == 75 and "203.0.113.7" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert len(gate.asked) == asked + 1 <= 3  # at the start, and when the campaign ran
    gate.answers = []
    assert d.cli("token", "refresh").returncode == 0
    d.until(campaign)
    assert everybody_once(d, campaign)
    told = (d.folder / "fanoutd.log").read_text() + refused.stderr + paused["reason"]
    assert SECRET not in told and "40164" in told


def test_an_account_that_is_refused_while_it_sends_pauses_and_goes_on_after_a_refresh(daemon: Make) -> None:
    d = daemon(followers=40, latency="20ms")
    d.sandbox.script(follower(3), 40164)
    campaign = submit(d)
    paused = d.until(campaign, "paused")
    assert "40164" in paused["reason"] and paused["counts"]["failed"] == 0
    assert "40164" in wait_for(lambda: token_of(d)["error"], "the error in the status")
    d.sandbox.script(follower(3), 0)
    assert d.cli("token", "refresh").returncode == 0
    d.until(campaign)
    assert everybody_once(d, campaign)


def test_an_endpoint_that_is_busy_is_waited_for(daemon: Make, gate: TokenGate) -> None:
    gate.answers = [{"errcode": -1, "errmsg": "system error"}]
    d = daemon(followers=10, sandbox=gate)
    campaign = submit(d)
    reason = wait_for(lambda: d.call("campaign.get", campaign=campaign)["reason"], "a reason")
    assert "WeChat is busy" in reason and d.call("campaign.get", campaign=campaign)["state"] == "running"
    refused = d.cli("token", "refresh")
    assert refused.returncode == 69 and "busy" in refused.stderr
    gate.answers = []
    d.until(campaign)
    assert everybody_once(d, campaign)


def test_what_is_shown_of_a_token_is_masked_and_a_forced_refresh_gives_another(daemon: Make) -> None:
    d = daemon(followers=3)
    d.until(submit(d))
    with closing(sqlite3.connect(d.folder / "state" / "fanoutd.db")) as link:
        (text,) = link.execute("SELECT token FROM fanout_token").fetchone()
    shown = d.cli("token", "show")
    assert shown.returncode == 0 and shown.stdout.startswith(f"main: {text[:4]}…{text[-4:]}, stable, ")
    assert shown.stdout.endswith(("good for 2 h 00 min\n", "good for 1 h 59 min\n"))
    seen = json.loads(d.cli("token", "show", "--json", "--account", "main").stdout)
    assert seen.keys() == {
        "account", "token", "source", "fetched_at", "expires_at", "expires_in", "ok", "error",
    }  # fmt: skip
    assert (seen["token"], seen["ok"], seen["error"]) == (f"{text[:4]}…{text[-4:]}", True, None)
    assert json.loads(d.cli("token", "refresh", "--json").stdout)["fetched_at"] == seen["fetched_at"]  # the same one
    forced = d.cli("token", "refresh", "--force", "--json")
    assert forced.returncode == 0 and json.loads(forced.stdout)["token"] != seen["token"]
    again = d.cli("token", "refresh", "--force")
    assert again.returncode == 75 and "once in 30 s" in again.stderr
    assert d.until(submit(d))["counts"]["sent_custom"] == 3
    assert d.sandbox.stats()["refused"] == {}  # the new one reached the workers before they needed it
    log = (d.folder / "fanoutd.log").read_text()
    assert text not in log and SECRET not in log and "forced refresh of its token was asked for" in log


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("token", "show", "--account", "nope"), 65, "main"),
        (("token", "refresh", "--account", "nope"), 65, "main"),
        (("token",), 2, "refresh"),
    ],
)
def test_wrong_input_is_said(daemon: Make, arguments: tuple[str, ...], code: int, word: str) -> None:
    d = daemon()
    result = d.cli(*arguments)
    assert result.returncode == code and word in result.stderr + result.stdout
