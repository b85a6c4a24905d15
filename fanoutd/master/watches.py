"""campaign.watch: clients that are told how a campaign goes, until it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from fanoutd.master.rpc import NO_SUCH_CAMPAIGN, RpcError

#: Seconds between two looks at a campaign: at most four notifications a second.
INTERVAL = 0.25

FINAL = frozenset({"done", "cancelled", "failed"})


class Viewer(Protocol):
    """A client that watches."""

    closed: bool

    def tell(self, campaign: dict[str, Any]) -> bool:
        """False when it takes nothing now."""

    def seen_enough(self) -> None:
        """This watch has ended."""


Look = Callable[[str], None]
"""Asks for a campaign; what comes of it is given to ``saw``."""


@dataclass(slots=True, eq=False)
class _Watcher:
    viewer: Viewer
    last: dict[str, Any]


@dataclass(slots=True)
class _Watched:
    next_look: float
    looking: bool = False
    watchers: list[_Watcher] = field(default_factory=list)


class Watches:
    """One look a campaign and interval, however many watch it. Times are CLOCK_MONOTONIC."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._watched: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, campaign: dict[str, Any], viewer: Viewer, now: float) -> None:
        """Tell of every change from this object on. One that is final already must not come here.

        A viewer is told once, however often it asked.
        """
        watched = self._watched.setdefault(campaign["id"], _Watched(now + INTERVAL))
        for each in watched.watchers:
            if each.viewer is viewer:
                each.last = campaign
                viewer.seen_enough()
                return
        watched.watchers.append(_Watcher(viewer, campaign))

    def due(self, now: float) -> None:
        """Look at those whose time has come."""
        for id, watched in list(self._watched.items()):
            if not watched.looking and watched.next_look <= now:
                watched.looking = True
                watched.next_look = now + INTERVAL
                self._look(id)

    def saw(self, id: str, campaign: Any, error: RpcError | None) -> None:
        """What a look brought. A store that does not answer is looked at again."""
        watched = self._watched[id]
        watched.looking = False
        if error is None:
            ended = [each for each in watched.watchers if not _goes_on(each, campaign)]
        else:
            lost = error.code == NO_SUCH_CAMPAIGN
            ended = [each for each in watched.watchers if lost or each.viewer.closed]
        for each in ended:
            watched.watchers.remove(each)
            each.viewer.seen_enough()
        if not watched.watchers:
            del self._watched[id]

    def of(self, viewer: Viewer) -> list[dict[str, Any]]:
        """The campaigns that it watches, as it last saw them."""
        return [
            each.last for watched in self._watched.values() for each in watched.watchers if each.viewer is viewer
        ]

    def deadlines(self) -> Iterable[float]:
        """When the next look is due."""
        return (each.next_look for each in self._watched.values() if not each.looking)


def _goes_on(watcher: _Watcher, campaign: dict[str, Any]) -> bool:
    if watcher.viewer.closed:
        return False
    if campaign != watcher.last and watcher.viewer.tell(campaign):
        watcher.last = campaign
    return watcher.last["state"] not in FINAL
