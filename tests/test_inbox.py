"""Lines out of bytes, however these come; and lines of the log, however many there are."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.master.inbox import Inbox, Oversize
from fanoutd.master.loglimit import LogLimit
from support.master import until

LONGEST = 8


def lines(inbox: Inbox) -> list[bytes | None]:
    """All that are there, None for one that was too long."""
    found: list[bytes | None] = []
    while inbox:
        line = inbox.popleft()
        found.append(None if isinstance(line, Oversize) else line)
    return found


@given(st.lists(st.lists(st.sampled_from([b"\n", b"a", b"b", b" ", b"\r", b"a" * 9])).map(b"".join)))
def test_lines_do_not_depend_on_how_the_bytes_come(chunks: list[bytes]) -> None:
    inbox, found = Inbox(LONGEST), []
    for chunk in [*chunks, b"\n"]:
        inbox.feed(chunk)
        found += lines(inbox)
        assert inbox.held <= LONGEST
    written = [line.lstrip() for line in b"".join(chunks).split(b"\n")]
    assert found == [line if len(line) <= LONGEST else None for line in written if line]
    assert not inbox.half


def test_a_line_too_long_is_known_before_its_end() -> None:
    inbox = Inbox(LONGEST)
    inbox.feed(b"ab\n" + b"x" * 9)
    assert lines(inbox) == [b"ab", None]
    for _ in range(3):
        inbox.feed(b"x" * 100)
        assert (lines(inbox), inbox.held, inbox.half) == ([], 0, True)
    inbox.feed(b"x\n\n cd\nef")
    assert (lines(inbox), inbox.held) == ([b"cd"], 2)
    with pytest.raises(IndexError):
        inbox.popleft()


def test_a_flood_of_log_lines_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    limit = LogLimit(logging.getLogger("test"), 3, 0.2, "%d more")
    for n in range(10):
        limit.warning("line %d", n)
    assert caplog.messages == ["line 0", "line 1", "line 2"]
    until(lambda: limit.catch_up() or len(caplog.messages) > 3, "the count")
    limit.warning("line %d", 10)
    assert caplog.messages[3:] == ["7 more", "line 10"]
