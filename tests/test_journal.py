"""The journal and what recovery reads from it: never `pending` for a request that left."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from pathlib import Path

import pytest

from fanoutd.journal import RECORD_SIZE, Journal, adopt, kept, tag
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


# ---- damage: whatever becomes of the file, a request that left is never called pending

PEOPLE = 40


def written(folder: Path, name: str = "w1", people: int = PEOPLE) -> bytes:
    """A journal as its worker left it: of each three people one was answered, one was not, one was never called."""
    journal = Journal(folder, name)
    journal.lease(7, 3, "c-1")
    for position in range(people):
        if position % 3:
            journal.sending((7, position, 3), 1, WHO)
        if position % 3 == 2:
            journal.answer((7, position, 3), 1, WHO, 0, None)
    path = closed(journal)
    data = path.read_bytes()
    path.unlink()
    return data


def states(data: bytes, people: int = PEOPLE) -> list[State]:
    said = read(data)
    return [said.judge(FRESH, (7, position, 3), OPENID, CHANNELS).state for position in range(people)]


def used(data: bytes) -> int:
    return len(data.rstrip(b"\0"))


def left_and_pending(found: list[State]) -> list[int]:
    """Positions of people who were called and are said not to have been."""
    return [position for position, state in enumerate(found) if position % 3 and state is State.PENDING]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals that grow by pages: read a hundred times as fast."""
    monkeypatch.setattr("fanoutd.journal.CHUNK", 4096)
    monkeypatch.setattr("fanoutd.testimony.CHUNK", 4096)


def test_an_undamaged_journal_tells_all(tmp_path: Path) -> None:
    expected = {0: State.PENDING, 1: State.UNKNOWN, 2: State.SENT}
    assert states(written(tmp_path)) == [expected[position % 3] for position in range(PEOPLE)]


@pytest.mark.usefixtures("small")
def test_cut_off_at_any_byte_it_calls_nobody_pending_and_what_is_left_still_speaks(tmp_path: Path) -> None:
    data = written(tmp_path)
    for length in range(used(data) + RECORD_SIZE):
        found = states(data[:length])
        assert State.PENDING not in found
        whole = (length - 4096) // RECORD_SIZE - 1  # records after the lease
        answered = [position for position in range(2, PEOPLE, 3) if position + 1 <= whole]
        assert all(found[position] is State.SENT for position in answered), (length, answered)


@pytest.mark.usefixtures("small")
def test_with_any_bit_flipped_nobody_who_left_is_pending(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path))
    for at in (*range(128), *range(128, 4096, 97), *range(4096, used(data))):
        for bit in range(8):
            data[at] ^= 1 << bit
            assert left_and_pending(states(bytes(data))) == [], (at, bit)
            data[at] ^= 1 << bit


@pytest.mark.usefixtures("small")
def test_records_repeated_moved_zeroed_or_of_another_journal_are_no_proof_of_silence(tmp_path: Path) -> None:
    data, other = written(tmp_path), written(tmp_path, "w2")
    chance = random.Random(1)
    end = used(data)
    places = range(4096, end - RECORD_SIZE, RECORD_SIZE)
    for _ in range(400):
        damaged = bytearray(data)
        here, there = chance.sample(places, 2)
        record = slice(here, here + RECORD_SIZE)
        damaged[record] = chance.choice(
            (data[there : there + RECORD_SIZE], bytes(RECORD_SIZE), other[record], os.urandom(RECORD_SIZE))
        )
        if damaged != data:
            assert left_and_pending(states(bytes(damaged))) == []
    assert left_and_pending(states(bytes(4096) + data[4096:])) == []
    assert left_and_pending(states(data[:4096] + bytes(4096) + data[8192:])) == []
    # another journal of the same boot whose header differs in nothing but the moment: its records fit it alone
    assert State.PENDING not in states(other[:4096].replace(b"\n1", b"\n2", 1) + data[4096:])


def test_a_journal_of_another_boot_knows_answers_and_no_silence(tmp_path: Path) -> None:
    data = written(tmp_path)
    boot = data.index(b"\n") + 1
    found = states(data[:boot] + b"0" * 36 + data[boot + 36 :])
    assert State.PENDING not in found  # the checksums know the boot too


def test_what_is_no_journal_at_all_is_read_without_a_word() -> None:
    chance = random.Random(2)
    for length in (0, 1, 4095, 4096, 4097, 4096 + RECORD_SIZE, 3 * 4096):
        assert State.PENDING not in states(chance.randbytes(length))
        assert State.PENDING not in states(bytes(length))


def test_a_journal_that_was_put_aside_speaks_after_another_boot_and_a_cut_one_does_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w1")
    journal.lease(7, 3, "c-1")
    journal.sending((7, 0, 3), 1, WHO)
    journal.answer((7, 0, 3), 1, WHO, 0, None)
    journal.keep()
    (path,) = kept(tmp_path)
    assert path.stat().st_size == 4096 + 4 * RECORD_SIZE
    said = read(path.read_bytes())
    assert said.reliable
    assert not read(path.read_bytes()[:-RECORD_SIZE]).reliable


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
