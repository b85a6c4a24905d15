"""How nodes divide an account's rate through their store: pure rules, with the clock passed in.

The store has a row for each node, with the part that it holds. Whoever wants more takes, under a lock, no more than the
others leave; so what is written never sums to more than the rate. What is written is what is used, or more than that:

* A node goes slower before it writes a smaller part, and faster only after the commit of a larger one.
* A part is good for ``term`` after its node's last beat. The node counts that from before it asked the store; the
  others count it from when they first saw that beat, and some more. No two clocks need agree, not even on a date:
  each measures spans on its own CLOCK_BOOTTIME.

Rates are thousandths of a call a second, whole numbers. Between several nodes parts are whole calls a second: of
fractions each node would make a whole call in some second, and all of them together too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

#: One call a second.
CALL = 1000

#: Seconds for which a part is good after its node's last beat (a dispatcher that dies has a successor by then), and
#: after the last beat of a node that stops in order.
TERM, LAST_TERM = 10.0, 2.0

#: How much longer the others wait, in seconds: a call that was permitted at the last moment leaves a little later.
MARGIN = 1.5

#: All who have nothing to send keep so much of the rate together, to begin with: a twentieth.
IDLE = 20

#: A part that is not used up is still this much larger than what is used; and a node says what it wants in such steps
#: of the rate, so that parts do not change with every beat.
ROOM, STEPS = 1.25, 20

#: From this share of its part on a node is held to use all of it, and to want more.
USED_UP = 0.9


@dataclass(frozen=True, slots=True)
class Share:
    """A node's row. ``part`` is what it holds, ``rate`` what its configuration allows the whole account."""

    node: str
    part: int
    rate: int
    wants: int
    """What it could use: 0 for nothing to send, ``rate`` for all there is."""
    term: float
    beat: int
    """Another number with each beat."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What a node writes: its part, once these rows are gone."""

    part: int
    gone: tuple[Share, ...] = ()


def thousandths(rate: float) -> int:
    return max(1, int(rate * CALL + 1e-6))


def wanted(rate: int, part: int, used: float, hungry: bool) -> int:
    """What a node with work should say it wants: it used ``used`` thousandths; ``hungry``: more would have gone out."""
    if hungry or used >= part * USED_UP:
        return rate
    step = max(CALL, rate // STEPS)
    return min(rate, max(1, -(-int(used * ROOM) // step)) * step)


def divide(rate: int, wants: Mapping[str, int], turn: int = 0) -> dict[str, int]:
    """By node its part: as much as it wants, or as fair a share as there is. Who has nothing to send keeps little.

    Where there are fewer calls a second than nodes, ``turn`` says whose they are.
    """
    busy = sorted(node for node in wants if wants[node] > 0) or sorted(wants)
    idle = [node for node in wants if node not in busy]
    parts = dict.fromkeys(idle, _whole(rate // IDLE // len(idle)) if idle else 0)
    left = rate - sum(parts.values())
    if len(busy) == 1:
        return {**parts, busy[0]: left}
    if left // CALL < len(busy):
        return {**parts, **_by_turns(left, busy, turn)}
    return {**parts, **_level(left // CALL, {node: -(-wants[node] // CALL) or rate for node in busy})}


def _by_turns(left: int, busy: list[str], turn: int) -> dict[str, int]:
    first = turn % len(busy)
    order = busy[first:] + busy[:first]
    if left < CALL:
        return {node: left * (node == order[0]) for node in order}
    return {node: CALL * (place < left // CALL) for place, node in enumerate(order)}


def _level(calls: int, wants: Mapping[str, int]) -> dict[str, int]:
    """Whoever wants less than an even share gets what it wants; what is over at last is for all."""
    parts: dict[str, int] = {}
    for place, node in enumerate(sorted(wants, key=lambda each: (wants[each], each))):
        parts[node] = min(wants[node], calls // (len(wants) - place))
        calls -= parts[node]
    more, odd = divmod(calls, len(wants))
    return {node: (parts[node] + more + (place < odd)) * CALL for place, node in enumerate(sorted(parts))}


def _whole(part: int) -> int:
    return part // CALL * CALL


class Holder:
    """One node's side of one account. ``rate`` is what it is configured to, ``wants`` what it could use now.

    ``shares`` are always all rows of the account, as one reading of the store shows them. Times are of one clock, in
    seconds, that nobody sets.
    """

    def __init__(self, node: str, rate: int) -> None:
        self.node, self.rate, self.wants = node, rate, 0
        self._seen: dict[str, tuple[int, float]] = {}

    def saw(self, shares: Iterable[Share], after: float) -> None:
        """``after``: when the answer was there, or later."""
        known = self._seen
        self._seen = {
            each.node: known[each.node] if known.get(each.node, (None,))[0] == each.beat else (each.beat, after)
            for each in shares if each.node != self.node
        }  # fmt: skip

    def gone(self, shares: Iterable[Share], at: float) -> tuple[Share, ...]:
        """Those whose part has ended by ``at``, if their beat is still the same."""
        return tuple(
            each for each in shares
            if each.node in self._seen and self._seen[each.node][0] == each.beat
            and at >= self._seen[each.node][1] + each.term + MARGIN
        )  # fmt: skip

    def whole(self, shares: Iterable[Share]) -> int:
        """The account's rate: the lowest that any node is configured to, so that a lower one holds at once and a
        higher one when all know it."""
        return min([each.rate for each in shares if each.node != self.node] + [self.rate])

    def keeps(self, shares: Iterable[Share], turn: int) -> int:
        """What it may go on with, before it has written anything: never more than it holds."""
        rows = self._rows(shares)
        return min(rows[self.node].part, self._aim(rows, turn))

    def step(self, shares: Iterable[Share], local: int, at: float, turn: int) -> Deed:
        """What to write under the lock, to which ``shares`` and ``at`` belong; ``local`` is what it uses now."""
        shares = tuple(shares)
        gone = self.gone(shares, at)
        rows = self._rows(each for each in shares if each not in gone)
        free = self.whole(rows.values()) - sum(each.part for each in rows.values() if each.node != self.node)
        return Deed(max(min(local, rows[self.node].part), min(self._aim(rows, turn), free)), gone)

    def due(self, shares: Iterable[Share], local: int, at: float, turn: int) -> bool:
        """Whether the lock is needed: to write, or to be sure that what the row says is what it will still say. (A
        transaction whose answer was lost may yet be committed, but then it has the lock.)"""
        shares = tuple(shares)
        mine = next((each for each in shares if each.node == self.node), None)
        deed = self.step(shares, local, at, turn)
        return mine is None or (mine.rate, mine.part, local) != (self.rate, deed.part, deed.part) or bool(deed.gone)

    def _rows(self, shares: Iterable[Share]) -> dict[str, Share]:
        rows = {each.node: each for each in shares}
        mine = rows.get(self.node) or Share(self.node, 0, self.rate, 0, TERM, 0)
        return {**rows, self.node: replace(mine, rate=self.rate, wants=self.wants)}

    def _aim(self, rows: Mapping[str, Share], turn: int) -> int:
        parts = divide(self.whole(rows.values()), {each.node: each.wants for each in rows.values()}, turn)
        return parts[self.node]
