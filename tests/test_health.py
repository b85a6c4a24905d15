"""Health without a daemon: what breaks, what is told of it and in which words, and what is measured."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanoutd.config import Health
from fanoutd.config.fields import CONDITIONS as NAMES
from fanoutd.dispatcher.remembered import File, Memory
from fanoutd.health import judge as rules
from fanoutd.health.conditions import CONDITIONS, Key, key
from fanoutd.health.judge import CALM, FLAPS, Finding, Seen, Told, decode, encode, judge
from fanoutd.health.mails import events, short
from fanoutd.mail.event import Event
from fanoutd.mail.folding import Past, Waiting, pace, plan
from fanoutd.mail.letter import urgent
from fanoutd.times import span

MINUTE, HOUR = 60_000, 3_600_000
STORE, DISK, RELOAD, TOKEN = Key("store"), Key("disk"), Key("reload"), Key("token", "main")


class Watched:
    """One condition over many looks, a minute apart."""

    def __init__(self, of: Key = STORE, every: int = MINUTE) -> None:
        self.key, self.every, self.at = of, every, 1_700_000_000_000
        self.memory: dict[Key, Seen] = {}
        self.told: list[Told] = []

    def see(self, *bad: bool | None) -> list[Told]:
        before = len(self.told)
        for each in bad:
            self.at += self.every
            judgement = judge(self.memory, [Finding(self.key, each, "words" if each else "")], self.at)
            self.memory = decode(encode(judgement.memory))  # every look may be another process's
            self.told += judgement.told
        return self.told[before:]

    def kinds(self) -> list[str]:
        return [each.kind for each in self.told]


# ---- when it breaks


def test_two_bad_looks_in_a_row_break_it_and_two_good_ones_mend_it() -> None:
    w = Watched()
    assert w.see(False, True, False, True, False) == []
    broken = w.see(True, True)
    assert [each.kind for each in broken] == ["broken"] and broken[0].since == w.at - MINUTE
    assert w.see(True, True, False, True) == []
    began = broken[0].since
    well = w.see(False, False)
    assert [(each.kind, each.since, each.at) for each in well] == [("well", began, w.at - MINUTE)]
    assert w.see(*[False] * 300) == []


def test_what_is_no_accident_needs_one_look() -> None:
    w = Watched(RELOAD)
    assert [each.kind for each in w.see(True)] == ["broken"]
    assert [each.kind for each in w.see(False)] == ["well"]


def test_what_cannot_be_known_neither_breaks_nor_clears() -> None:
    w = Watched()
    assert w.see(True, None, None) == [] and w.memory[STORE].unknown
    assert [each.kind for each in w.see(True)] == ["broken"]
    assert w.see(False, None, *[None] * 100) == [] and w.memory[STORE].broken
    assert [each.kind for each in w.see(False)] == ["well"]


def test_reminders_come_at_growing_intervals() -> None:
    w = Watched()
    w.see(True, True)
    began = w.at
    reminders = w.see(*[True] * (4 * 24 * 60))
    hours = [round((each.at - began) / HOUR, 2) for each in reminders]
    assert {each.kind for each in reminders} == {"reminder"}
    assert hours == [1, 5, 17, 41, 65, 89]


def test_what_comes_and_goes_is_said_once_and_clears_when_it_is_calm() -> None:
    w = Watched()
    for _ in range(FLAPS):
        w.see(True, True, False, False)
    assert w.kinds() == ["broken", "well", "broken", "well", "flaps"]
    for _ in range(50):  # 200 minutes more: reminders, and nothing else
        w.see(True, True, False, False)
    assert set(w.kinds()[5:]) == {"reminder"} and len(w.kinds()[5:]) == 1
    quiet = w.see(*[False] * 60)
    assert [each.kind for each in quiet] == ["well"] and quiet[0].flaps == FLAPS + 50
    assert w.see(True, True)[0].kind == "broken"


def test_what_nobody_looks_at_any_more_is_forgotten_and_people_are_told_if_they_thought_it_broken() -> None:
    w = Watched(TOKEN)
    w.see(True, True)
    gone = judge({**w.memory, DISK: Seen()}, [], w.at)
    assert [(each.kind, each.key) for each in gone.told] == [("unwatched", TOKEN)] and gone.memory == {}


def test_a_clock_that_is_set_back_silences_nothing_for_good() -> None:
    w = Watched()
    w.see(True, True)
    w.at -= 400 * 24 * HOUR
    assert [each.kind for each in w.see(True)] == ["reminder"]
    assert [each.kind for each in w.see(False, False)] == ["well"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.integers(1, 40)), max_size=60),
       st.sampled_from([15_000, MINUTE]))  # fmt: skip
def test_mails_are_few_and_every_break_is_told_and_cleared(looks: list[tuple[bool | None, int]], every: int) -> None:
    w = Watched(every=every)
    for bad, times in looks:
        w.see(*[bad] * times)
    w.see(*[False] * (2 * CALM // every))  # it is well at last
    told = [each for each in w.told if each.kind != "reminder"]
    # Alerts and all clears take turns, and the last word is that all is well.
    assert [each.kind == "well" for each in told] == [bool(i % 2) for i in range(len(told))]
    assert not w.memory[STORE].broken and w.memory[STORE].told is None
    for alert, clear in zip(told[::2], told[1::2], strict=True):
        assert clear.since == alert.since <= clear.at
    # In no hour are there more than three alerts, their all clears, and a reminder or two.
    times = [each.at for each in w.told]
    assert all(sum(1 for t in times[i:] if t - at < HOUR) <= 2 * FLAPS + 2 for i, at in enumerate(times))


def test_all_that_is_remembered_survives_json() -> None:
    seen = Seen(True, 1, 1, 2, True, "w", 3, 4, 5, (6, 7), 8)
    assert decode(encode({TOKEN: seen, STORE: Seen()})) == {TOKEN: seen, STORE: Seen()}
    assert decode({"token:main": {"breaks": 1}, "nonsense": {}, "disk": {"unheard": 1}, "store": None}) == {}
    assert decode(None) == {}


# ---- in which words


def test_the_configuration_names_the_conditions_and_each_threshold_has_its_key() -> None:
    assert tuple(CONDITIONS) == NAMES
    keys = {each.name for each in fields(Health)} - {"off"}
    assert {each.threshold for each in CONDITIONS.values() if each.threshold} == keys


@pytest.mark.parametrize("name", list(CONDITIONS))
def test_each_text_says_what_is_wrong_what_it_does_and_what_to_do(name: str) -> None:
    of = Key(name, "main" if "{of}" in CONDITIONS[name].broken else None)
    began, at = 1_700_000_000_000, 1_700_000_260_000
    [event] = events("n1", [Told("broken", of, began, at, "figures of the day")], at)
    condition = CONDITIONS[name]
    assert event.subject == f"ALERT: {of.say(condition.broken)}" and len(event.subject) < 70
    assert f"{of.say(condition.broken)[1:]}." in event.text and "figures of the day" in event.text
    assert f"What it does: {of.say(condition.effect)}" in event.text
    assert f"What to do: {of.say(condition.mend)}" in event.text
    assert "{" not in event.text and "None" not in event.text and "Node n1, 2023-11-14T22:17:40" in event.text
    assert all(len(each) > 40 and each.endswith(".") for each in (condition.effect, condition.mend))
    assert len(event.text) < 1100, "nobody reads more in half a minute"
    [clear] = events("n1", [Told("well", of, began, at, "figures of the day")], at)
    assert clear.subject == f"all clear: {of.say(condition.well)}, after 4 min 20 s"
    assert event.html and "<h3>" in event.html and key(str(of)) == of


def test_several_make_one_mail_that_is_headed_by_the_worst() -> None:
    told = judge({}, [Finding(Key("clock"), True, "5 s"), Finding(TOKEN, True, "<b>40013</b>"),
                      Finding(DISK, True, "1 KiB"), Finding(STORE, True, "refused")], 1000).told  # fmt: skip
    assert told == []
    memory = judge({}, [Finding(each, True) for each in (Key("clock"), TOKEN, DISK, STORE)], 1000).memory
    told = judge(memory, [Finding(Key("clock"), True, "5 s"), Finding(TOKEN, True, "<b>40013</b>"),
                          Finding(DISK, True, "1 KiB"), Finding(STORE, True, "refused")], 2000).told  # fmt: skip
    [event] = events("n1", told, 2000)
    assert event.subject == "ALERT: the store cannot be used, and 3 more"
    order = [event.text.index(words) for words in ("The store", "Account main", "The disk", "This machine's clock")]
    assert order == sorted(order)
    assert event.html and "&lt;b&gt;40013" in event.html and "<b>" not in event.html
    assert event.line.startswith("ALERT: the store cannot be used; account main: no good access token; ")


def test_ids_are_the_same_for_the_same_and_others_for_another_time() -> None:
    def id_of(kind: Any, since: int, at: int, *keys: Key) -> str:
        [event] = events("n1", [Told(kind, each, since, at, "w") for each in keys], at)
        return event.id

    assert id_of("broken", 1000, 2000, STORE) == id_of("broken", 1000, 3000, STORE)
    different = [
        id_of("broken", 1000, 2000, STORE), id_of("broken", 1001, 2000, STORE), id_of("well", 1000, 2000, STORE),
        id_of("broken", 1000, 2000, DISK), id_of("broken", 1000, 2000, STORE, DISK),
        id_of("reminder", 1000, 2000, STORE), id_of("reminder", 1000, 3000, STORE),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_what_is_remembered_of_a_thousand_that_are_well_has_room_in_the_store() -> None:
    keys = [Key("token", f"account-{n}") for n in range(1000)]
    memory = judge({}, [Finding(each, False) for each in keys], 1_764_246_000_000).memory
    text = json.dumps(encode(memory))
    assert len(text) < 60_000 and decode(json.loads(text)) == memory


def test_what_breaks_again_within_a_minute_is_mailed_as_soon_as_the_first_time() -> None:
    """People think that it is well: equal events are those of one break."""
    told = [("broken", 0), ("well", 0), ("broken", 9000), ("well", 9000)]
    came = [
        Waiting(each.id, each.kind, urgent(each.subject), 3.0 * n)
        for n, (kind, since) in enumerate(told)
        for each in events("n1", [Told(cast(Any, kind), STORE, since, 0, "")], 0)
    ]  # fmt: skip
    past, mailed = Past(), list[float]()
    for each in came:
        found = plan([each], past, {}, pace(1), each.came + 0.5)
        for mail in found.mails:
            past.note(mail, each.came + 0.5)
            mailed.append(each.came)
    assert mailed == [0.0, 3.0, 6.0, 9.0]


def test_what_came_and_went_and_what_goes_on_is_said_so() -> None:
    flaps = Told("flaps", STORE, 0, HOUR, "refused", 3)
    assert short(flaps) == "comes and goes: the store cannot be used"
    assert "3 times within 1 h" in events("n", [flaps], HOUR)[0].text
    assert short(Told("reminder", STORE, 0, 5 * HOUR, "w")) == "still, for 5 h: the store cannot be used"
    assert "It broke 9 times" in events("n", [Told("well", STORE, 0, HOUR, "w", 9)], HOUR)[0].text
    [gone] = events("n", [Told("unwatched", TOKEN, 0, HOUR, "w")], HOUR)
    assert gone.subject == "all clear: not watched any more: account main: no good access token"


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0, "0 s"), (-5, "0 s"), (1499, "1 s"), (59_600, "1 min"), (260_000, "4 min 20 s"), (2 * HOUR, "2 h"),
     (HOUR + 59_000, "1 h"), (76 * HOUR, "3 d 4 h")],
)  # fmt: skip
def test_spans_are_for_people(ms: int, words: str) -> None:
    assert span(ms) == words


# ---- what is remembered, and told


def _bad(*keys: Key) -> list[Finding]:
    return [Finding(each, True, "words") for each in keys]


def test_a_crash_at_any_moment_repeats_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """Two looks that break it, with a kill after every single step; then the looks go on as if nothing was."""

    class Killed(Exception):
        pass

    for last in count():
        folder = tmp_path / str(last)
        folder.mkdir()
        file, mailed, steps = File(folder), dict[str, Event](), iter(range(last, -1, -1))

        def step(steps: Iterable[int] = steps) -> None:
            if next(iter(steps), None) == 0:
                raise Killed

        def tell(event: Event, mailed: dict[str, Event] = mailed) -> None:
            step()
            mailed[event.id] = event
            step()

        def save(memory: Memory, file: File = file) -> None:
            step()
            file.write(memory)
            step()

        killed = False
        for at in range(10):
            memory = file.read()
            try:
                memory.look("n1", _bad(STORE, RELOAD) if at < 4 else [Finding(STORE, False), Finding(RELOAD, False)],
                            at * MINUTE, tell)  # fmt: skip
                memory.speak(tell, save)
            except Killed:
                killed = True
        subjects = sorted(each.subject.split(",")[0] for each in mailed.values())
        assert subjects == [
            "ALERT: the last reload was refused", "ALERT: the store cannot be used",
            "all clear: a reload went well again", "all clear: the store can be used again",
        ], last  # fmt: skip
        if not killed:
            assert last > 10
            break


def test_without_mail_nothing_waits_to_be_told_and_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    for at in range(2):
        memory.look("n1", _bad(STORE), at, None)
    assert memory.untold == [] and "the store cannot be used: words" in caplog.text


def test_a_memory_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    file = File(tmp_path)
    assert file.read() == Memory()
    memory = Memory({STORE: Seen(True, 5)}, [], {"a": 1})
    file.write(memory)
    assert file.read() == memory and os.stat(tmp_path / "health.json").st_mode & 0o777 == 0o600
    for damage in ("", "[]", '{"seen": 3, "untold": [{"id": 1}], "more": 2}', "\0"):
        (tmp_path / "health.json").write_text(damage)
        assert file.read() == Memory()


def test_the_rules_are_as_the_documents_say() -> None:
    assert [each // HOUR for each in rules.REMIND_AFTER] == [1, 4, 12, 24]
    text = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    for name in CONDITIONS:
        assert re.search(rf"`{name}`", text), name
