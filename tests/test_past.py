"""A store that comes back from a backup, and a state directory that was copied: nobody is sent to twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fanoutd import identity
from fanoutd.board import Board
from fanoutd.child import Child
from fanoutd.client import NoSuchCampaign, WrongState
from fanoutd.demo.audit import compare
from fanoutd.dispatcher.epoch import Epoch
from fanoutd.dispatcher.main import Dispatcher
from fanoutd.journal import adopt, in_use
from fanoutd.spool import Spool
from fanoutd.store import StoreAway, open_store
from fanoutd.store.schema import migrate
from support.bench import Bench, wait_for
from support.daemon import Daemon, follower

Make = Callable[..., Daemon]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Make]:
    made: list[Daemon] = []

    def make(followers: int, **options: Any) -> Daemon:
        folder = tmp_path / f"d{len(made)}"
        folder.mkdir()
        made.append(Daemon(folder, followers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def submit(d: Daemon, **params: Any) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", **params)["campaign"]
    return campaign


def stop(d: Daemon) -> None:
    d.process.terminate()
    assert d.process.wait(20) == 0


def back_up(d: Daemon, to: Path) -> None:
    """As an operator would: SQLite's own backup of the living store."""
    with closing(sqlite3.connect(d.folder / "state" / "fanoutd.db")) as link, closing(sqlite3.connect(to)) as copy:
        link.backup(copy)


def restore(d: Daemon, backup: Path) -> None:
    for name in ("fanoutd.db", "fanoutd.db-wal", "fanoutd.db-shm"):
        (d.folder / "state" / name).unlink(missing_ok=True)
    shutil.copy(backup, d.folder / "state" / "fanoutd.db")
    (d.folder / "state" / "fanoutd.db").chmod(0o600)


def started(d: Daemon, people: int) -> None:
    wait_for(lambda: sum(d.accepted().values()) >= people, f"{people} messages")


def test_a_store_from_the_past_stops_its_campaigns_and_repair_takes_the_rest_from_the_journals(
    daemon: Make, tmp_path: Path
) -> None:
    d = daemon(2000, latency="20ms", concurrency=8, no_window="0.3")
    campaign = submit(d)
    started(d, 300)
    back_up(d, tmp_path / "backup")
    started(d, 900)
    stop(d)
    before = d.accepted()
    restore(d, tmp_path / "backup")
    d.serve()
    found = d.until(campaign, "paused")
    assert "earlier state" in found["reason"] and "campaign repair" in found["reason"]
    for order in ("resume", "retry"):
        with pytest.raises(WrongState):
            d.call(f"campaign.{order}", campaign=campaign, **({"failed": True} if order == "retry" else {}))
    assert d.accepted() == before
    d.call("campaign.repair", campaign=campaign)
    last = d.until(campaign)
    audit = d.audit(campaign)
    assert (audit.twice, audit.forgotten, audit.untrue, last["counts"]["unknown"]) == ((), (), (), 0)
    told = [(each["action"], each["pid"]) for each in d.call("campaign.history", campaign=campaign)["events"]]
    assert told[:2] == [("submitted", os.getpid()), ("planned", None)]
    assert told[2:] == [("paused", None), ("repaired", os.getpid()), ("done", None)]


def test_a_worker_killed_before_the_restore_leaves_only_the_wire_unknown(daemon: Make, tmp_path: Path) -> None:
    d = daemon(2000, latency="20ms", concurrency=8)
    campaign = submit(d)
    started(d, 200)
    back_up(d, tmp_path / "backup")
    started(d, 600)
    d.kill_all()
    restore(d, tmp_path / "backup")
    d.serve()
    d.until(campaign, "paused")
    d.call("campaign.repair", campaign=campaign)
    last = d.until(campaign)
    audit = d.audit(campaign)
    assert (audit.twice, audit.forgotten, audit.untrue) == ((), (), ())
    assert last["counts"]["unknown"] <= 2 * 8


