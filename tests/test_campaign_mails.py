"""What is mailed about campaigns: written with what it tells, mailed once, corrected once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import load
from fanoutd.dispatcher import campaign_mails, commands
from fanoutd.dispatcher.campaign_mails import CampaignMails
from fanoutd.dispatcher.refusals import Refusals
from fanoutd.mail.event import Event
from fanoutd.outcome import Progress, State
from fanoutd.store import (
    Database,
    campaigns,
    finishing,
    free_shards,
    notices,
    outbox,
    records,
    shard_leases,
    shards,
    windows,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.corrections import reopen, resolve
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms
from support.bench import wait_for
from support.stores import KINDS, opened

CONFIG = """
[account.main]
app_id = "wx1"
app_secret = "the-secret"
[message.supply.custom]
msgtype = "text"
text.content = "x"
[mail]
smtp = "smtp://127.0.0.1:1"
from = "fanoutd@example.com"
to = ["ops@example.com"]
reports = "REPORTS"
"""


class Died(BaseException):
    """What a SIGKILL is to a transaction."""


class Office:
    """A store, and what is mailed of it."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder, self.db, self.now = folder, db, 1000.0
        self.events: list[Event] = []
        self.trouble: BaseException | None = None
        self.mails = self.another()

    def another(self, reports: str = "all") -> CampaignMails:
        file = self.folder / f"{reports}.toml"
        file.write_text(CONFIG.replace("REPORTS", reports))
        file.chmod(0o600)
        self.mails = CampaignMails(load(file, {}), self.tell, lambda: self.now)
        return self.mails

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble

    def subjects(self) -> list[str]:
        """Of those mailed since the last call, each id once."""
        told = {event.id: event.subject for event in self.events}
        self.events.clear()
        return list(told.values())

    def campaign(self, name: str = "c-1", state: str = "running", people: int = 4, **definition: Any) -> str:
        at = wall_ms()
        row = Campaign(name, "main", "supply", None, None, None, state, "config" if state == "paused" else None,
                       "gone [message.x]" if state == "paused" else None, at, None, at, None, True, "n", "list",
                       {"content": "花", **definition})  # fmt: skip
        with self.db.transaction():
            assert campaigns.insert(self.db, row)
            shards.add(self.db, name, 0, [Planned(f"oMAILED{i:021d}") for i in range(people)])
        return name

    def end(self, name: str, *states: State) -> None:
        with self.db.transaction():
            held = free_shards.lease(self.db, "n/w1")
            assert held is not None and held.campaign == name
            windows.claim(self.db, held, len(states))
            records.record(self.db, held.shard, held.token, [
                (pos, Progress(state, 1, 43004 if state is State.FAILED else 0, attempts=1))
                for pos, state in enumerate(states)])  # fmt: skip
            shard_leases.release(self.db, held)
            finishing.finish(self.db, name)

    def work(self, *names: str) -> list[str]:
        """All that is in the outbox, due or not; the subjects."""
        for name in names or (notices.MAIL, notices.WATCH):
            for errand in outbox.of_name(self.db, name):
                self.mails.work(self.db, errand)
        return self.subjects()

    def settle(self, count: int, word: State = State.SENT, name: str = "c-1") -> None:
        rows = self.db.rows("SELECT openid FROM fanout_delivery WHERE state = 4 ORDER BY pos LIMIT %s", count)
        with self.db.transaction():
            assert resolve(self.db, name, word, [row[0] for row in rows]) == count

    def left(self, name: str = notices.MAIL) -> list[dict[str, Any]]:
        return [each.payload for each in outbox.of_name(self.db, name)]


@pytest.fixture(params=KINDS)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    db = opened(request.param, tmp_path)
    yield Office(tmp_path, db)
    db.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    db = opened("sqlite", tmp_path)
    yield Office(tmp_path, db)
    db.close()


SENT, FAILED, UNKNOWN = State.SENT, State.FAILED, State.UNKNOWN


# ---- the end


def test_one_that_is_done_is_mailed_with_its_receipt(office: Office) -> None:
    office.end(office.campaign(), SENT, SENT, SENT, FAILED)
    assert [each["what"] for each in office.left()] == ["ended"]
    office.mails.work(office.db, outbox.of_name(office.db, notices.MAIL)[0])
    (event,) = office.events
    assert event.subject == event.line == "campaign c-1 done: 3 of 4 sent, 1 failed" and event.kind == ""
    assert "3 of 4 people were sent to, 1 failed." in event.text and "does not follow the account" in event.text
    assert event.html is not None and "75.0 %" in event.html and "花" in event.html
    assert "oMAILED" not in event.text + event.html
    assert office.left() == office.left(notices.WATCH) == []


