"""A report from the answer of ``campaign.report``: what it says, not how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fanoutd.errcodes import ANEW
from fanoutd.plain import plain
from fanoutd.report import timeline as over_time
from fanoutd.report.timeline import Timeline
from fanoutd.report.words import OUTCOMES, number, one_line, people, rate, share, step, when, without_people
from fanoutd.times import duration, parse_when

Answer = Mapping[str, Any]

#: Errors that are listed; the others are only counted.
_TOP = 8

#: Causes of a pause that only `repair` ends.
_DISTRUSTED = ("past", "copy")

#: The longest reason in a subject.
_SUBJECT = 140


@dataclass(frozen=True, slots=True)
class Line:
    """Of the receipt: how many people ended so."""

    key: str
    words: str
    count: int
    share: str


@dataclass(frozen=True, slots=True)
class Error:
    """``mend``: what an operator does about it; None where there is nothing to be done."""

    errcode: str
    words: str
    count: int
    share: str
    mend: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and the command that does it."""

    words: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """``tone`` is ``good``, ``warn`` or ``bad``. ``receipt`` sums to ``total``. ``subject`` is that of a mail, without
    ``[fanoutd NODE]``. ``facts``: (name, value). ``more_errors``: people whose errcode is not listed."""

    id: str
    state: str
    tone: str
    subject: str
    headline: str
    reason: str | None
    total: int
    receipt: tuple[Line, ...]
    errors: tuple[Error, ...]
    more_errors: int
    facts: tuple[tuple[str, str], ...]
    excerpt: str | None
    steps: tuple[Step, ...]
    timeline: Timeline | None
    later: int
    timezone: str


def build(answer: Answer, corrected: bool = False) -> Report:
    """``corrected``: it takes the place of an earlier one. Raises ValueError for a receipt that does not sum."""
    campaign = answer["campaign"]
    counts: Mapping[str, int] = {key: campaign["counts"].get(key) or 0 for key in OUTCOMES}
    total: int = campaign["total"] or 0
    if sum(counts.values()) != total:
        raise ValueError(f"campaign {campaign['id']}: {sum(counts.values())} people of {total} are accounted for")
    timeline = over_time.decode(answer["timeline"], parse_when)
    headline, tone = _headline(campaign, answer["cause"], counts, total)
    reason = campaign["reason"] and plain(without_people(campaign["reason"]))
    listed = answer["errors"][:_TOP]
    found = Report(
        id=campaign["id"], state=campaign["state"], tone=tone, subject="", headline=headline, reason=reason,
        total=total,
        receipt=tuple(Line(key, OUTCOMES[key], counts[key], share(counts[key], total)) for key in OUTCOMES
                      if counts[key]),
        errors=tuple(_error(each, counts["failed"]) for each in listed),
        more_errors=sum(each["count"] for each in answer["errors"][_TOP:]),
        facts=tuple(_facts(answer, timeline)), excerpt=answer["excerpt"] and plain(answer["excerpt"]),
        steps=tuple(_steps(answer, counts)), timeline=timeline, later=answer["later"], timezone=answer["timezone"],
    )  # fmt: skip
    return replace(found, subject=_subject(found, counts, corrected))


def paused_subject(report: Report, reason: str | None) -> Report:
    """Of a campaign that had paused for this reason, and has gone on."""
    words = plain(without_people(reason or ""))
    return replace(report, reason=words, subject=f"campaign {report.id} paused: {one_line(words, _SUBJECT)}")


def sent(counts: Mapping[str, int | None]) -> int:
    """On whatever channel."""
    return sum(count or 0 for key, count in counts.items() if key.startswith("sent_"))


def all_reached(campaign: Mapping[str, Any]) -> bool:
    """It is done, and everybody has it who takes messages; somebody does, if there was anybody."""
    counts, total = campaign["counts"], campaign["total"]
    rest = counts["failed"] or counts["unknown"] or counts["pending"]
    return campaign["state"] == "done" and not rest and bool(sent(counts) or not total)