def test_a_campaign_that_was_not_planned_yet_when_the_backup_was_made_is_planned_and_mended(
    daemon: Make, tmp_path: Path
) -> None:
    d = daemon(1500, latency="20ms", concurrency=8)
    campaign = submit(d, send_at="2099-01-01T00:00:00+08:00")
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["state"] == "scheduled", "the store to have it")
    back_up(d, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup")) as link, link:  # as if it had been due just then
        link.execute("UPDATE fanout_campaign SET send_at = NULL, state = 'planning'")
    with closing(sqlite3.connect(d.folder / "state" / "fanoutd.db")) as link, link:
        link.execute("UPDATE fanout_campaign SET send_at = NULL, state = 'planning'")
    started(d, 500)
    stop(d)
    restore(d, tmp_path / "backup")
    # The table has changed meanwhile: people have other places in the new plan.
    with closing(sqlite3.connect(d.folder / "tp.db")) as link, link:
        link.execute("DELETE FROM tp_receiver WHERE openid = ?", (follower(3),))
        link.execute("CREATE TABLE turned AS SELECT * FROM tp_receiver ORDER BY openid DESC")
        link.execute("DELETE FROM tp_receiver")
        link.execute("INSERT INTO tp_receiver SELECT * FROM turned")
    d.serve()
    d.until(campaign, "paused")
    d.call("campaign.repair", campaign=campaign)
    last = d.until(campaign)
    accepted = d.accepted()
    assert max(accepted.values()) == 1
    assert len(accepted) >= 1499 and last["counts"]["unknown"] == 0 and last["total"] == 1499


def test_a_restart_a_reload_and_an_upgrade_are_no_travel_in_time(daemon: Make) -> None:
    d = daemon(400, latency="20ms", concurrency=4)
    campaign = submit(d)
    started(d, 50)
    d.kill_all()
    d.serve()
    started(d, 150)
    stop(d)
    d.serve()
    assert d.until(campaign)["state"] == "done"
    assert d.call("daemon.status")["node"] == identity.of(d.folder / "state").node


def test_a_copy_of_a_state_directory_sends_nothing_of_what_the_original_sends(daemon: Make, tmp_path: Path) -> None:
    d = daemon(1500, latency="20ms", concurrency=8)
    campaign = submit(d)
    later = submit(d, send_at="2099-01-01T00:00:00+08:00")
    started(d, 200)
    other = tmp_path / "other"
    shutil.copytree(d.folder, other, ignore=shutil.ignore_patterns("*.sock", "lock", "*.pid", "node.new"))
    copy = _of_copy(d, other)
    try:
        found = copy.until(campaign, "paused")
        assert "copy" in found["reason"] and "repair" in found["reason"]
        assert copy.call("campaign.get", campaign=later)["state"] == "paused"
        assert copy.call("daemon.status")["node"] != d.call("daemon.status")["node"]
        assert d.until(campaign)["counts"]["sent_custom"] == 1500
        assert d.audit(campaign).good  # by what both have sent
        own = submit(copy, openids=["oOFTHECOPY00000000000001"])
        assert copy.until(own)["counts"]["sent_custom"] == 1
        assert d.call("campaign.get", campaign=later)["state"] == "scheduled"
    finally:
        stop(copy)


def _of_copy(d: Daemon, folder: Path) -> Daemon:
    """A daemon beside the first, on the same sandbox."""
    copy = object.__new__(Daemon)
    copy.__dict__.update(d.__dict__)
    copy.folder, copy.socket, copy.config = folder, folder / "state" / "fanoutd.sock", folder / "fanoutd.toml"
    copy.config.write_text(d.config.read_text().replace(str(d.folder), str(folder)))
    copy.serve()
    return copy


def test_a_directory_that_was_moved_goes_on_after_repair_with_nobody_doubled(daemon: Make, tmp_path: Path) -> None:
    d = daemon(1500, latency="20ms", concurrency=8)
    campaign = submit(d)
    started(d, 300)
    stop(d)
    waiting = submit_offline(d)
    moved = tmp_path / "moved"
    shutil.copytree(d.folder, moved, ignore=shutil.ignore_patterns("*.sock"))
    copy = _of_copy(d, moved)
    try:
        copy.until(campaign, "paused")
        assert copy.call("campaign.get", campaign=waiting)["state"] == "paused"
        for each in (campaign, waiting):
            copy.call("campaign.repair", campaign=each)
        assert copy.until(campaign)["counts"]["unknown"] == 0
        copy.until(waiting)
        rows = copy.rows(campaign)
        ledger = copy.accepted()
        ledger.pop("oWAITING0000000000000001")
        assert compare((follower(i) for i in range(1500)), rows, ledger).good
    finally:
        stop(copy)


def test_what_is_repaired_in_a_moved_directory_is_planned_there_also_after_a_restart(
    daemon: Make, tmp_path: Path
) -> None:
    d = daemon(60)
    due = (datetime.now(UTC) + timedelta(seconds=12)).isoformat(timespec="seconds")
    campaign = submit(d, send_at=due)
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["state"] == "scheduled", "the store to have it")
    stop(d)
    moved = tmp_path / "moved"
    shutil.copytree(d.folder, moved, ignore=shutil.ignore_patterns("*.sock"))
    copy = _of_copy(d, moved)
    try:
        copy.until(campaign, "paused")
        assert copy.call("campaign.repair", campaign=campaign)["state"] == "scheduled"
        stop(copy)
        copy.serve()
        assert copy.until(campaign)["counts"]["sent_custom"] == 60
        assert copy.audit(campaign).good
    finally:
        stop(copy)


