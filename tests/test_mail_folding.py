"""Which events make which mails, and when: no clock, no disk."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanoutd.mail.folding import BUDGET, WINDOW, Pace, Past, Waiting, pace, plan

PACE = pace(60)


def event(number: int, came: float, kind: str = "k", urgent: bool = False) -> Waiting:
    return Waiting(f"e-{number}", kind, urgent, came)


class Clockwork:
    """Asks when the plan says so, and mails what is due: [(when, how many events)]."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.pace, self.past = pace, Past()
        self.mails: list[tuple[float, list[Waiting]]] = []

    def run(self, *events: Waiting) -> list[tuple[float, int]]:
        coming = sorted(events, key=lambda each: each.came)
        waiting: list[Waiting] = []
        now = 0.0
        while coming or waiting:
            while coming and coming[0].came <= now:
                waiting.append(coming.pop(0))
            found = plan(waiting, self.past, {}, self.pace, now)
            for mail in found.mails:
                self.past.note(mail, now)
                self.mails.append((now, mail))
                waiting = [each for each in waiting if each not in mail]
            if not found.mails:
                now = min([each.came for each in coming[:1]] + ([] if found.wake is None else [found.wake]))
        return [(when, len(mail)) for when, mail in self.mails]


def test_an_event_without_a_kind_goes_at_once_and_alone() -> None:
    assert Clockwork().run(event(1, 5, ""), event(2, 5, ""), event(3, 5.5, "")) == [(5, 1), (5, 1), (5.5, 1)]


def test_equal_events_make_one_mail_once_it_is_quiet() -> None:
    assert Clockwork().run(*(event(n, n / 1000) for n in range(1000))) == [(2.999, 1000)]


def test_what_comes_later_in_the_window_is_one_mail_more_at_its_end() -> None:
    late = [event(n, 10 + n) for n in range(40)]
    assert Clockwork().run(event(100, 0), *late, event(101, 200)) == [(2, 1), (62, 40), (202, 1)]


def test_a_thousand_failures_in_a_minute_are_one_mail_and_a_storm_is_one_a_minute() -> None:
    assert Clockwork().run(*(event(n, n * 0.06) for n in range(1000))) == [(60, 1000)]
    storm = Clockwork().run(*(event(n, n * 0.5) for n in range(600)))
    assert [when for when, _ in storm] == [60, 120, 180, 240, 300] and sum(count for _, count in storm) == 600


@pytest.mark.parametrize(("health_check", "latest"), [(1, 1), (5, 5), (60, 60), (3600, 60)])
def test_an_alert_waits_no_longer_than_one_look_even_in_a_storm(health_check: float, latest: float) -> None:
    found = Clockwork(pace(health_check)).run(*(event(n, n * 0.1, urgent=True) for n in range(1000)))
    assert found[0][0] == pytest.approx(latest, abs=0.11)
    alone = Clockwork(pace(health_check)).run(event(1, 0, urgent=True))
    assert alone == [(min(2, health_check / 2), 1)]


def test_alerts_of_several_kinds_are_several_mails_until_there_are_too_many() -> None:
    few = Clockwork().run(*(event(n, 0, f"k{n}", urgent=True) for n in range(BUDGET)))
    assert few == [(2, 1)] * BUDGET
    many = Clockwork().run(*(event(n, 0, f"k{n}", urgent=True) for n in range(50)))
    assert many == [(2, 1)] * (BUDGET - 1) + [(2, 50 - BUDGET + 1)]


def test_beyond_the_budget_what_is_urgent_goes_first_and_never_waits_for_the_window() -> None:
    clockwork = Clockwork(pace(5))
    plain = [event(n, 0, "") for n in range(30)]
    found = clockwork.run(*plain, event(50, 1, "alert", urgent=True), event(51, 2, ""))
    assert found[:BUDGET] == [(0, 1)] * (BUDGET - 1) + [(0, 21)]
    assert found[BUDGET:] == [(5, 2)]  # 5 s after the last mail, and the other one with it
    assert clockwork.run(*plain)[-1][0] <= WINDOW


def test_what_was_refused_goes_when_its_time_has_come_and_holds_up_nobody_else() -> None:
    waiting = [event(1, 0, "bad"), event(2, 0, "good"), event(3, 0, "")]
    found = plan(waiting, Past(), {"bad": 100.0}, PACE, 50)
    assert [[each.id for each in mail] for mail in found.mails] == [["e-2"], ["e-3"]] and found.wake == 100
    assert plan(waiting[:1], Past(), {"bad": float("inf")}, PACE, 50).mails == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.floats(0, 300), st.sampled_from(["", "a", "b", "c"]), st.booleans()),
        max_size=60,
    ),
    st.sampled_from([1.0, 5.0, 60.0]),
)  # fmt: skip
def test_whatever_comes_every_event_is_mailed_once_soon_and_in_few_mails(
    coming: list[tuple[float, str, bool]], health_check: float
) -> None:
    clockwork = Clockwork(pace(health_check))
    events = [event(n, came, kind, urgent) for n, (came, kind, urgent) in enumerate(coming)]
    clockwork.run(*events)
    assert sorted(each.id for _, mail in clockwork.mails for each in mail) == sorted(each.id for each in events)
    for when, mail in clockwork.mails:
        assert all(0 <= when - each.came <= 2 * WINDOW for each in mail)
    for at, _ in clockwork.mails:
        within = [mail for when, mail in clockwork.mails if at <= when < at + WINDOW]
        extra = WINDOW / clockwork.pace.overflow if any(each.urgent for mail in within for each in mail) else 0
        assert len(within) <= BUDGET + extra
    for kind in ("a", "b", "c"):
        alone = [when for when, mail in clockwork.mails if {each.kind for each in mail} == {kind}]
        assert all(later >= earlier + WINDOW for earlier, later in pairwise(alone))
