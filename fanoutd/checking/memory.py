"""What one check tells the next, and which mails follow from it: pure functions on a small document.

A mail that is due is in the document before anybody tries to send it, and leaves it when it is sent: a mail server
that is away, or a check that is killed, loses none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from fanoutd.checking.verdict import DEGRADED, DOWN, OK, STATES, UNKNOWN, Observed, Verdict
from fanoutd.mail.event import Event
from fanoutd.times import span

#: Milliseconds from a mail to the first reminder, and at most from one to the next: each takes twice as long.
_REMINDED, _SELDOM = 3_600_000, 24 * 3_600_000
#: Mails that wait, at most: of a mail server that is away for weeks the newest count.
_MOST_WAITING = 20

DOWN_KIND, MUTE_KIND, DEGRADED_KIND = "down", "mute", "degraded"
_STILL = {DOWN_KIND: "down", MUTE_KIND: "not able to tell of its trouble itself", DEGRADED_KIND: "degraded"}
_AGAIN = {DOWN_KIND: "serves", MUTE_KIND: "can tell of its trouble itself", DEGRADED_KIND: "is healthy"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was mailed and is not well again. ``kind`` is down, mute (it serves, but cannot mail) or degraded; times are
    milliseconds since 1970; ``reminded`` counts the reminders, ``stopped``: it was, on purpose."""

    kind: str
    since: int
    mailed: int
    reminded: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """``state`` is that of the last check, None before the first; ``node`` the daemon's name as it said it last;
    ``waiting`` are mails that are to be sent, oldest first."""

    state: str | None = None
    node: str | None = None
    trouble: Trouble | None = None
    waiting: tuple[Event, ...] = field(default=())

    def encode(self) -> bytes:
        return json.dumps({"v": 1, **asdict(self)}, ensure_ascii=False).encode()