def test_a_copy_taken_while_a_campaign_was_paused_halfway_keeps_it_and_repair_ends_it(
    daemon: Make, tmp_path: Path
) -> None:
    d = daemon(800, latency="20ms", concurrency=8)
    campaign = submit(d)
    started(d, 200)
    d.call("campaign.pause", campaign=campaign)
    wait_for(lambda: d.call("daemon.status")["shards"]["leased"] == 0, "everything to be written down")
    before = d.accepted()
    copied = tmp_path / "copied"
    shutil.copytree(d.folder, copied, ignore=shutil.ignore_patterns("*.sock", "lock", "*.pid"))
    stop(d)
    copy = _of_copy(d, copied)
    try:
        found = copy.until(campaign, "paused")
        assert "copy" in found["reason"]
        with pytest.raises(WrongState):
            copy.call("campaign.resume", campaign=campaign)
        assert copy.accepted() == before
        copy.call("campaign.repair", campaign=campaign)
        assert copy.until(campaign)["counts"]["unknown"] == 0
        assert copy.audit(campaign).good
    finally:
        stop(copy)


def test_a_whole_directory_put_back_in_its_place_sends_nobody_twice(daemon: Make, tmp_path: Path) -> None:
    """Store, epoch, journals and name all come back from the same moment: only the name's file can tell."""
    d = daemon(1200, latency="20ms", concurrency=8)
    state = d.folder / "state"
    campaign = submit(d)
    started(d, 100)
    d.call("campaign.pause", campaign=campaign)
    stop(d)
    subprocess.run(["cp", "-a", str(state), str(tmp_path / "backup")], check=True)
    d.serve()
    d.call("campaign.resume", campaign=campaign)
    started(d, 500)
    stop(d)
    shutil.rmtree(state)
    subprocess.run(["cp", "-a", str(tmp_path / "backup"), str(state)], check=True)
    before = d.accepted()
    d.serve()
    found = d.until(campaign, "paused")
    assert "copy" in found["reason"]
    with pytest.raises(WrongState):
        d.call("campaign.resume", campaign=campaign)
    assert d.accepted() == before


def test_a_backup_from_before_the_campaign_forgets_it_and_its_key_still_sends_nobody_twice(
    daemon: Make, tmp_path: Path
) -> None:
    d = daemon(400, latency="20ms", concurrency=8)
    d.until(submit(d, openids=["oFIRST000000000000000001"]))
    back_up(d, tmp_path / "backup")
    lost = submit(d, key="the one")
    started(d, 100)
    stop(d)
    before = d.accepted()
    restore(d, tmp_path / "backup")
    d.serve()
    again = d.call("campaign.submit", content="hello", phone="1", key="the one")
    assert (again["campaign"], again["duplicate"]) == (lost, True)
    with pytest.raises(NoSuchCampaign):
        d.call("campaign.get", campaign=lost)
    own = submit(d, openids=["oOTHER000000000000000001"])
    assert d.until(own)["counts"]["sent_custom"] == 1
    assert d.accepted() - before == {"oOTHER000000000000000001": 1}


