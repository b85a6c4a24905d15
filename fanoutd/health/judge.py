"""What breaks, what is well again, and what is worth a mail: from one look to the next.

Pure: the time comes with the call, in milliseconds since 1970. The memory is what must outlive a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from fanoutd.health.conditions import CONDITIONS, Key, key

_HOUR = 3_600_000

#: How long something that is told of has been broken when people are reminded of it: after the first mail, and after
#: each reminder; the last one again and again.
REMIND_AFTER = (1 * _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR)

#: So many breaks within so long, and it comes and goes: one mail says so, and no further until it has been well for
#: ``CALM``.
FLAPS, FLAP_WINDOW, CALM = 3, _HOUR, _HOUR // 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at one condition. ``bad`` None: it cannot be known now. ``words``: the figures, or what was said, in one
    line for people, without secrets."""

    key: Key
    bad: bool | None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of one condition. ``since``: when its state began, which is the first of the looks that made
    it so. ``told``: since when people have been told that it is broken and not that it is well; ``reminders``: how many
    since then, ``remind_at``: when the next is due. ``breaks``: when it broke of late. ``flaps``: people have been told
    that it comes and goes; so many breaks then."""

    broken: bool = False
    since: int = 0
    run: int = 0
    """Looks in a row that say the contrary of ``broken``, and the time of the first of them."""
    run_since: int = 0
    unknown: bool = False
    words: str = ""
    told: int | None = None
    reminders: int = 0
    remind_at: int = 0
    breaks: tuple[int, ...] = ()
    flaps: int = 0


Memory = Mapping[Key, Seen]

Kind = Literal["broken", "flaps", "reminder", "well", "unwatched"]


@dataclass(frozen=True, slots=True)
class Told:
    """Something that people shall hear. ``since``: when it began; ``flaps``: how often it broke while it came and
    went, 0 if it did not."""

    kind: Kind
    key: Key
    since: int
    at: int
    words: str
    flaps: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    memory: dict[Key, Seen] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)


def judge(memory: Memory, findings: Iterable[Finding], at: int) -> Judgement:
    """After a look at ``at``. What nobody looks at any more is forgotten; if people think that it is broken they are
    told that it is not watched any more."""
    judgement = Judgement()
    for finding in sorted(findings, key=lambda each: each.key.rank):
        seen, told = _one(memory.get(finding.key, Seen(since=at)), finding, at)
        judgement.memory[finding.key] = seen
        judgement.told.extend(told)
    for gone in sorted(memory.keys() - judgement.memory.keys(), key=lambda each: each.rank):
        seen = memory[gone]
        if seen.told is not None:
            judgement.told.append(Told("unwatched", gone, seen.told, at, seen.words, seen.flaps))
    return judgement


def _one(seen: Seen, finding: Finding, at: int) -> tuple[Seen, list[Told]]:
    if finding.bad is None:  # neither better nor worse
        return replace(seen, unknown=True), []
    if finding.bad != seen.broken:
        run_since = seen.run_since if seen.run else at
        seen = replace(seen, unknown=False, run=seen.run + 1, run_since=run_since)
    else:
        seen = replace(seen, unknown=False, run=0, run_since=0)
    if finding.bad:
        seen = replace(seen, words=finding.words)
    if seen.run >= CONDITIONS[finding.key.name].after:
        seen = replace(seen, broken=finding.bad, since=seen.run_since, run=0, run_since=0)
        if seen.broken:
            return _broke(seen, finding, at)
    if seen.told is None:
        return seen, []
    if not seen.broken:
        return _is_well(seen, finding, at)
    return _remind(seen, finding, at)


def _broke(seen: Seen, finding: Finding, at: int) -> tuple[Seen, list[Told]]:
    breaks = (*(each for each in seen.breaks if at - FLAP_WINDOW < each <= at), at)
    seen = replace(seen, breaks=breaks[-FLAPS:], flaps=seen.flaps + (seen.flaps > 0))
    if seen.told is not None:  # it comes and goes, and people know
        return seen, []
    kind: Kind = "flaps" if len(breaks) >= FLAPS else "broken"
    flaps = len(breaks) if kind == "flaps" else 0
    told = Told(kind, finding.key, seen.since, at, finding.words, flaps)
    return replace(seen, told=seen.since, reminders=0, remind_at=at + REMIND_AFTER[0], flaps=flaps), [told]


def _is_well(seen: Seen, finding: Finding, at: int) -> tuple[Seen, list[Told]]:
    """People think that it is broken."""
    if seen.told is None or (seen.flaps and 0 <= at - seen.since < CALM):
        return seen, []
    told = Told("well", finding.key, seen.told, seen.since, seen.words, seen.flaps)
    breaks = () if seen.flaps else seen.breaks
    return replace(seen, told=None, reminders=0, remind_at=0, flaps=0, breaks=breaks), [told]


def _remind(seen: Seen, finding: Finding, at: int) -> tuple[Seen, list[Told]]:
    if seen.told is None or seen.remind_at - REMIND_AFTER[-1] <= at < seen.remind_at:  # else the clock was set back
        return seen, []
    told = Told("reminder", finding.key, seen.told, at, finding.words, seen.flaps)
    reminders = seen.reminders + 1
    following = REMIND_AFTER[min(reminders, len(REMIND_AFTER) - 1)]
    return replace(seen, reminders=reminders, remind_at=at + following), [told]


def encode(memory: Memory) -> dict[str, Any]:
    """As JSON has it, without what is as it is at first: there may be hundreds of accounts and nodes."""
    first = asdict(Seen())
    return {
        str(each): {name: value for name, value in asdict(seen).items() if value != first[name]}
        for each, seen in memory.items()
    }


def decode(document: object) -> dict[Key, Seen]:
    """What can be read of it: a condition of another version is forgotten."""
    memory = {}
    for text, values in (document if isinstance(document, dict) else {}).items():
        try:
            memory[key(text)] = Seen(**{**values, "breaks": tuple(values.get("breaks", ()))})
        except (ValueError, TypeError, AttributeError):
            continue
    return memory
