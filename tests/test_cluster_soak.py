"""Three machines on one MariaDB have a bad day together; ``scripts/cluster-soak`` has as many and as long ones as one
wants, with take-overs, which take a minute each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import cluster_soak
from support.cluster import Cluster
from support.cluster_soak import KINDS, Event
from support.mariadb import MariaDb

PEOPLE, RATE = 1500, 120


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)  # who is killed has not counted, and the others would be slower
    server = MariaDb()
    made = Cluster(tmp_path, server, PEOPLE, RATE, workers=1, concurrency=24, latency="200ms", spread=0.3, seed=1)
    yield made
    made.close()
    server.close()


def test_nobody_is_lost_or_sent_to_twice_when_a_node_dies_another_is_cut_off_and_the_database_is_killed(
    cluster: Cluster,
) -> None:
    events = [Event(2, "kill", 0, 5), Event(3, "cut off", 1, 9), Event(5, "database", 0, 1), Event(8, "HUP", 2, 0)]
    result = cluster_soak.play(1, events, cluster, timed=False)
    print(result.line())
    assert not result.violations
    assert result.sums.sent >= PEOPLE - result.allowed_after


def test_a_seed_draws_the_same_day_every_time_and_all_has_everything() -> None:
    assert cluster_soak.draw(7, 3, 170) == cluster_soak.draw(7, 3, 170) != cluster_soak.draw(8, 3, 170)
    assert {event.what for seed in range(50) for event in cluster_soak.draw(seed, 3, 170)} == set(KINDS)
    for seed in range(20):
        assert {event.what for event in cluster_soak.draw_all(seed, 3, 170)} == set(KINDS)