def test_a_campaign_half_planned_in_the_backup_is_planned_to_its_end_and_mended(daemon: Make, tmp_path: Path) -> None:
    once = {"FANOUTD_FAIL": "mid_plan@3", "FANOUTD_FAIL_ONCE": str(tmp_path / "died")}
    d = daemon(1000, latency="20ms", concurrency=8, environ=once)
    backup = tmp_path / "backup"
    campaign = submit(d)
    wait_for((tmp_path / "died").exists, "a plan that is cut off")
    back_up(d, backup)
    with closing(sqlite3.connect(backup)) as link:  # the next dispatcher may have been faster
        if link.execute("SELECT planned FROM fanout_campaign").fetchone()[0]:
            with link:
                link.execute("UPDATE fanout_campaign SET planned = 0")
                link.execute("DELETE FROM fanout_delivery WHERE shard > 3")
                link.execute("DELETE FROM fanout_shard WHERE id > 3")
    started(d, 600)
    stop(d)
    restore(d, backup)
    d.serve()
    d.until(campaign, "paused")
    d.call("campaign.repair", campaign=campaign)
    last = d.until(campaign)
    audit = d.audit(campaign)
    assert (audit.twice, audit.forgotten, audit.untrue, last["counts"]["unknown"]) == ((), (), (), 0)


def test_what_asks_for_something_not_configured_is_repaired_when_it_is_back(daemon: Make) -> None:
    d = daemon(0)
    stop(d)
    configured = d.config.read_text()
    d.config.write_text(configured.replace("[message.supply", "[message.other"))
    state = d.folder / "state"
    spool = Spool(state / "spool")
    spool.prepare()
    document = {
        "v": 1, "campaign": "c-undefined", "at": 1, "account": "main", "message": "supply", "audience": None,
        "reference": None, "key": None, "send_at": None, "openids": ["oLISTED00000000000000001"], "content": "x",
        "phone": "1", "data": {}, "page": None, "page_size": 500,
    }  # fmt: skip
    spool.accept(document, keyed=False)
    (state / "epoch").touch()
    (state / "node").unlink()  # as of a copy
    d.serve()
    d.until("c-undefined", "paused")
    with pytest.raises(WrongState, match="not configured"):
        d.call("campaign.repair", campaign="c-undefined")
    d.config.write_text(configured)
    d.call("daemon.reload")
    d.call("campaign.repair", campaign="c-undefined")
    assert d.until("c-undefined")["counts"]["sent_custom"] == 1


def test_nothing_is_done_before_it_is_known_whether_the_store_is_to_be_trusted(tmp_path: Path) -> None:
    """A store that is away while a copy stops its campaigns: asked again, and until then nobody is sent to."""
    b = Bench(tmp_path)
    ours, theirs = socket.socketpair()
    try:
        b.campaign(3)
        (b.journals.parent / "epoch").touch()
        Spool(b.journals.parent / "spool").prepare()
        away = StoreAway("locked")
        d = Dispatcher(Child("dispatcher", 1, 1, b.config, "node1", theirs, Board(2), 1, os.getppid()))
        with (
            mock.patch(
                "fanoutd.dispatcher.trust.commands.pause_unfinished", side_effect=[away, away, KeyboardInterrupt]
            ) as stopped,
            pytest.raises(KeyboardInterrupt),  # in its third try the process ends
        ):
            d._start()
        assert stopped.call_count == 3 and not d._trust.given.is_set()
        d._start()
        assert d._trust.given.is_set() and b.state() == "paused"
    finally:
        ours.close()
        theirs.close()
        b.close()


def test_limits_that_could_not_be_written_at_the_start_are_written_by_the_next_sweep(tmp_path: Path) -> None:
    """Else those of an earlier configuration would be in force until the next one."""
    b = Bench(tmp_path)
    ours, theirs = socket.socketpair()
    try:
        Spool(b.journals.parent / "spool").prepare()
        d = Dispatcher(Child("dispatcher", 1, 1, b.config, "node1", theirs, Board(2), 1, os.getppid()))
        away = StoreAway("the connection was lost")
        with mock.patch.object(d._limits, "start", side_effect=[away, None]) as begun:
            for step in (d._start, d._sweep, d._sweep):
                d._threads.guarded(step)
        assert begun.call_count == 2
    finally:
        ours.close()
        theirs.close()
        b.close()