def _headline(
    campaign: Mapping[str, Any], cause: str | None, counts: Mapping[str, int], total: int
) -> tuple[str, str]:
    """The sentence that matters, and its tone."""
    through = total - counts["pending"]
    state = campaign["state"]
    if state == "paused":
        by = "Somebody paused it" if cause == "operator" else "It paused itself"
        return f"{by} when {number(through)} of {people(total)} were through.", "bad"
    if state == "failed":
        return "It could not be planned, and nobody was sent to.", "bad"
    if state == "cancelled":
        return f"It was cancelled when {number(through)} of {people(total)} were through; the others were not " \
            "tried.", "warn"  # fmt: skip
    if state != "done":
        return f"It is {state}: {number(through)} of {people(total)} are through.", "good"
    return _done(counts, total)


def _done(counts: Mapping[str, int], total: int) -> tuple[str, str]:
    if not total:
        return "Its audience was empty: nobody was sent to.", "warn"
    takes, reached = total - counts["skipped"], sent(counts)
    skipped = f"; {number(counts['skipped'])} more were skipped" if counts["skipped"] else ""
    if not takes:
        return f"All {people(total)} have opted out or are known to be gone, and were skipped.", "warn"
    if reached == takes:
        who = "The one person was" if takes == 1 else f"All {people(takes)} were"
        return f"{who} sent to{skipped}.", "good"
    words = f"{number(reached)} of {people(takes)} were sent to"
    if counts["failed"]:
        words += f", {number(counts['failed'])} failed"
    if counts["unknown"]:
        words += f", and of {number(counts['unknown'])} nobody knows whether they have the message"
    return f"{words}{skipped}.", "bad" if not reached else "warn"


def _subject(report: Report, counts: Mapping[str, int], corrected: bool) -> str:
    again = "corrected, " if corrected else ""
    total, state = report.total, report.state
    figures = [f"{number(sent(counts))} of {number(total)} sent"]
    figures += [f"{number(counts[key])} {key}" for key in ("failed", "unknown", "skipped") if counts[key]]
    figures += [f"{number(counts['pending'])} not tried"] if counts["pending"] else []
    if state == "done" and counts["unknown"]:
        state = "unknown"
        waits = "waits" if counts["unknown"] == 1 else "wait"
        words = f"{number(counts['unknown'])} of {number(total)} {waits} for a decision"
    elif state in ("paused", "failed") and report.reason:
        words = one_line(report.reason, _SUBJECT)
    else:
        words = ", ".join(figures)
    return f"campaign {report.id} {state}: {again}{words}"


def _error(each: Mapping[str, Any], failed: int) -> Error:
    errcode, words = plain(str(each["errcode"])), plain(each["words"])
    return Error(errcode, words, each["count"], share(each["count"], failed), each["mend"])


def _facts(answer: Answer, timeline: Timeline | None) -> Iterator[tuple[str, str]]:
    campaign, timezone = answer["campaign"], answer["timezone"]
    for name in ("account", "message", "audience", "reference"):
        if campaign[name]:
            yield name, plain(str(campaign[name]))
    if by := answer["submitted"]:
        yield "submitted by", f"{by['who'] or 'a user'} (uid {by['uid']}) on node {by['node']}"
    times = {name: campaign[key] and parse_when(campaign[key]) for name, key in (
        ("submitted", "created_at"), ("due", "send_at"), ("started", "started_at"), ("finished", "finished_at"))}
    times |= {"first outcome": answer["first_at"] and parse_when(answer["first_at"]),
              "last outcome": answer["last_at"] and parse_when(answer["last_at"])}
    for name in ("submitted", "due", "started", "first outcome", "last outcome", "finished"):
        if (at := times[name]) is not None:
            yield name, f"{when(at, timezone)} {timezone}" if name == "submitted" else when(at, timezone)
    if times["started"] is not None and times["finished"] is not None:
        yield "took", duration(max(0, times["finished"] - times["started"]) / 1000)
    yield from _rates(times, timeline)
    if answer["later"]:
        yield "settled after its end", people(answer["later"])


