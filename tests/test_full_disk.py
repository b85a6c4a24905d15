"""A spool whose disk refuses: submissions are refused in words, nothing is kept by half, and work goes on after."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanoutd.ids import keyed_campaign_id
from fanoutd.spool import Spool
from support import disk
from support.abuse import SUBMIT, Abused

needs_disk = pytest.mark.skipif(not disk.available(), reason="needs root or user namespaces for a disk of its own")


def submit(master: Abused, **params: Any) -> Any:
    """The whole answer."""
    return master.ask("campaign.submit", **{"content": "x", "message": "supply", **params})


def refusal(master: Abused, **params: Any) -> str:
    error = submit(master, **params)["error"]
    assert error["code"] == -32005
    return str(error["message"])


def kept(spool: Path) -> dict[str, set[str]]:
    return {name: {file.name for file in (spool / name).iterdir()} for name in ("tmp", "new", "keys", "bad")}


@needs_disk
@pytest.mark.parametrize("options", ["size=64k", "nr_inodes=20", "nr_inodes=21"])
def test_a_full_disk_keeps_what_it_has_and_nothing_by_half(tmp_path: Path, options: str) -> None:
    folder = tmp_path / "state" / "spool"
    with Abused(tmp_path, disk.mounted(folder, options)) as master:
        spool = disk.seen_by(master.ready().process.pid, folder)
        accepted: set[str] = set()
        while "result" in (answer := submit(master, key=f"order-{len(accepted)}")):
            assert answer["result"]["duplicate"] is False
            accepted.add(answer["result"]["campaign"])
        assert "No space left on device" in refusal(master, key=f"order-{len(accepted)}")
        while "result" in (answer := submit(master)):  # there may be room for one without a marker
            accepted.add(answer["result"]["campaign"])
        keyed = {campaign for campaign in accepted if campaign.startswith("k-")}
        assert len(keyed) >= 5
        assert kept(spool) == {"tmp": set(), "new": accepted, "keys": keyed, "bad": set()}
        refused = keyed_campaign_id("main", f"order-{len(keyed)}")
        for campaign in list(accepted)[:3]:
            (spool / "new" / campaign).unlink()  # as the dispatcher does
        assert submit(master, key=f"order-{len(keyed)}")["result"] == {"campaign": refused, "duplicate": False}
        assert submit(master, key=f"order-{len(keyed)}")["result"]["duplicate"] is True
        assert "Traceback" not in master.log()


@needs_disk
def test_a_disk_that_becomes_read_only_and_writable_again(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "spool"
    with Abused(tmp_path, disk.mounted(folder, "size=1m")) as master:
        pid = master.ready().process.pid
        disk.make_writable(pid, folder, False)
        assert "Read-only file system" in refusal(master, key="order")
        disk.make_writable(pid, folder, True)
        assert submit(master, key="order")["result"]["duplicate"] is False
        assert kept(disk.seen_by(pid, folder))["tmp"] == set()


#: Root too is refused by a folder's mode then.
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@pytest.mark.parametrize("name", ["tmp", "new", "keys"])
def test_a_folder_that_may_not_be_written(tmp_path: Path, name: str) -> None:
    with Abused(tmp_path, AS_ANYBODY) as master:
        spool = master.ready().folder / "state" / "spool"
        (spool / name).chmod(0o500)
        assert "Permission denied" in refusal(master, key="order")
        (spool / name).chmod(0o700)
        assert kept(spool) == {"tmp": set(), "new": set(), "keys": set(), "bad": set()}
        assert submit(master, key="order")["result"]["duplicate"] is False


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """Holds also where no disk can be had: a limit on files is met as a full disk is, but for its words."""
    with Abused(tmp_path) as master:
        spool = master.ready().folder / "state" / "spool"
        document = {"content": "x" * 1000, "key": "order"}
        before = resource.prlimit(master.process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        assert "File too large" in refusal(master, **document)
        resource.prlimit(master.process.pid, resource.RLIMIT_FSIZE, before)
        assert kept(spool) == {"tmp": set(), "new": set(), "keys": set(), "bad": set()}
        assert submit(master, **document)["result"]["duplicate"] is False


def test_a_flood_of_submissions_that_the_disk_refuses_fills_no_log(tmp_path: Path) -> None:
    with Abused(tmp_path) as master:
        (master.ready().folder / "state" / "spool" / "new").rmdir()
        with master.connect() as client:
            client.write((SUBMIT + b"\n") * 1000)
            assert {client.line()["error"]["code"] for _ in range(1000)} == {-32005}
        assert 0 < master.log().count("takes no submission") <= 5


def _whole(spool: Path) -> None:
    shutil.rmtree(spool)


def _part(name: str) -> Callable[[Path], None]:
    return lambda spool: (spool / name).rmdir()


@pytest.mark.parametrize(("remove", "named"), [
    (_whole, "spool"), (_part("tmp"), "tmp"), (_part("new"), "new"), (_part("keys"), "keys"),
])
def test_a_folder_that_is_gone_is_named_and_its_return_is_enough(
    tmp_path: Path, remove: Callable[[Path], None], named: str
) -> None:
    with Abused(tmp_path) as master:
        spool = master.ready().folder / "state" / "spool"
        remove(spool)
        words = refusal(master, key="order")
        assert f"/{named} is gone" in words
        assert "restart" in words
        assert master.status()["spool"]["files"] in (None, 0)
        Spool(spool).prepare()
        assert kept(spool) == {"tmp": set(), "new": set(), "keys": set(), "bad": set()}
        assert submit(master, key="order")["result"]["duplicate"] is False
        assert "Traceback" not in master.log()