def submit_offline(d: Daemon) -> str:
    """A submission that was accepted and not imported when its daemon stopped: it lies in the spool."""
    d.serve()
    dispatcher = d.dispatcher()
    os.kill(dispatcher, signal.SIGSTOP)
    campaign = submit(d, openids=["oWAITING0000000000000001"])
    for pid in (d.process.pid, dispatcher):
        os.kill(pid, signal.SIGKILL)
    d.process.wait()
    wait_for(lambda: not in_use(d.folder / "state" / "journals") or _free(d), "the workers' end")
    return campaign


def _free(d: Daemon) -> bool:
    """The workers have seen their master's end, and have gone."""
    found = [adopt(path) for path in in_use(d.folder / "state" / "journals")]
    for each in found:
        if each is not None:
            each.close()
    return None not in found


# ---- the parts


def test_an_epoch_that_went_back_is_told_and_one_that_a_crash_kept_from_the_file_is_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with closing(open_store(url)) as db:
        migrate(db)
        epoch = Epoch(tmp_path, "n1", url)
        assert not epoch.went_back(db)  # a new one
        epoch.advance(db)
        file = (tmp_path / "epoch").read_text()
        epoch.advance(db)
        assert not epoch.went_back(db)
        (tmp_path / "epoch").write_text(file)  # killed between store and file
        assert not epoch.went_back(db)
        epoch.advance(db)
        assert not epoch.went_back(db)
        with db.transaction():
            db.execute("UPDATE fanout_meta SET value = '1' WHERE name = 'epoch:n1'")
        assert epoch.went_back(db)
        assert not epoch.advance(db) and epoch.went_back(db), "whoever has not looked covers it up"
        assert epoch.advance(db, anew=True)
        assert not epoch.went_back(db)
        assert not Epoch(tmp_path, "n1", url + "x").went_back(db)  # another store has no past with us
        (tmp_path / "epoch").write_text("")
        assert not epoch.went_back(db)


def test_a_directory_knows_itself_when_it_is_renamed_and_not_when_it_is_copied(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    first = identity.of(state)
    assert identity.of(state) == first and not first.copied
    renamed = state.rename(tmp_path / "renamed")
    assert identity.of(renamed) == first
    shutil.copytree(renamed, tmp_path / "copy")
    copy = identity.of(tmp_path / "copy")
    assert copy.copied and copy.node != first.node and identity.of(tmp_path / "copy") == copy
    identity.seen_to(tmp_path / "copy")
    assert identity.of(tmp_path / "copy") == identity.Identity(copy.node)
    (renamed / "node").write_text("{")
    assert not identity.of(renamed).copied


def test_a_directory_that_was_put_back_in_its_own_place_is_found_out_though_its_inode_is_used_again(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    first = identity.of(state)
    file = state / "node"
    said = json.loads(file.read_text())
    if "generation" not in said:
        pytest.skip("this file system tells no generations")
    # As on ext4, which hands out the number of the file that has just been removed.
    said["generation"] ^= 1
    file.write_text(json.dumps(said))
    assert said["inode"] == file.stat().st_ino
    back = identity.of(state)
    assert back.copied and back.node != first.node


def test_a_directory_without_a_name_in_which_a_daemon_has_run_is_taken_for_a_copy(tmp_path: Path) -> None:
    assert not identity.of(tmp_path).copied
    (tmp_path / "epoch").touch()
    for damage in ("", "{", "[]"):
        (tmp_path / "node").write_text(damage)
        assert identity.of(tmp_path).copied
        identity.seen_to(tmp_path)
        assert not identity.of(tmp_path).copied
    (tmp_path / "node").unlink()
    assert identity.of(tmp_path).copied


def test_a_name_from_where_generations_are_not_told_is_known_by_its_inode(tmp_path: Path) -> None:
    first = identity.of(tmp_path)
    said = json.loads((tmp_path / "node").read_text())
    said.pop("generation", None)
    (tmp_path / "node").write_text(json.dumps(said))
    assert identity.of(tmp_path) == first