def _rates(times: Mapping[str, int | None], timeline: Timeline | None) -> Iterator[tuple[str, str]]:
    first, last = times["first outcome"], times["last outcome"]
    if timeline is None or first is None or last is None:
        return
    # Outcomes are recorded some at a time: where all came at once, the time before them counts too.
    begin = first if last - first >= 1000 else min(first, times["started"] or first)
    seconds = max(0.25, (last - begin) / 1000)
    yield "average rate", rate(sum(timeline.totals()) / seconds)
    if peak := timeline.peak():
        yield "peak rate", f"{rate(peak[0])}, over {step(peak[1])}"


def _steps(answer: Answer, counts: Mapping[str, int]) -> Iterator[Step]:
    """In the order in which they should be done."""
    campaign, state = answer["campaign"], answer["campaign"]["state"]
    name = campaign["id"]
    if state == "paused":
        yield from _paused(name, answer["cause"], campaign["reason"] or "")
    if state == "failed":
        yield Step("Mend what the reason names, and submit it again.")
    if state == "cancelled" and counts["pending"]:
        yield Step("Who was not tried:", f"fanoutd campaign export {name} --state pending")
    if counts["unknown"]:
        yield from _unknown(name, counts["unknown"], answer["away"])
    if counts["failed"] and state in ("done", "paused"):
        yield from _failed(name, answer["errors"])


def _paused(name: str, cause: str | None, reason: str) -> Iterator[Step]:
    if cause in _DISTRUSTED:
        yield Step("The store does not say what has happened. Have the journals tell who was sent to; then it "
                   "goes on:", f"fanoutd campaign repair {name}")  # fmt: skip
    elif cause == "operator":
        yield Step("To let it go on:", f"fanoutd campaign resume {name}")
    elif cause == "token":
        yield Step("Mend what the reason names. It goes on by itself when a token is taken again; at once with:",
                   "fanoutd token refresh")  # fmt: skip
    elif ANEW in reason:
        yield Step("A campaign keeps the message that it was accepted with. Mend the message, reload, end this one, "
                   "and submit it anew:", f"fanoutd campaign cancel {name}")  # fmt: skip
        yield Step("Who is left, for the new one's --openids:", f"fanoutd campaign export {name} --state pending")
        return
    else:
        yield Step("Mend what the reason names; then let it go on:", f"fanoutd campaign resume {name}")
    yield Step("Or end it; who was not tried stays so:", f"fanoutd campaign cancel {name}")


def _unknown(name: str, count: int, away: Mapping[str, Any]) -> Iterator[Step]:
    if away["count"]:
        where = f"node {', '.join(away['nodes'])}" if away["nodes"] else "a node that went away"
        yield Step(f"{number(away['count'])} of the unknown were in the hands of {where}: when it is started again, "
                   "its journal settles them by itself.")  # fmt: skip
    who = "one whose answer was" if count == 1 else f"{number(count)} whose answers were"
    yield Step(f"The {who} never seen: the message was handed over, and may have been taken or not. Who they are:",
               f"fanoutd campaign export {name} --state unknown")  # fmt: skip
    yield Step("When you know that they have it, or that they have not:", f"fanoutd campaign resolve {name} --sent")
    yield Step("", f"fanoutd campaign resolve {name} --failed")
    yield Step("Or send to them again; whoever has it gets it twice:", f"fanoutd campaign retry {name} --unknown")


def _failed(name: str, errors: list[Mapping[str, Any]]) -> Iterator[Step]:
    yield Step("Who failed, and why:", f"fanoutd campaign export {name} --state failed")
    if any(str(each["errcode"]) != "render" for each in errors):
        yield Step("When the cause is mended, send again to those whom WeChat refused:",
                   f"fanoutd campaign retry {name} --failed")  # fmt: skip
