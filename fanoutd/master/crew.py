"""The children: forked into their slots, listened to, reaped, asked to end, ended."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from fanoutd.board import Board
from fanoutd.child import Child
from fanoutd.config import Config
from fanoutd.master.channel import Channel
from fanoutd.master.forking import CannotFork, fork
from fanoutd.master.slots import Slot, State

_log = logging.getLogger(__name__)

#: The child's code by role, imported in the child only.
ENTRIES: Mapping[str, str] = {"dispatcher": "fanoutd.dispatcher.main", "worker": "fanoutd.worker.main"}

#: Rows of the board: more than there can be slots ([workers] count is at most 1000).
_ROWS = 1024
#: Seconds for a child that has closed its socket to end by itself.
_MUTE = 5.0

Descriptors = Callable[[], Iterable[int]]
Hear = Callable[[Slot, dict[str, Any]], None]


class Crew:
    """Slot 0 is the dispatcher's, 1 to N are workers'.

    ``descriptors`` names what of the master's a child closes, besides the other children's sockets;
    ``hear`` takes what a child says. Times are CLOCK_MONOTONIC.
    """

    def __init__(
        self, config: Config, node: str, entries: Mapping[str, str], selector: BaseSelector,
        descriptors: Descriptors, hear: Hear,
    ) -> None:
        self._config = config
        self._node = node
        self._entries = entries
        self._selector = selector
        self._descriptors = descriptors
        self._hear = hear
        self._channels: dict[int, Channel] = {}
        self.generation = 1
        self.board = Board(_ROWS)
        self.dispatcher = Slot(0, "dispatcher")
        self.workers = [Slot(number, "worker") for number in range(1, config.workers.count + 1)]

    @property
    def slots(self) -> list[Slot]:
        return [self.dispatcher, *self.workers]

    @property
    def alive(self) -> list[Slot]:
        """The slots with a child in them that has not been reaped."""
        return [slot for slot in self.slots if slot.pid is not None]

    def deadlines(self) -> list[float]:
        """When there is something to kill."""
        return [slot.kill_at for slot in self.slots if slot.kill_at is not None]

    def next_fill(self) -> float | None:
        """When the next empty slot may be filled."""
        return min((slot.not_before for slot in self.slots if slot.pid is None), default=None)

    def fill(self, now: float) -> Slot | None:
        """Fork into the first slot that waits for it: one a pass, so that the loop stays awake."""
        for slot in self.slots:
            if slot.pid is None and slot.not_before <= now:
                return slot if self._fork(slot, now) else None
        return None

    def _fork(self, slot: Slot, now: float) -> bool:
        self.board.clear(slot.number)
        master = os.getpid()

        def make(sock: socket.socket) -> Child:
            return Child(
                slot.role, slot.number, self.generation, self._config, self._node, sock, self.board, master
            )

        try:
            pid, sock = fork(self._entries[slot.role], make, self._inherited)
        except CannotFork as e:
            slot.failed(now, random.random())
            _log.error("%s cannot be forked: %s; again in %.1f s", slot.name, e, slot.not_before - now)
            return False
        slot.forked(pid, self.generation, now)
        self._channels[slot.number] = Channel(sock, self._selector, lambda events: self._stirs(slot, events))
        return True

    def _inherited(self) -> list[int]:
        return [*self._descriptors(), *(channel.fileno() for channel in self._channels.values())]

    def send(self, slot: Slot, message: dict[str, Any]) -> bool:
        """False when the child is gone or takes nothing."""
        channel = self._channels.get(slot.number)
        return channel is not None and channel.send(message)

    def _stirs(self, slot: Slot, events: int) -> None:
        channel = self._channels.get(slot.number)
        if channel and events & EVENT_WRITE:
            channel.flush()
        if channel and events & EVENT_READ:
            self._listen(slot, channel.receive)
            if channel.ended:
                slot.doom(time.monotonic() + _MUTE)

    def _listen(self, slot: Slot, receive: Callable[[], list[dict[str, Any]]]) -> None:
        try:
            messages = receive()
        except ValueError as e:
            _log.error("%s pid=%s writes no JSON: %s", slot.name, slot.pid, e)
            slot.doom(time.monotonic())
            return
        for message in messages:
            try:
                self._hear(slot, message)
            except Exception:  # what a child says must never end the master
                _log.exception("%s pid=%s says what is not understood", slot.name, slot.pid)

    def reap(self) -> list[tuple[Slot, int, int]]:
        """Every child that has ended: its slot, empty now, its pid and its wait status."""
        found: list[tuple[Slot, int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            slot = next((slot for slot in self.slots if slot.pid == pid), None)
            if slot is None:
                _log.info("reaped pid=%d, no child of ours", pid)
                continue
            self._bury(slot)
            found.append((slot, pid, status))

    def _bury(self, slot: Slot) -> None:
        """What it still said is heard first."""
        channel = self._channels[slot.number]
        self._listen(slot, channel.receive_all)
        del self._channels[slot.number]
        channel.close()
        slot.gone(time.monotonic(), random.random())

    def stop(self, slot: Slot, kill_at: float) -> None:
        """Ask it to finish what is on the wire and to end; it is killed if it has not by then."""
        if slot.pid is not None and slot.state is not State.DRAINING:
            slot.stop(kill_at)
            self.send(slot, {"t": "stop"})

    def quit(self, kill_at: float) -> None:
        """Ask all to end at once."""
        for slot in self.alive:
            slot.stop(kill_at)
            self.send(slot, {"t": "quit"})

    def enforce(self, now: float) -> None:
        """Kill those whose time is up. Until it is reaped a child's pid cannot be a stranger's."""
        for slot in self.alive:
            if slot.pid is not None and slot.kill_at is not None and slot.kill_at <= now:
                _log.warning("%s pid=%d has not ended in time: killed", slot.name, slot.pid)
                os.kill(slot.pid, signal.SIGKILL)
                slot.kill_at = None

    def close(self) -> None:
        """Let go of all children; who still lives sees end of file."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self.board.close()
