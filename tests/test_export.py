"""`campaign export`: exact in jsonl, reversible and harmless in csv, whole or an error."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.cli import export
from fanoutd.client import Unreachable
from fanoutd.dispatcher.queries import deliveries
from fanoutd.outcome import State
from fanoutd.store import campaigns, counters, open_store, shards
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.shards import Planned
from support.bench import wait_for
from support.daemon import Daemon, follower

PEOPLE = 20_000


def row(openid: str, **more: Any) -> dict[str, Any]:
    return {"openid": openid, "state": "failed", "channel": "custom", "errcode": "-1", "msgid": None, "attempts": 2,
            "updated_at": "2026-01-02T07:04:05.000+00:00", **more}  # fmt: skip


# ---- cells


@given(st.text(max_size=30), st.sampled_from(export.COLUMNS))
def test_no_cell_is_a_formula_and_each_gives_its_value_back(text: str, column: str) -> None:
    shown = export.cell(column, text)
    if column == "errcode":
        assert shown == text
    else:
        assert shown[:1] not in tuple("=+-@\t\r\n＝＋－＠")
        assert (shown[1:] if shown.startswith("'") else shown) == text


def test_a_page_in_both_formats() -> None:
    page = [row("=cmd|' /C calc'!A0"), row("-oDASHED001"), row("oPLAIN0001", errcode=None), row('a,"b"\r\n＝1')]
    table = list(csv.reader(io.StringIO(export._csv(page).decode(), newline="")))
    assert [each[0] for each in table] == ["'=cmd|' /C calc'!A0", "'-oDASHED001", "oPLAIN0001", 'a,"b"\r\n＝1']
    assert [each[3] for each in table] == ["-1", "-1", "", "-1"] and table[0][4] == ""
    assert [json.loads(line) for line in export._jsonl(page).decode().splitlines()] == page


# ---- a daemon that goes away


class _Gone:
    """A connection of which the daemon hangs up after so many answers."""

    def __init__(self, answers: int) -> None:
        self.left = answers

    def call(self, method: str, **_params: Any) -> Any:
        if self.left == 0:
            raise Unreachable("hung up")
        self.left -= 1
        return method

    def close(self) -> None:
        pass


def test_a_daemon_that_was_there_is_waited_for_and_one_that_never_was_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_AGAIN", 0.01)
    later: Iterator[_Gone] = iter([_Gone(0), _Gone(1)])
    monkeypatch.setattr(export, "Client", lambda *_: next(later))
    source = export._Source(_Gone(1), "x")  # type: ignore[arg-type]
    assert (source.call("a"), source.call("b")) == ("a", "b")  # over two connections that were lost
    monkeypatch.setattr(export, "PATIENCE", 0.05)
    monkeypatch.setattr(export, "Client", lambda *_: _Gone(0))
    with pytest.raises(Unreachable, match="is not all"):
        source.call("c")
    monkeypatch.setattr(export, "PATIENCE", 600.0)
    with pytest.raises(Unreachable, match=r"^hung up$"):
        export._Source(_Gone(0), "x").call("a")  # type: ignore[arg-type]


# ---- pages


def test_pages_of_any_size_have_everybody_once_in_order_and_a_state_reads_only_shards_that_have_it(
    tmp_path: Path
) -> None:
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as db:
        migrate(db)
        c = Campaign("c-1", "main", "m", None, None, None, "done", None, None, 1, None, 1, 1, True, "n1", "list", {})
        with db.transaction():
            campaigns.insert(db, c)
            for index, first in enumerate(range(0, PEOPLE, 999)):
                some = [Planned(follower(i)) for i in range(first, min(PEOPLE, first + 999))]
                shards.add(db, "c-1", index, some)
            db.execute("UPDATE fanout_delivery SET state = %s WHERE pos IN (0, 500, 998)", State.UNKNOWN)
            for (shard,) in db.rows("SELECT id FROM fanout_shard"):
                counters.recount(db, shard)
        for limit, state, wanted in (
            (1000, None, range(PEOPLE)), (997, None, range(PEOPLE)), (1000, "sent", ()),
            (7, "unknown", (i for i in range(PEOPLE) if i % 999 in (0, 500, 998))),
        ):  # fmt: skip
            found: list[str] = []
            after = None
            while True:
                page = deliveries(db, c, {"limit": limit, "after": after, "state": state})
                assert len(page["rows"]) <= limit
                found += [each["openid"] for each in page["rows"]]
                if (after := page["next"]) is None:
                    break
            assert found == [follower(i) for i in wanted]


# ---- the command


def test_an_export_outlives_the_daemons_restart_and_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    d = Daemon(tmp_path, PEOPLE, rate=20)
    try:
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        wait_for(lambda: d.call("campaign.get", campaign=campaign)["total"] == PEOPLE, "everybody to be planned", 60)
        d.call("campaign.pause", campaign=campaign)
        command = [sys.executable, "-m", "fanoutd", "-c", str(d.config), "campaign", "export", campaign]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            assert reader.stdout and reader.stderr
            head = os.read(reader.stdout.fileno(), 1000)  # the rest fills the pipe, and it waits
            d.process.kill()
            d.process.wait(20)
            d.serve()
            lines = (head + reader.stdout.read()).decode().splitlines()
            assert (reader.wait(60), reader.stderr.read()) == (0, b"")
        assert [line.partition(",")[0] for line in lines] == ["openid", *(follower(i) for i in range(PEOPLE))]

        file = tmp_path / "people.jsonl"
        file.write_text("older")
        made = d.cli("campaign", "export", campaign, "--format", "jsonl", "--output", str(file))
        assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
        found = [json.loads(line) for line in file.read_text().splitlines()]
        assert [each["openid"] for each in found] == [follower(i) for i in range(PEOPLE)]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert d.cli("campaign", "export", "c-none", "--output", str(tmp_path / "none")).returncode == 65
        refused = d.cli("campaign", "export", campaign, "--output", str(tmp_path / "no" / "where"))
        assert refused.returncode == 1 and "No such file" in refused.stderr and refused.stderr.count("\n") == 1
        full = subprocess.run([*command, "--state", "pending"], stdout=open("/dev/full", "wb"), stderr=subprocess.PIPE)  # noqa: SIM115
        assert full.returncode == 1 and full.stderr.decode().count("\n") == 1 and b"No space left" in full.stderr
        assert not [each for each in tmp_path.iterdir() if each.name.startswith(".") or each.name == "none"]
    finally:
        d.close()


def test_on_a_terminal_it_shows_how_far_it_is_and_wipes_that_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "_SHOWN", 0.0)
    for terminal, shown in (True, "\r\x1b[K1,000 of 2,500 people\r\x1b[K2,500 of 2,500 people\r\x1b[K"), (False, ""):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with export._progress(2500) as count:
            assert (count(1000), count(1500)) == (1000, 2500)
        assert capsys.readouterr() == ("", shown)
