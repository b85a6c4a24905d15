"""The spool: what accept has returned from is there after anything, and nothing is there by half."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fanoutd.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


def document(campaign: str, key: str | None = None) -> dict[str, Any]:
    return {"v": 1, "campaign": campaign, "content": "供应", "key": key}


def files(spool: Spool) -> list[str]:
    return sorted(str(path.relative_to(spool.path)) for path in spool.path.rglob("*") if path.is_file())


def test_what_is_accepted_is_read_until_it_is_removed(spool: Spool) -> None:
    spool.accept(document("c-1"), keyed=False)
    assert spool.pending() == ["c-1"]
    assert spool.read("c-1") == document("c-1")
    spool.remove("c-1")
    assert (spool.pending(), spool.read("c-1"), spool.knows("c-1")) == ([], None, False)
    spool.remove("c-1")


def test_only_the_owner_reads_it(spool: Spool) -> None:
    spool.accept(document("k-1", "order 1"), keyed=True)
    assert {oct(p.stat().st_mode & 0o777) for p in spool.path.rglob("*")} == {"0o700", "0o600"}


def test_a_key_is_known_after_its_file_is_gone_until_it_expires(spool: Spool) -> None:
    spool.accept(document("k-1", "order 1"), keyed=True)
    spool.remove("k-1")
    assert Spool(spool.path).knows("k-1")
    assert spool.expire_keys(3600, lambda _ids: set()) == 0
    assert spool.expire_keys(3600, lambda _ids: set(), now_s=time.time() + 3601) == 1
    assert not spool.knows("k-1")


def test_pending_is_oldest_first_whatever_the_ids(spool: Spool) -> None:
    for n, campaign in enumerate(("k-z", "c-b", "k-a")):
        spool.accept(document(campaign), keyed=False)
        os.utime(spool.path / "new" / campaign, (1000 + n, 1000 + n))
    assert spool.pending() == ["k-z", "c-b", "k-a"]
    assert spool.measure(now_s=1010) == (3, 10.0)


def test_an_empty_spool_has_no_oldest(spool: Spool) -> None:
    assert spool.measure(now_s=1010) == (0, None)


@pytest.mark.parametrize("damage", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b'{"v":1,"campaign":"c-2"}', b'{"v":2}'])
def test_a_damaged_file_is_put_aside_and_stops_nobody(spool: Spool, damage: bytes) -> None:
    (spool.path / "new" / "c-1").write_bytes(damage)
    assert spool.read("c-1") is None
    assert files(spool) == ["bad/c-1"]


@pytest.mark.parametrize("campaign", ["../x", "a/b", "", ".", "C-1", "c-1\n"])
def test_no_id_leads_out_of_the_folder(spool: Spool, campaign: str) -> None:
    with pytest.raises(ValueError, match="no campaign id"):
        spool.read(campaign)


@pytest.mark.parametrize(("call", "at"), [
    ("open", 1), ("open", 2), ("open", 3), ("open", 4), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("rename", 1),
])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_whatever_is_refused_nothing_is_left_behind_and_nothing_known(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str, at: int, number: int
) -> None:
    real, calls = getattr(os, call), iter(range(1, 100))

    def refuses(*args: Any) -> Any:
        if next(calls) == at:
            raise OSError(number, os.strerror(number))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuses)
        with pytest.raises(OSError, match=os.strerror(number)):
            spool.accept(document("k-1", "order 1"), keyed=True)
    assert files(spool) == []
    assert not spool.knows("k-1")
    spool.accept(document("k-1", "order 1"), keyed=True)
    assert files(spool) == ["keys/k-1", "new/k-1"]


def test_what_cannot_be_taken_back_is_said(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: read_only() if os.path.isdir(f"/proc/self/fd/{fd}") else None)
        patch.setattr(Path, "unlink", read_only)
        with pytest.raises(OSError, match="Read-only"):
            spool.accept(document("c-1"), keyed=False)
    assert "new/c-1 belongs to a submission that was refused" in caplog.text


def test_a_crash_between_file_and_marker_is_mended_at_the_next_start(spool: Spool) -> None:
    (spool.path / "new" / "k-1").write_text(json.dumps(document("k-1", "order 1")))
    (spool.path / "new" / "c-1").write_text(json.dumps(document("c-1")))
    (spool.path / "tmp" / "k-2").write_text('{"v":1,')
    spool.prepare()
    assert files(spool) == ["keys/k-1", "new/c-1", "new/k-1"]


WRITER = """
import sys
from pathlib import Path
from fanoutd.spool import Spool
spool = Spool(Path(sys.argv[1]))
for n in range(100000):
    id = f"k-{n}"
    spool.accept({"v": 1, "campaign": id, "content": "x" * 20000, "key": id}, keyed=True)
    print(id, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_kill_loses_nothing_that_was_acknowledged(spool: Spool, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(spool.path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().split()
    writer.stdout.close()
    writer.wait()
    spool.prepare()
    pending = spool.pending()
    assert set(acknowledged) <= set(pending)
    assert all(spool.read(campaign) and spool.knows(campaign) for campaign in pending)
    assert not list((spool.path / "tmp").iterdir())