def test_a_death_between_the_mail_and_the_store_makes_the_same_mail_again(office: Office) -> None:
    office.end(office.campaign(), SENT, SENT, SENT, UNKNOWN)
    office.trouble = Died()
    with pytest.raises(Died):
        office.work()
    assert len(office.left()) == 1 and office.left(notices.WATCH) == []
    assert office.work(notices.MAIL) == ["campaign c-1 unknown: 1 of 4 waits for a decision"]  # of one id
    assert office.left() == [] and len(office.left(notices.WATCH)) == 1
    office.settle(1)
    office.trouble = Died()
    with pytest.raises(Died):
        office.work()
    assert office.work() == ["campaign c-1 done: corrected, 4 of 4 sent"] and office.left(notices.WATCH) == []


@pytest.mark.parametrize(("reports", "done", "failed", "unknown"), [
    ("all", 1, 1, 2), ("problems", 0, 1, 2), ("off", 0, 0, 2),
])  # fmt: skip
def test_which_ends_are_mailed_is_configured(
    desk: Office, reports: str, done: int, failed: int, unknown: int
) -> None:
    desk.another(reports)
    desk.end(desk.campaign("c-1"), SENT, SENT, SENT, SENT)
    assert len(desk.work()) == done
    desk.end(desk.campaign("c-2"), SENT, SENT, SENT, FAILED)
    assert len(desk.work()) == failed
    desk.end(desk.campaign("c-3"), SENT, SENT, UNKNOWN, SENT)
    first = desk.work()
    desk.settle(1, name="c-3")
    assert [*first, *desk.work()] == [
        "campaign c-3 unknown: 1 of 4 waits for a decision", "campaign c-3 done: corrected, 4 of 4 sent"
    ][:unknown]  # fmt: skip
    desk.campaign("c-4", "paused")
    assert len(desk.work()) == 1
    assert desk.left() == desk.left(notices.WATCH) == []


def test_a_test_is_nobodys_news_and_neither_is_anything_without_mail(desk: Office) -> None:
    desk.end(desk.campaign(test=True), SENT, SENT, SENT, UNKNOWN)
    assert desk.work() == [] and desk.left() == desk.left(notices.WATCH) == []
    desk.end(desk.campaign("c-2"), SENT, SENT, SENT, UNKNOWN)
    desk.mails = CampaignMails(load(desk.folder / "all.toml", {}), None)
    assert desk.work() == [] and desk.left() == desk.left(notices.WATCH) == []


def test_one_that_is_cancelled_or_failed_is_told_too(desk: Office) -> None:
    found = campaigns.get(desk.db, desk.campaign())
    assert found is not None
    commands.cancel(desk.db, found)
    assert desk.work() == ["campaign c-1 cancelled: 0 of 4 sent, 4 not tried"]
    desk.campaign("c-2", "planning", people=0)
    with desk.db.transaction():
        campaigns.move(desk.db, "c-2", "planning", "failed", reason="data.colour is missing", finished_at=wall_ms())
    assert desk.work() == ["campaign c-2 failed: data.colour is missing"]


def test_the_first_few_of_a_minute_are_mails_of_their_own(desk: Office) -> None:
    for i in range(8):
        desk.end(desk.campaign(f"c-{i}"), SENT, SENT, SENT, SENT)
        desk.mails.work(desk.db, outbox.of_name(desk.db, notices.MAIL)[0])
    assert [event.kind for event in desk.events] == [""] * 5 + ["campaign-ended"] * 3
    desk.campaign("c-p", "paused")  # another kind
    desk.mails.work(desk.db, outbox.of_name(desk.db, notices.MAIL)[0])
    desk.now += 61
    desk.end(desk.campaign("c-9"), SENT, SENT, SENT, SENT)
    desk.mails.work(desk.db, outbox.of_name(desk.db, notices.MAIL)[0])
    assert [event.kind for event in desk.events[8:]] == ["", ""]


# ---- pauses


def test_whatever_pauses_a_campaign_has_it_told_and_an_order_has_not(office: Office) -> None:
    db = office.db
    office.campaign("c-1", "paused")  # its message is not configured
    for name in ("c-2", "c-3", "c-4", "c-5", "c-6"):
        office.campaign(name)
    with db.transaction():
        campaigns.move(db, "c-2", "running", "paused", cause="message", reason="47003: 20 in a row")
        assert not campaigns.move(db, "c-2", "running", "paused", cause="message", reason="another worker's word")
    ordered = campaigns.get(db, "c-3")
    assert ordered is not None
    commands.pause(db, ordered)
    with db.transaction():
        campaigns.pause_account(db, "another", "account", "not ours")
        campaigns.pause_account(db, "main", "account", "43106: barred")
    assert office.work() == [
        "campaign c-1 paused: gone [message.x]", "campaign c-2 paused: 47003: 20 in a row",
        "campaign c-4 paused: 43106: barred", "campaign c-5 paused: 43106: barred",
        "campaign c-6 paused: 43106: barred",
    ]  # fmt: skip
    office.campaign("c-7")
    commands.pause_unfinished(db, "past", "the store is older than the journals")
    assert office.work() == ["campaign c-7 paused: the store is older than the journals"]


