"""Lists longer than a line: parts that were acknowledged are in it, whole, and nothing else; memory stays flat."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import Unreachable
from fanoutd.spool import Spool, accept
from fanoutd.uploads import UNUSED, UnknownUpload, Uploads
from support.bench import person, wait_for
from support.daemon import Daemon
from support.master import MasterProcess, running

PARTS = [[person(i) for i in range(first, first + 5)] for first in range(0, 30, 5)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


def uploaded(uploads: Uploads, parts: list[list[str]] = PARTS) -> str:
    name = None
    for part in parts:
        name, _ = uploads.add(name, part)
    assert name is not None
    return name


def document(campaign: str, upload: str | None) -> dict[str, Any]:
    return {"v": 1, "campaign": campaign, "key": None, "openids": None, "upload": upload}


def everybody(parts: list[list[str]]) -> list[str]:
    return [openid for part in parts for openid in part]


def test_parts_come_back_in_their_order_and_are_counted(spool: Spool) -> None:
    name, count = spool.uploads.add(None, PARTS[0])
    assert (count, spool.uploads.add(name, PARTS[1])) == (5, (name, 10))
    assert list(spool.uploads.people(name, "c-1")) == everybody(PARTS[:2])


def test_a_part_that_was_torn_anywhere_is_cut_off_and_the_next_one_follows_the_last_whole_one(spool: Spool) -> None:
    name = uploaded(spool.uploads, PARTS[:2])
    file = spool.path / "uploads" / name
    before = file.stat().st_size
    spool.uploads.add(name, PARTS[2])
    whole = file.read_bytes()
    for size in range(before, len(whole)):
        file.write_bytes(whole[:size])
        assert list(spool.uploads.people(name, "c-1")) == everybody(PARTS[:2])
        assert spool.uploads.add(name, PARTS[3]) == (name, 15)
        assert list(spool.uploads.people(name, "c-1")) == everybody([*PARTS[:2], PARTS[3]])


def test_what_a_power_cut_may_leave_behind_is_cut_off_too(spool: Spool) -> None:
    name = uploaded(spool.uploads, PARTS[:2])
    with (spool.path / "uploads" / name).open("ab") as file:
        file.write(b"\0" * 100_000 + b"\n=99 3\n")
    assert list(spool.uploads.people(name, "c-1")) == everybody(PARTS[:2])
    assert spool.uploads.add(name, PARTS[2])[1] == 15


def test_a_disk_that_takes_half_a_part_leaves_the_list_as_it_was(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uploaded(spool.uploads, PARTS[:1])
    real = os.pwrite

    def full(fd: int, data: bytes, at: int) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) // 2], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            spool.uploads.add(name, PARTS[1])
    assert list(spool.uploads.people(name, "c-1")) == PARTS[0]
    assert spool.uploads.add(name, PARTS[1])[1] == 10


def test_one_that_a_campaign_has_does_not_expire_takes_nobody_more_and_goes_with_the_plan(spool: Spool) -> None:
    name = uploaded(spool.uploads)
    accept(spool, document("c-1", name), keyed=False)
    assert spool.uploads.expire(time.time() + 2 * UNUSED) == 0
    assert list(spool.people(document("c-1", name))) == everybody(PARTS)
    with pytest.raises(UnknownUpload, match=name):
        spool.uploads.add(name, PARTS[0])
    spool.prepare()
    assert list(spool.people(document("c-1", name))) == everybody(PARTS)
    spool.remove("c-1")
    assert not list((spool.path / "lists").iterdir())


def test_after_a_crash_between_list_and_document_it_may_be_given_again_but_not_grow_meanwhile(spool: Spool) -> None:
    name = uploaded(spool.uploads)
    spool.uploads.bind(name, "c-1")
    with pytest.raises(UnknownUpload, match="was given to a campaign"):
        spool.uploads.add(name, PARTS[0])
    spool.prepare()  # nobody was told that c-1 was accepted
    assert not list((spool.path / "lists").iterdir())
    accept(spool, document("c-2", name), keyed=False)
    assert list(spool.people(document("c-2", name))) == everybody(PARTS)


def test_a_submission_that_the_disk_refuses_leaves_the_upload_to_be_given_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uploaded(spool.uploads)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            accept(spool, document("c-1", name), keyed=False)
    assert not list((spool.path / "lists").iterdir())
    assert spool.uploads.add(name, PARTS[0])[1] == 35


@pytest.mark.parametrize("name", ["u-" + "0" * 20, "../new/c-1", "", "u-1"])
def test_one_that_is_not_there_is_named(spool: Spool, name: str) -> None:
    for use in (lambda: spool.uploads.add(name or "u-x", ["o12345"]), lambda: spool.uploads.bind(name, "c-1")):
        with pytest.raises(UnknownUpload, match="there is no upload"):
            use()


def test_an_hour_without_use_drops_it_and_a_part_is_a_use(spool: Spool) -> None:
    old, used = uploaded(spool.uploads), uploaded(spool.uploads)
    for name in (old, used):
        os.utime(spool.path / "uploads" / name, (time.time() - UNUSED + 60,) * 2)
    spool.uploads.add(used, PARTS[0])
    assert spool.uploads.expire(time.time() + 61) == 1
    assert spool.uploads.add(used, PARTS[0])[1] == 40
    os.utime(spool.path / "uploads" / used, (time.time() - UNUSED - 1,) * 2)  # nobody has swept yet
    with pytest.raises(UnknownUpload):
        spool.uploads.add(used, PARTS[0])
    with pytest.raises(UnknownUpload):
        spool.uploads.add(old, PARTS[0])


WRITER = """
import sys
from pathlib import Path
from fanoutd.uploads import Uploads
uploads = Uploads(Path(sys.argv[1]))
name = None
for n in range(100000):
    name, count = uploads.add(name, [f"oKILL{n:03d}{i:05d}" for i in range(20000)])
    print(name, count, flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_kill_loses_no_part_that_was_acknowledged_and_leaves_no_half_one(spool: Spool, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(spool.path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline().split() for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    said += [line.split() for line in writer.stdout.read().splitlines()]
    writer.stdout.close()
    writer.wait()
    name, acknowledged = said[-1][0], int(said[-1][1])
    count = sum(1 for _ in spool.uploads.people(name, "c-1"))
    assert count in (acknowledged, acknowledged + 20000)
    assert spool.uploads.add(name, ["o12345"])[1] == count + 1


def test_a_long_list_is_read_in_the_memory_of_one_part(spool: Spool) -> None:
    name = uploaded(spool.uploads, [[person(i) for i in range(n, n + 5000)] for n in range(0, 200_000, 5000)])
    tracemalloc.start()
    assert sum(1 for _ in spool.uploads.people(name, "c-1")) == 200_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


# ---- on the socket


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    with running(tmp_path_factory.mktemp("master")) as found:
        yield found


def test_an_upload_goes_on_after_the_master_was_killed_between_two_parts(tmp_path: Path) -> None:
    with running(tmp_path) as master:
        first = master.result("audience.upload", openids=PARTS[0])
        assert first["count"] == 5
        master.signal(signal.SIGKILL)
        master.restart()
        again = master.result("audience.upload", upload=first["upload"], openids=PARTS[1])
        assert again == {"upload": first["upload"], "count": 10}
        campaign = master.result("campaign.submit", message="supply", content="x", upload=first["upload"])["campaign"]
        assert master.spooled()[campaign]["upload"] == first["upload"]
        spool = Spool(tmp_path / "state" / "spool")
        assert list(spool.people(master.spooled()[campaign])) == everybody(PARTS[:2])


@pytest.mark.parametrize(("params", "field"), [
    ({"openids": []}, "openids"), ({"openids": ["o12345", "x"]}, "openids[1]"), ({}, "openids"),
    ({"openids": ["o12345"], "upload": "u-1"}, "upload"), ({"openids": ["o12345"], "upload": 5}, "upload"),
    ({"openids": ["o12345"], "upload": "u-" + "0" * 20}, "upload"), ({"openids": ["o12345"], "more": 1}, "more"),
])
def test_a_part_that_cannot_be_taken_names_its_field(master: MasterProcess, params: dict[str, Any], field: str) -> None:
    error = master.error("audience.upload", **params)
    assert (error["code"], error["data"]) == (-32602, {"field": field})


def test_a_submission_that_names_no_upload_is_refused_and_nothing_kept(master: MasterProcess) -> None:
    gone = "u-" + "1" * 20
    error = master.error("campaign.submit", message="supply", content="x", upload=gone)
    assert error["code"] == -32602 and error["data"] == {"field": "upload"} and gone in error["message"]
    assert not master.spooled()
    assert not list((master.folder / "state" / "spool" / "lists").iterdir())


def test_a_repeat_under_the_same_key_is_a_duplicate_and_needs_no_upload(master: MasterProcess) -> None:
    name = master.result("audience.upload", openids=PARTS[0])["upload"]
    one = master.result("campaign.submit", message="supply", content="x", upload=name, key="order")
    two = master.result("campaign.submit", message="supply", content="x", upload=name, key="order")
    assert (one["duplicate"], two) == (False, {"campaign": one["campaign"], "duplicate": True})


# ---- from the command line


def send(config: Path, list_: Path) -> tuple[str, int]:
    """(the campaign, KiB that the command took at most)."""
    with list_.open("rb") as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "fanoutd", "-c", str(config), "send", "x", "--message", "supply", "--openids", "-"],
            stdin=stdin, stdout=subprocess.PIPE, text=True,
        )
        assert process.stdout is not None
        campaign = process.stdout.read().strip()
        process.stdout.close()
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return campaign, used.ru_maxrss


def test_the_command_line_takes_any_number_in_flat_memory_and_so_does_the_master(tmp_path: Path) -> None:
    with running(tmp_path) as master:
        few, many = tmp_path / "few", tmp_path / "many"
        few.write_text("".join(f"{person(i)}\n" for i in range(20_000)))
        many.write_text("".join(f"{person(i)}\n" for i in range(300_000)))
        _, less = send(master.config_file, few)
        before = _resident(master.process.pid)
        campaign, more = send(master.config_file, many)
        spool = Spool(tmp_path / "state" / "spool")
        found = spool.people(master.spooled()[campaign])
        assert all(openid == person(i) for i, openid in enumerate(found))
        assert sum(1 for _ in spool.people(master.spooled()[campaign])) == 300_000
        assert more < less + 3 * 1024, "the list of people was kept in memory"
        assert _resident(master.process.pid) < before + (4 << 20)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_list_of_several_parts_is_sent_to_once_each_and_its_file_goes(tmp_path: Path) -> None:
    d = Daemon(tmp_path)
    try:
        people = [person(i) for i in range(10_500)]
        text = "openid\n" + "".join(f"{openid}\n" for openid in [*people, *people[:100]])
        done = d.cli("send", "x", "--phone", "1", "--openids", "-", "--wait", "--json", text=text)
        assert done.returncode == 0, done.stderr
        campaign = d.campaigns()[0]
        assert (campaign["total"], campaign["counts"]["sent_custom"], campaign["audience"]) == (10_500, 10_500, None)
        assert d.accepted() == dict.fromkeys(people, 1)
        spool = tmp_path / "state" / "spool"
        assert not [*(spool / "lists").iterdir(), *(spool / "uploads").iterdir(), *(spool / "new").iterdir()]
    finally:
        d.close()


def test_a_dispatcher_that_dies_while_it_plans_an_upload_plans_the_rest(tmp_path: Path) -> None:
    environ = {"FANOUTD_FAIL": "mid_plan@20", "FANOUTD_FAIL_ONCE": str(tmp_path / "once")}
    d = Daemon(tmp_path, environ=environ)
    try:
        people = [person(i) for i in range(3_000)]
        upload = d.call("audience.upload", openids=people[:1500])["upload"]
        d.call("audience.upload", upload=upload, openids=people[1500:])
        campaign = d.call("campaign.submit", content="x", phone="1", upload=upload)["campaign"]
        assert d.until(campaign)["total"] == 3_000
        assert (tmp_path / "once").exists()
        assert d.accepted() == dict.fromkeys(people, 1)
    finally:
        d.close()


def test_a_test_is_a_campaign_of_its_own_with_one_person(tmp_path: Path) -> None:
    d = Daemon(tmp_path, followers=3)
    try:
        done = d.cli("send", "x", "--phone", "1", "--test", person(7), "--wait")
        assert done.returncode == 0, done.stderr
        assert d.accepted() == {person(7): 1}
        campaign = d.campaigns()[0]
        assert (campaign["total"], campaign["audience"], campaign["state"]) == (1, None, "done")
    finally:
        d.close()


@pytest.mark.parametrize(("place", "kept"), [("before_accept", False), ("after_accept", True)])
def test_a_master_that_dies_as_it_accepts_an_upload_has_all_of_it_or_leaves_it(
    tmp_path: Path, place: str, kept: bool
) -> None:
    d = Daemon(tmp_path, environ={"FANOUTD_FAIL": place, "FANOUTD_FAIL_ONCE": str(tmp_path / "once")})
    try:
        people = [person(i) for i in range(300)]
        upload = d.call("audience.upload", openids=people[:200])["upload"]
        d.call("audience.upload", upload=upload, openids=people[200:])
        with pytest.raises(Unreachable):
            d.call("campaign.submit", content="x", phone="1", upload=upload)
        d.process.wait(10)
        d.serve()
        if not kept:
            assert d.campaigns() == [] and not list((tmp_path / "state" / "spool" / "lists").iterdir())
            d.call("campaign.submit", content="x", phone="1", upload=upload)
        (campaign,) = wait_for(d.campaigns, "the campaign")
        assert d.until(campaign["id"])["total"] == 300
        assert d.accepted() == dict.fromkeys(people, 1)
    finally:
        d.close()
