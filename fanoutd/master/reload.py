"""SIGHUP: a new configuration and new code come into force, or the old ones stay; never anything between.

    none -> working -> done | refused

The file is read and checked; a mold of the next generation imports the code; its dispatcher boots, and waits; one
worker of it, the canary, boots: only then is it in force, and the other workers follow one by one.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from fanoutd.config import Config
from fanoutd.errors import FanoutdError
from fanoutd.log import facts
from fanoutd.master.children import End
from fanoutd.master.crew import Crew
from fanoutd.master.slots import State, backoff

_log = logging.getLogger(__name__)

#: Dispatchers, or canaries, that may die before the generation is refused.
_DEATHS = 3

#: Called once with the generation in force and why the new one is not, or None.
Told = Callable[[int, str | None], None]


class Stage(StrEnum):
    NONE = "none"
    WORKING = "working"
    DONE = "done"
    REFUSED = "refused"


class Reload:
    """``load`` reads the configuration and raises FanoutdError; ``apply`` brings a new one into force in the
    master; ``tell`` says to the outside that it began (True) or ended, with the reason if it was refused."""

    def __init__(
        self, crew: Crew, load: Callable[[], Config], apply: Callable[[Config], None],
        tell: Callable[[bool, str | None], None],
    ) -> None:
        self._crew = crew
        self._load = load
        self._apply = apply
        self._tell = tell
        self._wanted = False
        self._applied = True
        self._deaths: Counter[str] = Counter()  # by role
        self._again_at = 0.0
        self._waiting: list[Told] = []
        self._number = 1  # of the last generation that was tried
        self.count = 0
        self.stage = Stage.NONE
        self.error: str | None = None

    def view(self) -> dict[str, Any]:
        """For the status: how many were asked for, how the last one stands, and why it was refused."""
        return {"count": self.count, "stage": self.stage.value, "error": self.error}

    def bequeath(self) -> dict[str, Any]:
        """For the program that takes over."""
        return {**self.view(), "number": self._number}

    def inherit(self, view: dict[str, Any], number: int) -> None:
        """As the program before us left it; ``number`` is the generation in force."""
        self.count, self.stage, self.error = view["count"], Stage(view["stage"]), view["error"]
        self._number = max(number, view["number"])

    def want(self, told: Told | None = None) -> None:
        """Begin at the next pass; one that is under way begins anew."""
        self._wanted = True
        self.count += 1
        if told is not None:
            self._waiting.append(told)

    def deadline(self) -> float:
        """When there is something to do that no message tells of."""
        if self._wanted:
            return 0.0
        return self._again_at if self._crew.candidate and self._again_at else float("inf")

    def work(self, now: float) -> None:
        """One pass."""
        if self._wanted:
            self._wanted = False
            self._begin()
        if self.stage is not Stage.WORKING:
            return
        candidate = self._crew.candidate
        if candidate is None:
            self._follow_up()
        elif candidate.trouble is not None:
            self._refuse(candidate.trouble)
        elif now >= self._again_at:
            self._again_at = 0.0
            self._crew.try_out(now)

    def _begin(self) -> None:
        self._crew.give_up_candidate()
        if self.stage is not Stage.WORKING:
            self._tell(True, None)
        self.stage, self.error = Stage.WORKING, None
        try:
            config = self._load()
        except FanoutdError as e:
            self._refuse(str(e))
            return
        self._number += 1
        self._deaths, self._again_at, self._applied = Counter(), 0.0, False
        _log.info("reloading", extra=facts(generation=self._number))
        self._crew.begin(config, self._number)

    def ended(self, end: End, words: str, now: float) -> None:
        """A child has ended: perhaps the candidate's mold, its dispatcher, or its canary."""
        candidate = self._crew.candidate
        role = end.slot.role
        in_vain = end.was is State.BOOTING or (role == "dispatcher" and end.was is not State.DRAINING)  # it only waited
        if candidate is None or end.slot.generation != candidate.number or not in_vain:
            return
        if role == "mold":
            candidate.trouble = candidate.trouble or f"the mold of generation {candidate.number} died: {words}"
            return
        self._deaths[role] += 1
        self._again_at = now + backoff(self._deaths[role] + 1, random.random())
        if self._deaths[role] >= _DEATHS:
            candidate.trouble = (
                f"{role}s of generation {candidate.number} do not boot: {self._deaths[role]} died, the last one with "
                f"{words}; the log says why"
            )

    def _follow_up(self) -> None:
        """The new generation is in force: done when everybody is of it."""
        if not self._applied:
            self._applied = True
            self._apply(self._crew.current.config)
            _log.info("generation %d is in force", self._crew.current.number)
        if self._crew.complete:
            self._finish(Stage.DONE, None)

    def _refuse(self, why: str) -> None:
        self._crew.give_up_candidate()
        _log.error("not reloaded: %s; generation %d goes on", why, self._crew.current.number)
        self._finish(Stage.REFUSED, why)

    def _finish(self, stage: Stage, error: str | None) -> None:
        self.stage, self.error = stage, error
        self._tell(False, error)
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(self._crew.current.number, error)

    def abandon(self, why: str) -> None:
        """The daemon is stopping."""
        self._wanted = False
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(self._crew.current.number, why)
