"""A campaign begins on a channel with a few requests: if everybody is refused alike, only those few have failed.

Until one answer shows that the channel works, the others of the campaign wait here, outside the account's queue.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

Key = tuple[str, int]
"""A campaign's id and the number of a channel."""


class Goer(Protocol):
    @property
    def key(self) -> Key:
        """Where they go next."""


T = TypeVar("T", bound=Goer)


class Trials(Generic[T]):
    """One account's. ``room``: how many requests may be on the wire for this key; None when the trial is over."""

    def __init__(self, room: Callable[[Key], int | None]) -> None:
        self._room = room
        self._open: set[Key] = set()
        self._out: Counter[Key] = Counter()
        self._held: defaultdict[Key, deque[T]] = defaultdict(deque)

    def __len__(self) -> int:
        """Those who wait here."""
        return sum(len(held) for held in self._held.values())

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._held.values())

    def expect(self, keys: Iterable[Key]) -> None:
        """Somebody comes who goes there."""
        self._open.update(key for key in keys if key not in self._open and self._room(key) is not None)

    @property
    def stalled(self) -> bool:
        """Somebody waits here for an answer, and nothing is out that would bring one: whoever was let through has
        ended without a call."""
        return any(held and not self._out[key] for key, held in self._held.items())

    def line_up(self, comers: Sequence[T], ready: deque[T]) -> None:
        """Somebody was claimed: behind all who wait."""
        self.expect({each.key for each in comers})
        if not self._open:
            ready.extend(comers)
        for each in comers if self._open else ():
            self._held[each.key].append(each)

    def started(self, key: Key) -> None:
        self._out[key] += 1

    def ended(self, key: Key) -> None:
        self._out[key] -= 1
        if not self._out[key]:
            del self._out[key]

    def sift(self, ready: deque[T]) -> None:
        """Leave in ``ready`` those who may start, in their order.

        Who was let through before and has not started yet, for the account's rate, goes before whoever waits here.
        """
        if not self._open:
            return
        waiting = [*ready, *self]
        self._held.clear()
        ready.clear()
        room = {key: self._room(key) for key in self._open}
        self._open = {key for key, free in room.items() if free is not None}
        left = {key: max(0, free - self._out[key]) for key, free in room.items() if free is not None}
        for each in waiting:
            key = each.key
            if left.get(key, 1) > 0:
                ready.append(each)
                if key in left:
                    left[key] -= 1
            else:
                self._held[key].append(each)

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Let go of those who are not wanted."""
        for key, held in list(self._held.items()):
            self._held[key] = deque(each for each in held if wanted(each))
            if not self._held[key]:
                del self._held[key]
