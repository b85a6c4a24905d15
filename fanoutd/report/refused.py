"""The mail about submissions that were refused while nobody read the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fanoutd.mail.event import Event
from fanoutd.report.words import number, one_line
from fanoutd.times import iso

#: Different reasons, and different clients, that a mail names.
_MOST = 10

#: Characters of a reason.
_LONGEST = 300

_MEANING = (
    "Such a submission was NOT accepted: nobody will be sent to because of it. Its client had hung up without reading "
    "the answer, or may have, so that it is told here."
)
_MEND = (
    "Mend what the reason names and submit again: nothing can be sent twice by that. A client that reads the one line "
    'that it is answered, {"ok": false, "error": "…"}, learns of it by itself.'
)

Refusal = Mapping[str, Any]


def refused(
    refusals: Sequence[Refusal], more: int, id: str, now: int, name_of: Callable[[int], str | None]
) -> Event:
    """``refusals``: {at, pid, uid, error} each, at least one; ``more``: so many of which only that is known.
    ``name_of`` gives a uid's user."""
    count = len(refusals) + more
    reasons = Counter(one_line(str(each["error"]), _LONGEST) for each in refusals)
    clients = Counter((each["uid"], each["pid"]) for each in refusals)
    first = reasons.most_common(1)[0][0]
    what = "a submission was" if count == 1 else f"{number(count)} submissions were"
    lines = [f"{number(some):>7} × {reason}" for reason, some in reasons.most_common(_MOST)]
    lines += _rest(len(reasons) - _MOST, "other reasons")
    whose = [_client(uid, pid, some, name_of(uid)) for (uid, pid), some in clients.most_common(_MOST)]
    whose += _rest(len(clients) - _MOST, "other clients")
    if more:
        lines.append(f"{number(more):>7} of which the reasons were not kept")
    begin, end = min(each["at"] for each in refusals), max(each["at"] for each in refusals)
    parts = [
        f"{what[0].upper()}{what[1:]} refused, from {iso(begin)} to {iso(end)}.", _MEANING, "Why:\n" + "\n".join(lines),
        "From whom:\n" + "\n".join(whose), _MEND,
    ]  # fmt: skip
    text = "\n\n".join(parts) + "\n"
    return Event(
        id=id, kind="refused", subject=f"{what} refused: {one_line(first, 120)}",
        line=f"{what} refused: {first}; {whose[0].strip()}", text=text, html=None, at=now,
    )  # fmt: skip


def _client(uid: int, pid: int, count: int, name: str | None) -> str:
    return f"{number(count):>7} × uid {uid} ({name or 'no user of this machine'}), pid {pid}"


def _rest(count: int, what: str) -> list[str]:
    return [f"        and {number(count)} {what}"] if count > 0 else []