def decode(data: bytes) -> Memory:
    """A document that cannot be read is a first check's: what it would cost is a mail too many."""
    try:
        said = json.loads(data)
        trouble = said["trouble"] and Trouble(**said["trouble"])
        return Memory(said["state"], said["node"], trouble, tuple(Event(**each) for each in said["waiting"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Memory()


@dataclass(frozen=True, slots=True)
class Restart:
    """``command`` was run; ``said`` are its last words, ``code`` what it ended with, None: it did not by itself;
    ``found`` is what it was run for."""

    command: str
    code: int | None
    said: str
    found: str = ""


def step(
    before: Memory, seen: Observed, found: Verdict, mailing: bool, restart: Restart | None = None,
    down_only: bool = False,
) -> Memory:  # fmt: skip
    """After one check. ``mailing``: what is new is mailed; without it only what a restart did, and its all clear.
    ``down_only``: not that it is degraded, which a daemon mails itself as long as it can."""
    if found.code == UNKNOWN:
        return before
    kind = _kind(seen, found, down_only)
    events: list[Event] = []
    trouble = _goes_on(before.trouble, kind, seen)
    if before.trouble and before.trouble.kind == DOWN_KIND and trouble is None and kind != DOWN_KIND:
        # It serves again, though not well: the end of one trouble, and the beginning of another.
        if not before.trouble.mailed:
            events.append(_alert(before.trouble, seen, found, restart))
        events.append(_all_clear(before.trouble, seen, found))
    well = before.state in (STATES[OK], STATES[DEGRADED])
    if kind and trouble is None and mailing and (well or not seen.stopped):  # one that was never started is no news
        trouble = Trouble(kind, seen.at_ms, 0, 0, seen.stopped)
    if trouble and not trouble.mailed:
        trouble = replace(trouble, mailed=seen.at_ms)
        events.append(_alert(trouble, seen, found, restart))
    elif trouble and kind and _remind_at(trouble) <= seen.at_ms:
        trouble = replace(trouble, mailed=seen.at_ms, reminded=trouble.reminded + 1)
        events.append(_reminder(trouble, seen, found, restart))
    if trouble and kind is None:
        events.append(_all_clear(trouble, seen, found))
        trouble = None
    node = str(seen.status["node"]) if seen.status else before.node
    return Memory(found.state, node, trouble, (*before.waiting, *events)[-_MOST_WAITING:])


def _kind(seen: Observed, found: Verdict, down_only: bool) -> str | None:
    if found.code == DOWN:
        return DOWN_KIND
    if seen.speechless:
        return MUTE_KIND
    return DEGRADED_KIND if found.code == DEGRADED and not down_only else None


def _goes_on(trouble: Trouble | None, kind: str | None, seen: Observed) -> Trouble | None:
    """The trouble that was, unless this is another one: one that was stopped and now died has lived in between."""
    if trouble is None or kind is None:
        return trouble
    if trouble.kind != kind or (trouble.stopped and not seen.stopped):
        return None
    return replace(trouble, stopped=seen.stopped)


def begun(before: Memory, seen: Observed) -> Memory:
    """Before a command is run that is to start it: if the check is killed meanwhile, the next one tells of it."""
    trouble = _goes_on(before.trouble, DOWN_KIND, seen) or Trouble(DOWN_KIND, seen.at_ms, 0)
    return replace(before, state=STATES[DOWN], trouble=trouble)


def sent(memory: Memory, event: Event) -> Memory:
    return replace(memory, waiting=tuple(each for each in memory.waiting if each.id != event.id))


def _remind_at(trouble: Trouble) -> int:
    """Never of one that was stopped on purpose."""
    return 1 << 62 if trouble.stopped else trouble.mailed + min(_REMINDED << trouble.reminded, _SELDOM)


def _alert(trouble: Trouble, seen: Observed, found: Verdict, restart: Restart | None) -> Event:
    if restart:
        subject = _restarted(found, restart)
    elif trouble.kind == MUTE_KIND:
        subject = "ALERT: the daemon cannot tell of its trouble itself"
    elif trouble.kind == DEGRADED_KIND:
        subject = f"ALERT: the daemon is degraded: {found.words[:120]}"
    elif found.code != DOWN:
        subject = "ALERT: the daemon was down"
    else:
        subject = "ALERT: the daemon was stopped" if seen.stopped else "ALERT: the daemon is down"
    return _event(f"check-{trouble.kind}-{trouble.since}", seen.at_ms, subject, _body(trouble, found, restart))


def _restarted(found: Verdict, restart: Restart) -> str:
    if found.code != DOWN:
        return "ALERT: the daemon was down, restarted"
    words = restart.said.splitlines()[-1] if restart.said else _ended(restart)
    return f"ALERT: the daemon is down and could not be started: {words[:120]}"


def _reminder(trouble: Trouble, seen: Observed, found: Verdict, restart: Restart | None) -> Event:
    what = _STILL[trouble.kind]
    subject = f"ALERT: the daemon is still {what}, for {span(seen.at_ms - trouble.since)}"
    ident = f"check-{trouble.kind}-{trouble.since}-{trouble.reminded}"
    return _event(ident, seen.at_ms, subject, _body(trouble, found, restart))


def _all_clear(trouble: Trouble, seen: Observed, found: Verdict) -> Event:
    lasted = span(seen.at_ms - trouble.since)
    subject = f"all clear: the daemon {_AGAIN[trouble.kind]} again, after {lasted}"
    text = f"{found.line()}\n\nWhat it had accepted is on disk: campaigns go on where they stopped, by themselves."
    return _event(f"check-{trouble.kind}-{trouble.since}-clear", seen.at_ms, subject, text)


def _event(ident: str, at: int, subject: str, text: str) -> Event:
    return Event(ident, "", subject, subject, f"{text}\n", None, at)


def _body(trouble: Trouble, found: Verdict, restart: Restart | None) -> str:
    return "\n\n".join(_paragraphs(trouble, found, restart))


def _paragraphs(trouble: Trouble, found: Verdict, restart: Restart | None) -> Iterator[str]:
    yield f"Found by `fanoutd check`: {restart.found if restart and restart.found else found.line()}"
    if restart:
        yield f"Run: {restart.command}\n{_ended(restart)}" + (f", and said:\n{restart.said}" if restart.said else ".")
    if found.code == DEGRADED and trouble.kind == MUTE_KIND:
        yield "Conditions of the daemon are mailed by the daemon itself, as a rule. Now they are not."
    if found.code == DOWN:
        yield (
            "While it is down nothing is sent and nothing is accepted. What was accepted before is on disk and goes on "
            "by itself when it is back; nobody gets it twice. `fanoutd send --spool` keeps what comes meanwhile."
        )
        yield "To do: look at the end of its log; `fanoutd config check`; `fanoutd doctor`; then start it."


def _ended(restart: Restart) -> str:
    return "It had not ended by itself" if restart.code is None else f"It ended with {restart.code}"
