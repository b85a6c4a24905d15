"""The journal and what recovery reads from it: never `pending` for a request that left."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from pathlib import Path

import pytest

from fanoutd.journal import RECORD_SIZE, Journal, adopt, tag
from fanoutd.outcome import Progress, State
from fanoutd.testimony import read

CHANNELS = (1, 2)
FRESH = Progress()
OPENID = "oPERSON"
WHO = tag(OPENID)


def closed(journal: Journal) -> Path:
    """As after its process's death: the lock is free, the file is there."""
    os.close(journal._fd)
    return journal.path


def judged(path: Path, position: int = 0) -> Progress:
    orphan = adopt(path)
    assert orphan is not None
    try:
        return read(orphan.data()).judge(FRESH, (7, position, 3), OPENID, CHANNELS)
    finally:
        orphan.close()


def test_nobody_adopts_the_journal_of_a_living_worker(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    assert adopt(tmp_path / "w1") is None
    closed(journal)
    assert adopt(tmp_path / "w1") is not None
    assert adopt(tmp_path / "gone") is None


@pytest.mark.parametrize(
    ("records", "state", "channel", "errcode", "attempts"),
    [
        ([], State.PENDING, None, None, 0),
        (["S1"], State.UNKNOWN, 1, None, 1),
        (["S1", "R1:0"], State.SENT, 1, 0, 1),
        (["S1", "R1:43004"], State.FAILED, 1, 43004, 1),
        (["S1", "R1:45015"], State.PENDING, 1, 45015, 1),
        (["S1", "R1:45015", "S2"], State.UNKNOWN, 2, 45015, 2),
        (["S1", "R1:45015", "S2", "R2:0"], State.SENT, 2, 0, 2),
        (["S1", "R1:40001"], State.PENDING, 1, 40001, 1),
        (["S1", "R1:-1", "S1"], State.UNKNOWN, 1, -1, 2),
        (["S2", "R2:45015"], State.FAILED, 2, 45015, 1),
    ],
)
def test_what_the_records_say_of_a_person(
    tmp_path: Path, records: list[str], state: State, channel: int | None, errcode: int | None, attempts: int
) -> None:
    journal = Journal(tmp_path, "w1")
    journal.lease(7, 3, "c-1")
    for record in records:
        kind, (number, _, code) = record[0], record[1:].partition(":")
        if kind == "S":
            journal.sending((7, 0, 3), int(number), WHO)
        else:
            journal.answer((7, 0, 3), int(number), WHO, int(code), None)
    found = judged(closed(journal))
    assert (found.state, found.channel, found.errcode, found.attempts) == (state, channel, errcode, attempts)


def test_a_lease_that_it_never_noted_makes_silence_unknown(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    journal.lease(8, 3, "c-1")
    assert judged(closed(journal)).state is State.UNKNOWN


def test_a_message_id_comes_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    journal.lease(7, 3, "c-1")
    journal.sending((7, 0, 3), 2, WHO)
    journal.answer((7, 0, 3), 2, WHO, 0, 3717005636572528642)
    assert judged(closed(journal)).msgid == 3717005636572528642


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_never_makes_pending_of_a_request_that_left(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    journal = Journal(tmp_path, "w1")
    journal.lease(7, 3, "c-1")
    for position in range(50):
        journal.sending((7, position, 3), 1, WHO)
        if position % 2:
            journal.answer((7, position, 3), 1, WHO, 0, None)
    path = closed(journal)
    data = bytearray(path.read_bytes()[: 4096 + 76 * RECORD_SIZE])
    if seed % 2:
        del data[chance.randrange(4096, len(data)) :]
    else:
        data[chance.randrange(4096, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    orphan = adopt(path)
    assert orphan is not None
    said = read(orphan.data())
    states = [said.judge(FRESH, (7, position, 3), OPENID, CHANNELS).state for position in range(50)]
    if seed % 2 == 0:  # every record whole but one: all who left are known to have
        assert State.PENDING not in states
    else:  # cut off: what is lost with it was written after, so those before are as they were
        known = [s for s in states if s is not State.PENDING]
        assert states[: len(known)] == known
    orphan.close()


def test_a_full_disk_is_met_before_anything_is_sent(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    try:
        with pytest.raises(OSError):
            journal.reserve(100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    journal.reserve(100)
    journal.keep()
    assert not list(tmp_path.iterdir())


def test_two_threads_never_write_at_one_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    journal.reserve(20_000)

    def lease() -> None:
        for shard in range(4000):
            journal.lease(shard, 3, "c-1")

    leasing = threading.Thread(target=lease)
    leasing.start()
    for position in range(4000):
        journal.sending((7, position, 3), 1, WHO)
    leasing.join()
    orphan = adopt(closed(journal))
    assert orphan is not None
    said = read(orphan.data())
    orphan.close()
    assert said.reliable
    assert (len(said.leases), len(said.calls)) == (4000, 4000)
