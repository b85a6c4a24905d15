"""The master's decisions without processes: slots, wake-ups, the clock, questions, watches."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from apscheduler.executors.base import BaseExecutor

from fanoutd.board import Board
from fanoutd.master.asks import Asks
from fanoutd.master.children import Children
from fanoutd.master.clock import Clock
from fanoutd.master.first import FirstGeneration
from fanoutd.master.rpc import RpcError
from fanoutd.master.slots import Boots, Event, Pardons, Slot, State, backoff, wake
from fanoutd.master.timing import Every
from fanoutd.master.watches import Watches

# ---- slots


def worker(number: int, state: State = State.IDLE, idle_since: float = 0.0) -> Slot:
    return Slot(number, "worker", state=state, pid=100 + number, idle_since=idle_since)


def test_a_worker_is_booting_then_idle_and_busy_in_turn_then_drains() -> None:
    slot = Slot(1, "worker")
    seen = [slot.state]
    slot.asked(7, 1, now=0.0)
    seen.append(slot.state)
    for event in (Event.READY, Event.BUSY, Event.IDLE):
        slot.heard(event, now=1.0)
        seen.append(slot.state)
    slot.stop(kill_at=9.0)
    slot.heard(Event.BUSY, now=2.0)
    seen.append(slot.state)
    slot.gone(now=3.0, chance=0.5)
    seen.append(slot.state)
    assert seen == ["dead", "booting", "idle", "busy", "idle", "draining", "dead"]


def lives(slot: Slot, seconds: float, *events: Event) -> float:
    """The wait after a life of so many seconds."""
    slot.asked(7, 1, now=100.0)
    for event in events:
        slot.heard(event, now=100.0)
    slot.gone(now=100.0 + seconds, chance=0.5)
    return slot.not_before - (100.0 + seconds)


def test_who_dies_young_waits_longer_each_time() -> None:
    slot = Slot(1, "worker")
    waits = [lives(slot, 1.0, Event.READY) for _ in range(14)]
    assert waits[:5] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8])
    assert waits[-1] == 30.0
    assert slot.state is State.BACKOFF
    assert slot.restarts == 14


@pytest.mark.parametrize(("seconds", "events"), [(10.0, []), (0.1, [Event.READY, Event.BUSY, Event.IDLE])])
def test_who_lived_long_or_worked_is_replaced_at_once(seconds: float, events: list[Event]) -> None:
    slot = Slot(1, "worker", failures=9)
    assert lives(slot, seconds, *events) == 0.0
    assert lives(slot, 0.1, Event.READY, Event.BUSY) == 0.0
    assert lives(slot, 0.1, Event.READY, Event.BUSY) == pytest.approx(0.1)


def test_a_boot_loop_forks_at_most_ten_times_in_ten_seconds() -> None:
    slot, now, forks = Slot(1, "worker"), 0.0, 0
    while now <= 10.0:
        slot.asked(7, 1, now)
        slot.gone(now, chance=0.0)
        now, forks = slot.not_before, forks + 1
    assert forks <= 10


def test_a_fork_that_fails_is_tried_again_later() -> None:
    slot = Slot(1, "worker")
    slot.failed(now=0.0, chance=0.5)
    assert (slot.state, slot.not_before) == (State.BACKOFF, pytest.approx(0.1))


def test_who_is_killed_with_nothing_to_do_is_innocent() -> None:
    slot = Slot(1, "worker", failures=3)
    slot.asked(7, 1, now=0.0)
    slot.gone(now=0.5, chance=0.5, innocent=True)
    assert slot.failures == 3
    slot.asked(7, 1, now=0.5)
    slot.gone(now=0.6, chance=0.5)
    assert slot.failures == 4


def test_pardons_are_many_at_once_and_one_a_second_after_that() -> None:
    pardons = Pardons(room=3)
    assert [pardons.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [pardons.take(101.0), pardons.take(101.5), pardons.take(102.1)] == [True, False, True]


def test_after_a_failure_to_boot_one_at_a_time_is_tried_until_one_boots() -> None:
    boots = Boots()
    assert boots.may(0.0, booting=0) and not boots.may(0.0, booting=1)
    boots.succeeded()
    assert boots.may(0.0, booting=50)
    for _ in range(3):
        boots.failed(now=10.0, chance=0.5)
    assert [boots.may(at, booting=0) for at in (10.0, 10.19, 10.2)] == [False, False, True]
    assert not boots.may(99.0, booting=1)


def overdue(slot: Slot, now: float, heartbeat: float = 0.0) -> str | None:
    return slot.overdue(now, lambda: heartbeat, hang_timeout=60.0)


def test_who_does_not_boot_or_is_never_born_is_overdue() -> None:
    slot = Slot(1, "worker")
    slot.asked(7, 1, now=100.0)
    assert [overdue(slot, at) is None for at in (109.9, 110.0)] == [True, False]
    slot.pid = 4711
    assert [overdue(slot, at) is None for at in (110.0, 129.9, 130.0)] == [True, True, False]


def test_who_is_busy_and_shows_no_sign_of_life_is_hung() -> None:
    slot = worker(1)
    slot.heard(Event.BUSY, now=100.0)
    assert overdue(slot, 159.0) is None
    assert overdue(slot, 170.0, heartbeat=111.0) is None
    assert overdue(slot, 172.0, heartbeat=111.0) == "no sign of life for 61.0 s"


def test_who_is_idle_owes_a_sign_of_life_only_when_told_something() -> None:
    slot = worker(1)
    assert overdue(slot, 1e9) is None
    slot.told_at = 100.0
    assert overdue(slot, 161.0, heartbeat=99.0) is not None
    assert overdue(slot, 161.0, heartbeat=100.1) is None
    assert overdue(slot, 1e9, heartbeat=100.1) is None


def test_time_in_which_the_master_was_stopped_counts_for_nobody() -> None:
    slot = worker(1)
    slot.heard(Event.BUSY, now=100.0)
    slot.forgive(500.0, now=600.0)
    assert overdue(slot, 640.0, heartbeat=99.9) is None
    assert overdue(slot, 660.0, heartbeat=99.9) == "no sign of life for 60.0 s"
    slot.stop(kill_at=700.0)
    slot.forgive(10.0, now=650.0)
    assert slot.kill_at == 710.0


def test_who_is_idle_and_has_shown_a_sign_of_life_owes_no_other_one_because_the_master_was_stopped() -> None:
    slot = worker(1)
    slot.told_at = 100.0
    slot.forgive(5.0, now=106.0)
    assert [overdue(slot, at, heartbeat=100.1) for at in (165.0, 166.0, 1e9)] == [None, None, None]
    slot.told_at = 100.0
    assert overdue(slot, 166.0, heartbeat=99.9) == "no sign of life for 60.0 s"


def test_who_was_idle_again_before_he_was_heard_to_be_busy_owes_nothing() -> None:
    slot = worker(1)
    slot.told_at = 100.0
    slot.heard(Event.BUSY, now=100.5)
    slot.heard(Event.IDLE, now=100.5)
    assert [overdue(slot, at, heartbeat=100.1) for at in (160.5, 1e9)] == [None, None]


def test_who_shows_a_sign_of_life_before_the_master_looks_at_the_clock_again_owes_no_other_one() -> None:
    board, slot = Board(4), worker(1)

    class Quick:
        def send(self, _message: object) -> bool:
            board.write(slot.row, campaign=None, sent=0, failed=0, rate=0.0, heartbeat=time.monotonic())
            return True

    slot.row = 2
    children = object.__new__(Children)
    children.board, children._links = board, {slot.row: (slot, cast(Any, Quick()))}
    assert children.send(slot, {"t": "work"})
    assert slot.told_at is not None and slot.told_at <= board.read(slot.row).heartbeat
    board.close()


def test_the_jitter_is_a_quarter_either_way() -> None:
    assert [backoff(3, chance) for chance in (0.0, 1.0)] == pytest.approx([0.15, 0.25])


def test_the_most_recently_idle_are_woken_one_a_shard() -> None:
    told: list[int] = []
    workers = [worker(1, idle_since=5), worker(2, idle_since=9), worker(3, State.BUSY), worker(4, idle_since=1)]
    assert wake(workers, 2, lambda slot: told.append(slot.number) or True) == 0
    assert told == [2, 1]


def test_when_there_are_too_few_idle_the_busy_look_again_and_the_rest_is_owed() -> None:
    told: list[int] = []
    workers = [worker(1, State.BUSY), worker(2), worker(3, State.BOOTING), worker(4, State.DRAINING)]
    assert wake(workers, 4, lambda slot: told.append(slot.number) or True) == 2
    assert told == [2, 1]


def test_who_was_woken_and_has_not_looked_yet_counts_as_busy() -> None:
    told: list[int] = []
    workers = [worker(1, idle_since=9), worker(2)]
    for _ in range(2):
        wake(workers, 1, lambda slot: told.append(slot.number) or True)
    assert told == [1, 2]


def test_who_cannot_be_told_is_not_counted() -> None:
    assert wake([worker(1), worker(2)], 2, lambda slot: slot.number == 2) == 1


# ---- the first generation


def test_five_deaths_before_any_is_ready_end_the_daemon_and_none_after() -> None:
    first = FirstGeneration(now=0.0)
    for _ in range(4):
        first.lost_one("exit code 3")
    assert first.hopeless(1.0) is None
    first.lost_one("exit code 3")
    assert "exit code 3" in str(first.hopeless(1.0))
    first.got_ready()
    assert first.hopeless(1e9) is None


def test_nobody_ready_within_thirty_seconds_ends_the_daemon() -> None:
    first = FirstGeneration(now=0.0)
    assert first.hopeless(29.9) is None
    assert "30 s" in str(first.hopeless(30.0))


# ---- the clock


def poll_until_due(clock: Clock) -> Any:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        clock.poll(time.monotonic())
        if due := clock.take():
            return due[0]
        time.sleep(0.005)
    raise AssertionError("the job never became due")


def test_a_job_runs_again_only_when_it_was_finished() -> None:
    clock = Clock({"sweep": Every(0.02)}, time.monotonic())
    first = poll_until_due(clock)
    assert first.message() == {"t": "job", "n": first.number, "name": "sweep"}
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        clock.poll(time.monotonic())
        assert clock.take() == []
    clock.finished(first.number, None)
    assert clock.jobs()[0].result == "ok"
    second = poll_until_due(clock)
    clock.lost("the dispatcher died")
    assert clock.jobs()[0].result == "the dispatcher died"
    clock.finished(second.number, None)
    assert poll_until_due(clock).number > second.number


def test_a_job_that_waits_for_a_dispatcher_is_queued_once() -> None:
    clock = Clock({"sweep": Every(0.01)}, time.monotonic())
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        clock.poll(time.monotonic())
    assert len(clock.take()) == 1


@pytest.mark.parametrize("step", [-30 * 86400, 30 * 86400])
def test_a_wall_clock_that_is_set_neither_delays_jobs_nor_floods(step: float) -> None:
    clock = Clock({"sweep": Every(0.02)}, time.monotonic())
    job = clock._scheduler.get_jobs()[0]
    job.modify(next_run_time=job.next_run_time.fromtimestamp(time.time() - step, job.next_run_time.tzinfo))
    clock._offset -= step
    begun = time.monotonic()
    poll_until_due(clock)
    assert time.monotonic() - begun < 3.0


def test_the_executor_is_ours_and_no_thread_pool() -> None:
    clock = Clock({}, time.monotonic())
    executors: dict[str, BaseExecutor] = clock._scheduler._executors
    assert [type(each).__module__ for each in executors.values()] == ["fanoutd.master.clock"]


# ---- questions


class Outcome:
    def __init__(self) -> None:
        self.value: Any = None
        self.error: RpcError | None = None
        self.calls = 0

    def __call__(self, value: Any, error: RpcError | None) -> None:
        self.value, self.error, self.calls = value, error, self.calls + 1


def test_a_question_is_asked_again_of_the_next_dispatcher_and_answered_once() -> None:
    sent: list[dict[str, Any]] = []
    asks, outcome = Asks(lambda message: sent.append(message) or False), Outcome()
    asks.put("campaign.get", {"campaign": "c-1"}, 5.0, outcome)
    asks.again()
    number = sent[0]["n"]
    assert sent == [{"t": "ask", "n": number, "method": "campaign.get", "params": {"campaign": "c-1"}}] * 2
    for _ in range(2):
        asks.answered({"t": "answer", "n": number, "result": {"id": "c-1"}})
    assert (outcome.value, outcome.error, outcome.calls) == ({"id": "c-1"}, None, 1)


def test_a_question_is_given_up_at_its_deadline() -> None:
    asks, outcome = Asks(lambda _message: True), Outcome()
    asks.put("campaign.get", {}, 5.0, outcome)
    asks.expire(4.9)
    assert outcome.calls == 0
    asks.expire(5.0)
    assert outcome.error is not None
    assert outcome.error.code == -32005
    assert len(asks) == 0


def test_an_error_comes_through_with_its_data() -> None:
    sent: list[dict[str, Any]] = []
    asks, outcome = Asks(lambda message: sent.append(message) or True), Outcome()
    asks.put("campaign.get", {}, 5.0, outcome)
    asks.answered({"n": sent[0]["n"], "error": {"code": -32002, "message": "none", "data": {"field": "campaign"}}})
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.data) == (-32002, {"field": "campaign"})


# ---- watches


class Viewer:
    def __init__(self) -> None:
        self.closed = False
        self.takes = True
        self.told: list[str] = []
        self.ended = 0

    def tell(self, campaign: dict[str, Any]) -> bool:
        if self.takes:
            self.told.append(campaign["state"])
        return self.takes

    def seen_enough(self) -> None:
        self.ended += 1


def state(state: str) -> dict[str, Any]:
    return {"id": "c-1", "state": state}


def test_watchers_share_a_look_and_hear_of_changes_until_the_end() -> None:
    looks: list[str] = []
    watches, viewers = Watches(looks.append), [Viewer(), Viewer()]
    for viewer in viewers:
        watches.add(state("planning"), viewer, now=0.0)
    watches.due(0.2)
    assert looks == []
    for n, word in enumerate(("planning", "running", "done"), 1):
        watches.due(n * 0.25)
        watches.due(n * 0.25)
        assert len(looks) == n
        watches.saw("c-1", state(word), None)
    assert [viewer.told for viewer in viewers] == [["running", "done"]] * 2
    assert [viewer.ended for viewer in viewers] == [1, 1]
    assert len(watches) == 0


def test_a_viewer_who_takes_nothing_now_hears_the_last_word_later() -> None:
    watches, viewer = Watches(lambda _id: None), Viewer()
    watches.add(state("running"), viewer, now=0.0)
    viewer.takes = False
    watches.due(1.0)
    watches.saw("c-1", state("done"), None)
    viewer.takes = True
    watches.due(2.0)
    watches.saw("c-1", state("done"), None)
    assert viewer.told == ["done"]


def test_a_watch_ends_with_its_viewer_or_its_campaign_but_not_with_the_store() -> None:
    watches, viewer = Watches(lambda _id: None), Viewer()
    watches.add(state("running"), viewer, now=0.0)
    watches.due(1.0)
    watches.saw("c-1", None, RpcError(-32005, "away"))
    assert len(watches) == 1
    viewer.closed = True
    watches.due(2.0)
    watches.saw("c-1", state("running"), None)
    assert (len(watches), viewer.ended) == (0, 1)
