"""Figures: exact over deaths of their processes, never torn, and as many as the store says."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from fanoutd.dispatcher.recovery import recover
from fanoutd.figures import BUCKETS, MOST_SETS, OTHER, Figures, Histogram
from fanoutd.figures_file import Meter, folder_of, read_all
from fanoutd.outcome import OPEN, RENDER, Ended, State, channel_name, errcode_word
from support.bench import Bench, stop_between_writes, wait_for

SENT = ("main", "custom", "sent", "0")


def ended(count: int) -> Ended:
    return Counter({(State.SENT, 1, 0): count})


def test_a_process_goes_on_from_what_the_one_before_it_in_its_place_has_left(tmp_path: Path) -> None:
    for turn in range(1, 4):
        meter = Meter(tmp_path, "row-1")
        meter.request("main", "custom", 0, 0.2)
        meter.request("main", "template", "timeout", 10.5)
        meter.request("main", "custom", "not_sent", None)
        meter.ended("main", ended(2))
        meter.ended("main", Counter({(State.FAILED, None, RENDER): 1, (State.SKIPPED, None, None): 4}))
        meter.close()
        found = read_all(tmp_path)
        assert found.deliveries == Counter({
            SENT: 2 * turn, ("main", "", "failed", "render"): turn, ("main", "", "skipped", ""): 4 * turn
        })  # fmt: skip
        assert found.requests == Counter({
            ("main", "custom", "0"): turn, ("main", "template", "timeout"): turn, ("main", "custom", "not_sent"): turn
        })  # fmt: skip
        assert found.latency["main", "custom"].count == turn  # what never left has taken no time
        assert found.latency["main", "custom"].seconds == pytest.approx(0.2 * turn)
        assert found.latency["main", "template"].counts == [*[0] * len(BUCKETS), turn]
    assert [each.name for each in tmp_path.iterdir()] == ["row-1"]


def test_two_in_one_place_have_a_file_each_and_the_sum_is_of_both(tmp_path: Path) -> None:
    old, new = Meter(tmp_path, "row-1"), Meter(tmp_path, "row-1")
    for meter, count in ((old, 3), (new, 4), (old, 5)):
        meter.ended("main", ended(count))
    assert read_all(tmp_path).deliveries[SENT] == 12
    old.close()
    third = Meter(tmp_path, "row-1")
    third.ended("main", ended(1))
    assert (read_all(tmp_path).deliveries[SENT], len(list(tmp_path.iterdir()))) == (13, 2)


@pytest.mark.parametrize("torn", ["cut off", "overwritten"])
def test_a_writing_that_was_cut_off_leaves_the_one_before_it(tmp_path: Path, torn: str) -> None:
    meter = Meter(tmp_path, "row-1")
    for _ in range(5):
        meter.ended("main", ended(1))
    file = tmp_path / "row-1"
    with file.open("r+b") as f:  # the fifth stands in the second place
        if torn == "cut off":
            f.truncate((1 << 20) + 40)
        else:
            f.seek((1 << 20) + 60)
            f.write(b"\0\0\0")
    assert read_all(tmp_path).deliveries[SENT] == 4
    meter.ended("main", ended(1))  # the first place: it may be damaged now, and the second is not whole
    meter.ended("main", ended(1))
    assert read_all(tmp_path).deliveries[SENT] == 7


def test_who_reads_while_it_is_written_sees_figures_that_belong_together_and_never_fall(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        try:
            meter = Meter(tmp_path, "row-1")
            while True:
                meter.count("main", ended(1))
                meter.ended("main", Counter({(State.FAILED, 2, 43004): 1}))
        finally:
            os._exit(1)
    try:
        wait_for(lambda: read_all(tmp_path).deliveries, "the first figures")
        last, looks = 0, 0
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            found = read_all(tmp_path).deliveries
            assert found[SENT] == found["main", "template", "failed", "43004"] >= last > -1
            last, looks = found[SENT], looks + 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert looks > 20 and last > 20
    assert Meter(tmp_path, "row-1") and read_all(tmp_path).deliveries[SENT] >= last


def test_a_disk_that_is_full_costs_figures_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(tmp_path, "row-1")
    meter.ended("main", ended(1))
    with pytest.MonkeyPatch.context() as m:
        m.setattr(os, "pwrite", lambda _fd, data, _at: len(data) // 2)
        for _ in range(3):
            meter.ended("main", ended(1))
    assert read_all(tmp_path).deliveries[SENT] == 1
    assert [r.getMessage() for r in caplog.records] == [
        "figures: the disk is full; what this process counts is not kept until that is mended"
    ]
    meter.ended("main", ended(1))
    assert read_all(tmp_path).deliveries[SENT] == 5


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "figures").write_text("a file")
    meter = Meter(tmp_path / "figures", "row-1")
    meter.ended("main", ended(1))
    meter.close()
    assert "Not a directory" in caplog.text or "exists" in caplog.text
    assert read_all(tmp_path / "nowhere") == Figures()


def test_an_api_that_answers_a_new_number_to_each_makes_no_label_sets_without_end(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "row-1")
    for errcode in range(100_000, 100_000 + 2 * MOST_SETS):
        meter.request("main", "custom", errcode, 0.01)
        meter.count("main", Counter({(State.FAILED, 1, errcode): 1}))
    meter.write()
    found = read_all(tmp_path)
    assert (len(found.requests), len(found.deliveries)) == (MOST_SETS + 1, MOST_SETS + 1)
    assert found.requests["main", "custom", OTHER] == found.deliveries["main", "custom", "failed", OTHER] == MOST_SETS
    assert found.requests.total() == found.deliveries.total() == 2 * MOST_SETS


def test_what_has_come_since() -> None:
    before, now = Figures(), Figures()
    before.count("main", ended(5))
    now.count("main", ended(9))
    now.requests.update({("main", "custom", "-1"): 2, ("main", "template", "-1"): 3, ("b", "custom", "0"): 1})
    before.requests.update({("b", "custom", "0"): 7})  # somebody emptied the state directory
    for figures, times in ((before, [0.02]), (now, [0.02, 0.03, 0.04, 0.2])):
        histogram = figures.latency["main", "custom"] = Histogram()
        for seconds in times:
            histogram.observe(seconds)
    since = now.since(before)
    assert since.deliveries == Counter({SENT: 4})
    assert since.requests_of("main") == Counter({"-1": 5}) and since.requests_of("b") == Counter({"0": 1})
    latency = since.latency_of("main")
    assert (latency.count, latency.seconds) == (3, pytest.approx(0.27))
    assert 0.025 < (latency.quantile(0.5) or 0) <= 0.05 and 0.1 < (latency.quantile(0.99) or 0) <= 0.25
    assert now.since(now) == Figures() and Histogram().quantile(0.5) is None
    beyond = Histogram()
    beyond.observe(60)
    assert beyond.quantile(0.5) == BUCKETS[-1]


def stored(bench: Bench) -> Counter[tuple[str, str, str, str]]:
    """What the store says of those who have ended, with the labels of the metric."""
    return Counter({
        ("main", channel_name(channel) or "", State(state).word, errcode_word(errcode) or ""): count
        for state, channel, errcode, count in bench.db.rows(
            "SELECT state, channel, errcode, COUNT(*) FROM fanout_delivery GROUP BY state, channel, errcode"
        ) if state not in OPEN
    })  # fmt: skip


def test_after_a_campaign_in_which_workers_were_killed_they_are_what_the_store_says(tmp_path: Path) -> None:
    bench = Bench(tmp_path, concurrency=8, latency="20ms", no_window=0.3, unfollowed=0.1, busy=0.05, drop_after=0.02,
                  half_json=0.02)  # fmt: skip
    folder = folder_of(bench.config.daemon.state_dir)
    try:
        bench.campaign(600)
        seen = [0]

        def further() -> bool:
            seen.append(read_all(folder).deliveries.total())
            assert seen[-1] >= seen[-2]
            return seen[-1] >= len(bench.workers) * 100

        for _ in range(3):
            worker = bench.work()
            wait_for(further, "a hundred more")
            # Between a commit and its figures lie microseconds: who is killed there has not counted that batch.
            stop_between_writes(worker.pid, bench.config.store_url)
            while read_all(folder).deliveries != stored(bench):
                os.kill(worker.pid, signal.SIGCONT)
                stop_between_writes(worker.pid, bench.config.store_url)
            worker.kill()
            meter = Meter(folder, "dispatcher")
            recover(bench.db, bench.journals, "node1", lambda _account: False, meter.ended)
            meter.close()
            assert read_all(folder).deliveries == stored(bench)
        worker = bench.work()
        wait_for(lambda: bench.state() == "done", "the end", 60)
        assert worker.stop() == 0
        found = read_all(folder)
        assert found.deliveries == stored(bench)
        assert {key[2] for key in found.deliveries} == {"sent", "failed", "unknown"}
        # What each killed process had called since it last wrote its figures is not in them.
        missed = 3 * bench.config.workers.concurrency * 20
        calls = sum(attempts for _, _, _, attempts, _ in bench.rows().values())
        left = sum(count for (_, _, result), count in found.requests.items() if result != "not_sent")
        assert calls - missed <= left <= calls and sum(each.count for each in found.latency.values()) == left
        assert found.requests_of("main").keys() >= {"0", "45015", "43004", "-1", "lost", "unreadable"}
        assert all(each.quantile(0.5) > 0.01 for each in found.latency.values())  # type: ignore[operator]
    finally:
        bench.close()
