"""The socket under abuse: whatever a client does, the others notice nothing and the master keeps its measure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.abuse import ABUSES, Abused, abusing, pings
from support.master import until

MiB = 1 << 20
PINGS = 200


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abused]:
    with Abused(tmp_path_factory.mktemp("abused")) as process:
        process.ready()
        yield process
        assert "Traceback" not in process.log()


@pytest.mark.parametrize("name", ABUSES)
def test_nobody_else_feels(master: Abused, name: str) -> None:
    descriptors, rss, log, cpu = master.descriptors(), master.rss(), len(master.log()), master.cpu()
    with abusing(name, master.socket):
        steady, fresh = pings(master, PINGS)
        grown = master.rss() - rss
    print(f"{name}: ping {figures(steady)}; with connecting {figures(fresh)}; memory {grown / MiB:+.1f} MiB;"
          f" CPU {(master.cpu() - cpu) / (sum(steady) + sum(fresh)):.0%}; log {len(master.log()) - log} bytes")
    assert late(steady) <= 0.25
    assert late(fresh) <= 1
    assert grown < 160 * MiB
    assert len(master.log()) - log < 64 << 10
    until(lambda: master.descriptors() <= descriptors, "its descriptors back", 30)


def late(waits: list[float]) -> float:
    """The 99th percentile."""
    return waits[int(len(waits) * 0.99) - 1]


def figures(waits: list[float]) -> str:
    median, worst = waits[len(waits) // 2], waits[-1]
    return f"median {median * 1000:.1f} ms, 99 % {late(waits) * 1000:.1f} ms, worst {worst * 1000:.1f} ms"
