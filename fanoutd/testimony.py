"""What a journal says: which leases its worker had, and of each person who left and who was answered."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fanoutd.boot import boot_id
from fanoutd.journal import CHUNK, CRC, HEADER_SIZE, MAGIC, RECORD, RECORD_SIZE, Attempt, checksum, in_use, kept, tag
from fanoutd.outcome import LONG_AGO, NEVER_HEARD, OPEN, Progress, State, answered, unanswered

_ZERO = bytes(RECORD_SIZE)

Record = tuple[bytes, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that left. ``errcode`` and ``msgid`` are None while unanswered."""

    channel: int
    who: int
    left: int
    """CLOCK_BOOTTIME of the journal's boot, milliseconds; ``LONG_AGO`` if that boot is over or S is missing."""
    at: int | None
    """The same by the wall clock, milliseconds since 1970, as it stood when the journal was begun."""
    errcode: int | None = None
    msgid: int | None = None


@dataclass(slots=True)
class Testimony:
    """What a dead worker's journal says. ``reliable`` is False after another boot or damage."""

    reliable: bool = True
    leases: dict[tuple[int, int], int] = field(default_factory=dict)
    """(shard, token) -> the campaign's tag. Asked for: whether the store has granted it, its owner there tells."""
    granted: dict[tuple[int, int], int] = field(default_factory=dict)
    """The same, of leases that were this worker's without a doubt."""
    calls: dict[Attempt, list[Call]] = field(default_factory=dict)
    """Per attempt the calls in order."""

    def judge(
        self, before: Progress, attempt: Attempt, openid: str, channels: tuple[int, ...], personal: bool = False
    ) -> Progress:
        """What became of a person who was claimed under ``attempt`` and never recorded; ``personal`` as in answered."""
        calls = self.calls.get(attempt, ())
        who = tag(openid)
        if any(call.who != who for call in calls):  # the store is not the one that this journal was written for
            return replace(before, state=State.UNKNOWN, since=LONG_AGO)
        after = replay(before, calls, channels, personal)
        if after.state not in OPEN:
            return after
        shard, _, token = attempt
        if self.reliable and (shard, token) in self.leases:
            return after
        since = NEVER_HEARD if after.state is State.PENDING else after.since
        return replace(after, state=State.UNKNOWN, since=since)


def replay(
    before: Progress, calls: list[Call] | tuple[()], channels: tuple[int, ...], personal: bool = False
) -> Progress:
    """The delivery after these calls."""
    after = before
    for call in calls:
        if call.errcode is None:
            after = unanswered(after, call.channel, call.left)
        else:
            last = call.channel == channels[-1]
            after, _ = answered(after, call.channel, call.errcode, call.msgid, last, personal=personal)
    return after


def read(data: bytes) -> Testimony:
    """Everything in a journal, in order. Damage never makes an exception, only an unreliable witness.

    One that its worker has closed, with E, speaks for itself after another boot too.
    """
    said = Testimony()
    lines = data[:HEADER_SIZE].split(b"\n", 3)
    same_boot = len(lines) == 4 and lines[1].decode("ascii", "replace") == boot_id()
    said.reliable = len(lines) == 4 and lines[0].decode("ascii", "replace") == MAGIC
    begun = _number(lines[2]) if len(lines) == 4 else None
    last = b""
    for record in _records(data):
        if record is None:
            said.reliable = False
        else:
            last = record[0]
            _note(said, record, same_boot, begun)
    if last != b"E" and not (same_boot and _ends_with_room(data)):
        said.reliable = False
    return said


def testimonies(folder: Path, since: float = 0.0) -> Iterator[Testimony]:
    """What all journals say, those put aside (since then, by the wall clock) first. A living worker's as it stands."""
    for path in (*kept(folder, since), *in_use(folder)):
        try:
            yield read(path.read_bytes())
        except FileNotFoundError:  # put aside just now, and read again by whoever looks there next
            continue


def _number(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _ends_with_room(data: bytes) -> bool:
    """As its worker left it: whole pieces, the last record empty. Else something was cut off."""
    room = len(data) - HEADER_SIZE
    return room > 0 and room % CHUNK == 0 and data[-RECORD_SIZE:] == _ZERO


def _records(data: bytes) -> Iterator[Record | None]:
    """Whole records up to the preallocated emptiness; None for each that is damaged."""
    header = zlib.crc32(data[:HEADER_SIZE].rstrip(b"\0"))
    for at in range(HEADER_SIZE, len(data.rstrip(b"\0")), RECORD_SIZE):
        raw = data[at : at + RECORD_SIZE]
        if len(raw) < RECORD_SIZE or CRC.unpack_from(raw, RECORD.size)[0] != checksum(raw[: RECORD.size], header, at):
            yield None
            continue
        yield RECORD.unpack_from(raw)


def _note(said: Testimony, record: Record, same_boot: bool, begun: int | None) -> None:
    kind, channel, position, shard, token, errcode, value, who = record
    if kind == b"L":
        said.leases[shard, token] = who
    elif kind == b"G":
        said.granted[shard, token] = who
    elif kind == b"S":
        left = value if same_boot else LONG_AGO
        at = None if begun is None else begun + value
        said.calls.setdefault((shard, position, token), []).append(Call(channel, who, left, at))
    elif kind == b"R":
        calls = said.calls.setdefault((shard, position, token), [])
        asked = calls.pop() if calls and calls[-1].errcode is None else Call(channel, who, LONG_AGO, None)
        calls.append(replace(asked, channel=channel, errcode=errcode, msgid=value or None))
