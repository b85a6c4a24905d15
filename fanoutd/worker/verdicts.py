"""When a campaign stops by itself: the same refusal in a row, or too many failures of late. Pure: numbers in and out.

A ``Tally`` stands in a row of integers that all workers of a node share (``tallies``): what one of them hears counts
for all. Who sees a limit reached trips it; from then on nobody starts anything of this campaign, and nothing more is
counted until it is cleared, when the campaign goes on.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from fanoutd.errcodes import Meaning, Row, Verdict, describe, meaning

#: The last deliveries that ``max_failures`` looks at, and how many must have ended.
WINDOW, LEAST = 500, 50

#: Answers alike in a row, on one channel, that stop the campaign.
LIMITS = {Row.STRANGERS: 50, Row.FIELDS: 20, Row.RESTRICTED: 20, Row.UNLISTED: 20, Row.CONTENT: 20}

#: Rows that mean something only at the beginning: later it is those people's data.
_FROM_THE_START = (Row.FIELDS,)

#: What a channel must answer to before more than a few are sent on it.
_TRIAL = 20

#: A delivery without an answer, in the window; no errcode of WeChat.
NO_ANSWER = 1

# Words of a tally: then four for each of three channels, then the window.
_TRIPPED, _ENDED, _BAD, _CHANNELS = 0, 1, 2, 3
_ROW, _RUN, _DETAIL, _PROVEN = range(4)
_RING = _CHANNELS + 3 * 4
WORDS = _RING + WINDOW

_AGAIN = (
    "they count as failed, `fanoutd campaign resume` goes on with the others, and `fanoutd campaign retry --failed` "
    "sends to them again"
)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a campaign pauses: a word for the kind of trouble, and a reason for people."""

    cause: str
    reason: str


class Words(Protocol):
    """A row of integers: a list, or shared memory."""

    def __getitem__(self, at: int, /) -> int: ...

    def __setitem__(self, at: int, value: int, /) -> None: ...


class Tally:
    """What has come of a campaign lately. ``words``: WORDS integers, all 0 at its beginning."""

    def __init__(self, words: Words) -> None:
        self._words = words

    @property
    def tripped(self) -> int:
        """When it was tripped, as the caller gave it; 0: it is not."""
        return self._words[_TRIPPED]

    def trip(self, at: int) -> None:
        """Stop counting: the campaign pauses. ``at`` must not be 0."""
        self.clear()
        self._words[_TRIPPED] = at

    def clear(self) -> None:
        """Begin anew."""
        for at in range(WORDS):
            self._words[at] = 0

    # ---- rows

    def proven(self, channel: int) -> bool:
        """Somebody has got an answer on this channel that does not look as if it were everybody's."""
        return bool(self._words[self._of(channel) + _PROVEN])

    def unremarkable(self, channel: int, row: Row) -> bool:
        """An answer of this row would change nothing: not worth a lock."""
        at = self._of(channel)
        return row is Row.NONE and bool(self._words[at + _PROVEN]) and not self._words[at + _RUN]

    def room(self, channel: int, workers: int) -> int:
        """How many requests of one of so many workers may be on the wire while the channel is not proven.

        When everybody is refused alike, a limit is passed by the others' share at most: ``_TRIAL / workers`` each.
        """
        left = _TRIAL - self._words[self._of(channel) + _RUN]
        return max(1, -(-left // workers))

    def heard(self, channel: int, row: Row, detail: str = "", now: int = 1) -> bool:
        """Note an answer; whether the row has now reached its limit, and the tally is tripped with ``now``.

        ``detail``: alike means this too.
        """
        if self._words[_TRIPPED]:
            return False
        at, mark = self._of(channel), zlib.crc32(detail.encode("utf-8", "replace"))
        same = self._words[at + _ROW] == row and self._words[at + _DETAIL] == mark
        if row is Row.NONE or (not same and self._words[at + _RUN]):
            self._words[at + _PROVEN] = 1
        counts = row is not Row.NONE and not (row in _FROM_THE_START and self._words[at + _PROVEN])
        self._words[at + _RUN] = (self._words[at + _RUN] if same else 0) + 1 if counts else 0
        self._words[at + _ROW], self._words[at + _DETAIL] = int(row), mark
        full = counts and self._words[at + _RUN] >= LIMITS[row]
        if full:
            self.trip(now)
        return full

    @staticmethod
    def _of(channel: int) -> int:
        return _CHANNELS + 4 * (channel - 1)

    # ---- the window

    def ended(self, codes: list[int], share: float) -> Stop | None:
        """Note deliveries that have ended: 0 for good ones, else the errcode. Why to stop, if too many failed."""
        if self._words[_TRIPPED]:
            return None
        for code in codes:
            at = _RING + self._words[_ENDED] % WINDOW
            self._words[_BAD] += (code != 0) - (self._words[at] != 0)
            self._words[at] = code
            self._words[_ENDED] += 1
        count = min(self._words[_ENDED], WINDOW)
        if share >= 1 or count < LEAST or self._words[_BAD] <= share * count:
            return None
        return Stop("failures", _too_many(Counter(self._words[_RING + i] for i in range(count)), count))


def _too_many(codes: Counter[int], count: int) -> str:
    del codes[0]
    code, number = codes.most_common(1)[0]
    most = "no answer was seen" if code == NO_ANSWER else f"{code} {describe(code)}" if code != -2 else describe(code)
    return (
        f"{codes.total()} of the last {count} deliveries failed or are unknown, more than max_failures allows "
        f"(most, {number}: {most}); `fanoutd campaign resume` lets it go on"
    )


_FIELD = re.compile(r"data\.(\w+)")
_TAIL = re.compile(r"\s*(rid: |hint: ).*", re.DOTALL)


def detail(row: Row, errmsg: str) -> str:
    """What must be alike too: of a refused template, its field, or what WeChat says."""
    if row is not Row.FIELDS:
        return ""
    found = _FIELD.search(errmsg)
    return found[0] if found else _TAIL.sub("", errmsg)


def in_a_row(row: Row, errcode: int, errmsg: str) -> Stop:
    """Why a campaign stops at the limit of this row; the answer is the last of it."""
    said = f"{errcode} {errmsg or describe(errcode)}"
    number = LIMITS[row]
    if row is Row.STRANGERS:
        words = (
            f"{number} people in a row are unknown to this account ({said}): wrong account? "
            f"Compare its app_id with whose followers these are; {_AGAIN}"
        )
    elif row is Row.FIELDS:
        words = (
            f"message refused: for the first {number} people alike {detail(row, errmsg) or 'a value'} breaks the rules "
            f"of the template ({said}); compare the message with it in WeChat's console; {_AGAIN}"
        )
    elif row is Row.RESTRICTED:
        words = f"{number} people in a row are restricted ({said}): the account itself? See WeChat's console; {_AGAIN}"
    elif row is Row.CONTENT:
        words = f"WeChat refuses the message: {said} for {number} in a row; look at the audience's data; {_AGAIN}"
    else:
        words = f"{number} answers in a row that fanoutd does not know, the last {said}; {_AGAIN}"
    return Stop("message" if row in (Row.FIELDS, Row.CONTENT) else "refused", words)


def for_everyone(verdict: Verdict, errcode: int, errmsg: str) -> Stop:
    """Why a campaign stops at once, at an answer that would be the same for all."""
    known: Meaning = meaning(errcode)
    what = "message" if known.about == "M" and verdict is Verdict.STOP_CAMPAIGN else "account"
    said = f"{known.text} ({errcode} {errmsg})".replace(" )", ")")
    return Stop(what, f"WeChat refuses the {what}: {said}; {known.remedy}")