def test_one_that_has_gone_on_is_told_as_that(desk: Office) -> None:
    desk.campaign()
    with desk.db.transaction():
        campaigns.move(desk.db, "c-1", "running", "paused", cause="token", reason="40001: invalid credential")
        campaigns.move(desk.db, "c-1", "paused", "running", cause=None, reason=None)
    desk.mails.work(desk.db, outbox.of_name(desk.db, notices.MAIL)[0])
    (event,) = desk.events
    assert event.subject == "campaign c-1 paused: 40001: invalid credential"
    assert event.text.startswith("It had paused itself, and has gone on since. The reason was: 40001")


def test_a_token_that_flaps_is_told_once_in_a_while(desk: Office) -> None:
    desk.campaign()

    def flap(cause: str) -> list[str]:
        with desk.db.transaction():
            campaigns.move(desk.db, "c-1", "running", "paused", cause=cause, reason="why")
            campaigns.move(desk.db, "c-1", "paused", "running", cause=None, reason=None)
        return desk.work()

    told = "campaign c-1 paused: why"
    assert flap("token") == [told] and flap("token") == [] and flap("message") == [told]
    desk.now += 601
    assert flap("token") == [told] and desk.left() == []


# ---- corrections


def test_unknown_people_who_are_settled_are_corrected_once(office: Office) -> None:
    office.end(office.campaign(), SENT, UNKNOWN, UNKNOWN, UNKNOWN)
    assert office.work() == ["campaign c-1 unknown: 3 of 4 wait for a decision"]
    assert office.work() == []  # nothing has changed
    office.settle(1)
    assert office.work() == []  # more may come
    office.settle(2, State.FAILED)
    assert office.work() == ["campaign c-1 done: corrected, 2 of 4 sent, 2 failed"]
    assert office.work() == [] and office.left(notices.WATCH) == []


def test_when_some_stay_unknown_it_is_corrected_after_a_quiet_time(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.end(desk.campaign(), SENT, UNKNOWN, UNKNOWN, UNKNOWN)
    desk.work()
    desk.settle(1)
    assert desk.work() == desk.work() == []
    desk.settle(1)  # and so the time begins anew
    assert desk.work() == []
    monkeypatch.setattr(campaign_mails, "QUIET_MS", 0)
    assert desk.work() == ["campaign c-1 unknown: corrected, 1 of 4 waits for a decision"]
    assert desk.work() == []
    desk.settle(1)
    assert desk.work() == ["campaign c-1 done: corrected, 4 of 4 sent"] and desk.left(notices.WATCH) == []


def test_one_that_runs_again_is_corrected_when_it_ends_again(desk: Office) -> None:
    desk.end(desk.campaign(), SENT, SENT, SENT, UNKNOWN)
    desk.work()
    with desk.db.transaction():
        assert reopen(desk.db, "c-1", failed=False, unknown=True) == 1
        campaigns.move(desk.db, "c-1", "done", "running", finished_at=None)
    assert desk.work() == [] and len(desk.left(notices.WATCH)) == 1
    with desk.db.transaction():
        held = free_shards.lease(desk.db, "n/w1")
        assert held is not None
        windows.claim(desk.db, held, 4)
        records.record(desk.db, held.shard, held.token, [(3, Progress(SENT, 1, 0, attempts=2))])
        shard_leases.release(desk.db, held)
        assert finishing.finish(desk.db, "c-1")
    desk.mails.work(desk.db, outbox.of_name(desk.db, notices.MAIL)[0])
    (event,) = desk.events
    assert event.subject == "campaign c-1 done: corrected, 4 of 4 sent"
    assert "takes the place of an earlier report, in which 1 were unknown; now 0 are." in event.text
    assert desk.left(notices.WATCH) == desk.left() == []


def test_a_campaign_that_was_deleted_is_watched_no_longer(desk: Office) -> None:
    desk.end(desk.campaign(), SENT, SENT, SENT, UNKNOWN)
    desk.work()
    desk.db.execute("DELETE FROM fanout_campaign")
    assert desk.work() == [] and desk.left(notices.WATCH) == []


# ---- refusals


def test_refusals_that_come_together_are_one_event() -> None:
    events: list[Event] = []
    refusals = Refusals(events.append, first=0.5)
    one = {"at": wall_ms(), "pid": 7, "uid": 0, "error": "no message 'x' is configured"}
    for _ in range(1000):
        refusals.take({"refusals": [one], "more": 0})
    wait_for(lambda: events, "an event")
    refusals.take({"refusals": [one] * 1000, "more": 4})
    refusals.leave([{"t": "stop"}, {"t": "refusals", "refusals": [one] * 2000, "more": 1}])
    refusals.flush()
    assert [event.subject.split(" ")[0] for event in events] == ["1,000", "3,005"]
    assert "1,005 of which the reasons were not kept" in events[1].text and "uid 0 (root), pid 7" in events[0].text
    assert len({event.id for event in events}) == 2
