"""A kill at every edge between what is durable and what is done, and what it costs: the table of docs/design.md.

Each row lets one process of a whole daemon die, once, as it passes a place. One request at a time is on the wire, so
that the cost is exact. On a server the first channel alone: the second tells nothing of the store.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import Unreachable
from fanoutd.failpoint import PLACES, UPKEEP
from support.bench import wait_for
from support.daemon import Daemon
from support.stores import KINDS, url

PEOPLE = 90
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Edge:
    """``nth``: who passes that place so often dies. ``unknown``: how many people a custom message leaves unknown,
    at least and at most; of template messages none ever is."""

    place: str
    nth: int
    dies: str
    unknown: tuple[int, int]
    cost: str


EDGES = (
    Edge("before_accept", 1, "master", (0, 0), "nothing: its client was not answered, and it is not kept"),
    Edge("after_accept", 1, "master", (0, 0), "nothing: the submission is found at the next start"),
    Edge("after_import", 1, "dispatcher", (0, 0), "nothing: the file is imported again under the same id"),
    Edge("mid_plan", 2, "dispatcher", (0, 0), "nothing: the plan is run again, whoever is in a shard is left out"),
    Edge("after_plan", 1, "dispatcher", (0, 0), "nothing: the plan is run again and finds nobody new"),
    Edge("before_claim", 1, "worker", (0, 0), "nothing"),
    Edge("after_claim", 1, "worker", (0, 0), "nothing: neither S nor R, everybody is pending again"),
    Edge("after_S", 7, "worker", (1, 1), "one unknown a connection, to whom nothing was sent"),
    Edge("after_write", 7, "worker", (1, 1), "one unknown a connection, who may have it"),
    Edge("after_reply", 7, "worker", (1, 1), "one unknown, who has it: the answer was not written down"),
    Edge("after_R", 7, "worker", (0, 0), "nothing: the journal has the answer"),
    Edge("before_record", 1, "worker", (0, 1), "nothing but what is on the wire: the journal has the answers"),
    Edge("after_record", 1, "worker", (0, 1), "nothing but what is on the wire"),
    Edge("mid_recovery", 1, "dispatcher", (0, 1), "nothing: recovery is run again"),
    Edge("after_recovery", 1, "dispatcher", (0, 1), "nothing: the journal is read again and has nothing new to say"),
)


Make = Callable[[Edge, str], Daemon]


@pytest.fixture
def daemon(tmp_path: Path, kind: str) -> Iterator[Make]:
    """``kind`` of store."""
    made: list[Daemon] = []
    store = url(kind, tmp_path)

    def make(edge: Edge, channel: str) -> Daemon:
        failing = {"FANOUTD_FAIL": f"{edge.place}@{edge.nth}", "FANOUTD_FAIL_ONCE": str(tmp_path / "died")}
        d = Daemon(tmp_path, PEOPLE, workers=1, concurrency=1, latency="8ms", wait=False, environ=failing,
                   store=store, no_window="1" if channel == "template" else "0")  # fmt: skip
        made.append(d)
        wait_for(d.ready, "an answer to ping")
        return d

    yield make
    for each in made:
        each.close()


def test_every_place_has_its_row_and_its_line_in_the_documents() -> None:
    assert [edge.place for edge in EDGES] == list(PLACES)
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for edge in EDGES:
        assert f"| `{edge.place}` | {edge.dies} | {PLACES[edge.place]} | {edge.cost} |\n" in design
    passed = set()
    for file in (ROOT / "fanoutd").rglob("*.py"):
        passed |= set(re.findall(r'failpoint\.reach\("(\w+)"\)', file.read_text(encoding="utf-8")))
    assert passed == set(PLACES) | set(UPKEEP)


def submitted(d: Daemon, **params: Any) -> str:
    """The campaign's id; a submission whose daemon died before the answer is made again under its key."""
    def submit() -> str | None:
        try:
            campaign: str = d.call("campaign.submit", content="x", phone="1", key="the one", **params)["campaign"]
            return campaign
        except (Unreachable, OSError):
            if d.process.poll() is not None:
                d.serve(wait=False)
            return None

    found: str = wait_for(submit, "an answer to the submission")
    return found


@pytest.mark.parametrize(("kind", "channel"), [*((kind, "custom") for kind in KINDS), ("sqlite", "template")])
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.place)
def test_a_kill_there_costs_what_the_table_says(daemon: Make, edge: Edge, channel: str, tmp_path: Path) -> None:
    d = daemon(edge, channel)
    campaign = submitted(d)
    if edge.place.endswith("_recovery"):
        wait_for(lambda: sum(d.accepted().values()) > 5, "a first part")
        os.kill(d.workers()[0]["pid"], signal.SIGKILL)
    wait_for((tmp_path / "died").exists, "a death")
    found = d.until(campaign)
    rows = {row["openid"]: row for row in d.rows(campaign)}
    accepted = d.accepted()
    assert len(rows) == found["total"] == PEOPLE == sum(found["counts"].values())
    assert max(accepted.values()) == 1
    by_state = {state: {p for p, row in rows.items() if row["state"] == state} for state in ("sent", "unknown")}
    assert by_state["sent"] | by_state["unknown"] == set(rows)
    assert by_state["sent"] <= set(accepted) <= set(rows)
    unknown = {openid for openid in by_state["unknown"] if rows[openid]["channel"] == "custom"}
    assert by_state["unknown"] == unknown
    least, most = edge.unknown
    if channel == "custom":
        assert least <= len(unknown) <= most
    else:  # its custom calls are refused, and only one of them can have been on the wire
        assert len(unknown) <= most
    if edge.place == "after_S":
        assert not unknown & set(accepted)
    if edge.place == "after_reply" and channel == "custom":
        assert unknown <= set(accepted)
