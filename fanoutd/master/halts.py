"""Campaigns of which no worker may start anything more: who of them has said so, and who has died instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fanoutd.master.children import Children
from fanoutd.master.slots import Slot, State

Message = dict[str, Any]


class Halts:
    """The dispatcher asks by number and campaign; it is told when every worker of this node has obeyed or is gone."""

    def __init__(self, children: Children, tell_dispatcher: Callable[[Message], object]) -> None:
        self._children = children
        self._tell_dispatcher = tell_dispatcher
        self._open: dict[int, list[Slot]] = {}

    def begin(self, number: int, campaign: str) -> None:
        """Ask all who have been told of work. One that boots has nothing, and reads in the store what runs."""
        asked = [slot for slot in self._children.alive if slot.role == "worker" and slot.state is not State.BOOTING]
        self._open[number] = asked
        for slot in asked:
            self._children.send(slot, {"t": "halt", "n": number, "campaign": campaign})
        self._settle(number)

    def obeyed(self, slot: Slot, number: int) -> None:
        self._without(slot, [number] if number in self._open else [])

    def ended(self, slot: Slot) -> None:
        """Its process is gone, and starts nothing any more."""
        self._without(slot, list(self._open))

    def _without(self, slot: Slot, numbers: list[int]) -> None:
        for number in numbers:
            self._open[number] = [each for each in self._open[number] if each is not slot]
            self._settle(number)

    def _settle(self, number: int) -> None:
        if not self._open[number]:
            del self._open[number]
            self._tell_dispatcher({"t": "halted", "n": number})
