"""The board between processes: a reader sees a whole row or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from fanoutd.board import EMPTY, Board, Row


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board(4)
    yield made
    made.close()


def test_a_row_is_empty_until_written_and_after_it_is_cleared(board: Board) -> None:
    assert board.read(3) == EMPTY
    board.write(3, campaign="k-1", sent=2, failed=1, rate=0.5, heartbeat=9.25)
    assert board.read(3) == Row("k-1", 2, 1, 0.5, 9.25)
    assert board.read(2) == EMPTY
    board.clear(3)
    assert board.read(3) == EMPTY


def test_a_forked_child_writes_and_the_master_reads(board: Board) -> None:
    pid = os.fork()
    if not pid:
        board.write(1, campaign=None, sent=7, failed=0, rate=0, heartbeat=1)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.read(1) == Row(None, 7, 0, 0.0, 1.0)


def test_no_reader_sees_half_a_row(board: Board) -> None:
    pid = os.fork()
    while not pid:
        for n in range(1000):
            board.write(0, campaign=f"c-{n}", sent=n, failed=n, rate=n, heartbeat=n)
    try:
        rows = [board.read(0) for _ in range(20_000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    written = [row for row in rows if row != EMPTY]
    assert len({row.sent for row in written}) > 10
    assert all(row == Row(f"c-{row.sent}", row.sent, row.sent, row.sent, row.sent) for row in written)


def test_a_row_torn_by_a_death_reads_as_empty(board: Board) -> None:
    board.write(0, campaign="c-1", sent=1, failed=0, rate=0, heartbeat=1)
    board._map[45] ^= 0xFF
    assert board.read(0) == EMPTY
