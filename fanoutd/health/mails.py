"""What is told, as events of mail: one for all that breaks in one look, one for all that is well again."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable, Sequence

from fanoutd.health.judge import CALM, FLAP_WINDOW, Told
from fanoutd.mail.event import Event
from fanoutd.times import iso, span

#: Kinds of mail, in the order in which they are to be read.
_BROKEN, _REMINDER, _WELL = ("broken", "flaps"), ("reminder",), ("well", "unwatched")


def events(node: str, told: Sequence[Told], at: int) -> list[Event]:
    """``at``: of the look, in milliseconds since 1970. The same things told give the same ids and kinds: what breaks
    again is news, however soon, since people think that it is well; what comes and goes is folded by ``judge``."""
    found = []
    for kinds, kind in ((_BROKEN, "alert"), (_REMINDER, "reminder"), (_WELL, "all-clear")):
        if those := [each for each in told if each.kind in kinds]:
            found.append(_event(node, kind, those, at))
    return found


def _event(node: str, kind: str, told: Sequence[Told], at: int) -> Event:
    head = "all clear" if kind == "all-clear" else "ALERT"
    first, more = told[0], len(told) - 1
    subject = f"{head}: {short(first)}" + (f", and {more} more" if more else "")
    blocks = [_block(each) for each in told]
    text = "\n\n".join("\n".join(block) for block in blocks) + f"\n\nNode {node}, {iso(at)}\n"
    marked = "".join(_html(block) for block in blocks)
    return Event(
        id=f"{kind}.{_name(told)}", kind=f"{kind} {_name(told)}", subject=subject,
        line=f"{head}: " + "; ".join(short(each) for each in told), text=text,
        html=f"{marked}<p>Node {html.escape(node)}, {iso(at)}</p>", at=at,
    )  # fmt: skip


def _name(told: Iterable[Told]) -> str:
    """Of this and nothing else that was ever told."""
    what = " ".join(
        f"{each.kind} {each.key} {each.since} {each.at if each.kind == 'reminder' else ''}" for each in told
    )
    return hashlib.blake2b(what.encode(), digest_size=12).hexdigest()


def short(told: Told) -> str:
    """For a subject or a line: what it is, and how long it lasted or has lasted."""
    key = told.key
    broken, well = key.say(key.condition.broken), key.say(key.condition.well)
    lasted = span(told.at - told.since)
    if told.kind == "well":
        return f"{well}, after {lasted}"
    if told.kind == "unwatched":
        return f"not watched any more: {broken}"
    if told.kind == "reminder":
        return f"{'still comes and goes' if told.flaps else 'still'}, for {lasted}: {broken}"
    return f"comes and goes: {broken}" if told.kind == "flaps" else broken


def _block(told: Told) -> list[str]:
    """A few lines: what is wrong, what it does, what to do."""
    key, condition = told.key, told.key.condition
    title = short(told)
    lines = [f"{title[0].upper()}{title[1:]}."]
    if told.kind == "well":
        if told.flaps:
            lines.append(f"It broke {told.flaps} times since {iso(told.since)}, and has been well for "
                         f"{span(CALM)} now.")  # fmt: skip
        return [*lines, f"It was: {told.words}" if told.words else "", "Nothing is left to do."]
    if told.kind == "unwatched":
        return [*lines, "It was switched off, or what it was about is not there any more: no all clear will come."]
    since = f"Since {iso(told.since)}"
    lines.append(f"{since}: {told.words}" if told.words else f"{since}.")
    if told.kind == "flaps":
        lines.append(f"It has broken {told.flaps} times within {span(FLAP_WINDOW)}. There is no further mail while it "
                     f"comes and goes; the all clear comes when it has been well for {span(CALM)}.")  # fmt: skip
    return [*lines, f"What it does: {key.say(condition.effect)}", f"What to do: {key.say(condition.mend)}"]


def _html(block: Sequence[str]) -> str:
    title, *lines = (html.escape(each) for each in block if each)
    return f"<h3>{title}</h3>" + "".join(f"<p>{each}</p>" for each in lines)
