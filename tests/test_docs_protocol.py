"""docs/protocol.md against the code: every method, its parameters and every key of the objects has its place."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.master import rpc
from fanoutd.master.carried import CARRIED, DELIVERY_STATES
from fanoutd.master.signals import MANAGED
from fanoutd.master.submission import PARAMS
from support.bench import wait_for
from support.daemon import Daemon

DOCS = Path(__file__).parent.parent / "docs"
NAME = "docs/protocol.md"
TEXT = (DOCS / "protocol.md").read_text(encoding="utf-8")

#: Objects whose keys are data: channels, errcodes.
OPEN = ("accounts[].quota", "errors", "mail")


def methods() -> set[str]:
    """Of the tables of methods: ``a.b`` `.c` is a.b and a.c; and of running text."""
    found: set[str] = set()
    for line in re.findall(r"^\| (`[a-z]+\.[^|]*) \|", TEXT, re.MULTILINE):
        names = re.findall(r"`([a-z_.]+)`", line)
        family = names[0].partition(".")[0]
        found |= {each if not each.startswith(".") else family + each for each in names}
    return found


def test_every_method_stands_there() -> None:
    there = methods() | set(re.findall(r"`((?:daemon|mail)\.[a-z]+)`", TEXT))
    lacking: set[str] = CARRIED.keys() - there
    assert not lacking, f"{NAME} lacks {', '.join(sorted(lacking))}"


def test_every_param_of_a_submission_stands_there() -> None:
    assert documented("whatever else is away. What needs the store waits up to 5 s for it, then −32005.") == set(PARAMS)


def test_every_error_stands_there() -> None:
    codes = [value for name, value in vars(rpc).items() if name.isupper() and isinstance(value, int) and value < 0]
    assert len(codes) == 10
    for code in codes:
        assert f"−{-code}" in TEXT, f"{NAME} lacks {code}"
    for state in DELIVERY_STATES:
        assert f"`{state}`" in TEXT


def test_every_signal_stands_there() -> None:
    text = (DOCS / "signals.md").read_text(encoding="utf-8")
    table = ", ".join(re.findall(r"^\| ([A-Z]{3}[A-Z0-9, ]*) \|", text, re.MULTILINE)).split(", ")
    assert sorted(table) == sorted(each.name.removeprefix("SIG") for each in MANAGED - {signal.SIGCHLD})


def paths(value: Any, under: str = "") -> Iterator[str]:
    """``accounts[].token.ok`` and so on."""
    if isinstance(value, dict) and under not in OPEN:
        for key, each in value.items():
            yield from paths(each, f"{under}.{key}" if under else key)
    elif isinstance(value, list):  # a mark for an empty one
        yield from (path for each in value or [{"*": None}] for path in paths(each, under + "[]"))
    else:
        yield under


def documented(before: str) -> set[str]:
    """The keys of the table that follows these words."""
    table = TEXT.partition(before)[2].strip().partition("\n\n")[0]
    assert table, before
    first = (line.strip("|").split(" | ")[0] for line in table.splitlines())
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("protocol"), 1, workers=1)
    yield daemon
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0
    daemon.sandbox.close()


def test_every_key_of_the_objects_stands_there(daemon: Daemon) -> None:
    campaign = daemon.until(daemon.call("campaign.submit", content="x", phone="1")["campaign"])
    assert set(paths(campaign)) == documented("The campaign object, of `campaign.get`, `.list`, `.watch`:")

    def whole() -> dict[str, Any] | None:
        status: dict[str, Any] = daemon.call("daemon.status")
        return status if status["accounts"] and status["nodes"] and status["workers"] else None

    there = set(paths(wait_for(whole, "the dispatcher's part")))
    known = documented("The status object, of `daemon.status`:")
    for empty in [each for each in there if each.endswith("[].*")]:
        there -= {empty}
        known -= {each for each in known if each.startswith(empty.removesuffix("*"))}
    assert not there - known, f"{NAME} lacks {', '.join(sorted(there - known))} of the status"
    assert not known - there, f"{NAME} has {', '.join(sorted(known - there))}, which no status has"
