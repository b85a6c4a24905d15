"""The processes below the master: how they come, are spoken to, and go. Which there should be is the crew's."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from fanoutd.board import Board, Row
from fanoutd.child import Recipe
from fanoutd.config import Config
from fanoutd.log import facts, hide
from fanoutd.master.channel import Channel
from fanoutd.master.forking import CannotFork, fork_mold
from fanoutd.master.slots import ABORT_GRACE, Pardons, Slot, State
from fanoutd.master.takeover import Document, to_bytes

_log = logging.getLogger(__name__)

#: The children's code by role, imported in the mold only.
ENTRIES: Mapping[str, str] = {"dispatcher": "fanoutd.dispatcher.main", "worker": "fanoutd.worker.main"}

#: Rows of the board: [workers] count is at most 1000, and while one generation follows another there are two.
_ROWS = 4096
#: Seconds for a child that has closed its socket to end by itself.
_MUTE = 5.0

Message = dict[str, Any]
Descriptors = Callable[[], Iterable[int]]
Hear = Callable[[Slot, Message], None]


@dataclass(frozen=True, slots=True)
class End:
    """A child has ended. ``was`` is its state until then, ``status`` that of waitpid, None for one that
    was asked for and never came to be."""

    slot: Slot
    pid: int | None
    was: State
    status: int | None


class Children:
    """``descriptors`` names what of the master's a mold closes, besides the children's sockets; ``hear``
    takes what a child says. Times are CLOCK_MONOTONIC."""

    def __init__(
        self, node: str, entries: Mapping[str, str], selector: BaseSelector, descriptors: Descriptors, hear: Hear,
        board: int | None = None,
    ) -> None:
        """``board``: the descriptor of one that is there already."""
        self._node = node
        self._entries = entries
        self._selector = selector
        self._descriptors = descriptors
        self._hear = hear
        self._links: dict[int, tuple[Slot, Channel]] = {}  # by row
        self._strangers: dict[int, Callable[[int], None]] = {}
        self._lost: list[End] = []
        self._pardons = Pardons()
        self.board = Board(_ROWS, board)

    @property
    def alive(self) -> list[Slot]:
        """Those asked for or forked and not yet reaped."""
        return [slot for slot, _ in self._links.values()]

    def read(self, slot: Slot) -> Row:
        """What the child says of itself on the board."""
        return self.board.read(slot.row)

    # ---- they come

    def fork_mold(self, slot: Slot, config: Config, now: float) -> None:
        """Fork into the empty slot the mold of the generation ``slot.number``."""
        master = os.getpid()

        def make(sock: socket.socket) -> Recipe:
            hide(config.secrets())  # its generation's own, from the first line
            return Recipe(slot.number, config, self._node, self._entries, self.board, master, sock)

        try:
            pid, sock = fork_mold(make, self._inherited)
        except CannotFork as e:
            self._cannot(slot, str(e), now)
            return
        slot.asked(self._free_row(), slot.number, now)
        slot.pid = pid
        self._link(slot, sock)
        _log.info("%s started", slot.name, extra=facts(slot=slot.place, pid=pid, generation=slot.number))

    def ask(self, mold: Slot, slot: Slot, now: float) -> bool:
        """Ask the mold for a child in the empty slot; False when that has to be tried again."""
        row = self._free_row()
        try:
            ours, theirs = socket.socketpair()
        except OSError as e:
            self._cannot(slot, e.strerror or str(e), now)
            return False
        with theirs:
            self.board.clear(row)
            request = {"t": "fork", "role": slot.role, "slot": slot.number, "row": row}
            if not self._links[mold.row][1].pass_on(request, theirs):
                ours.close()
                return False
        ours.setblocking(False)
        slot.asked(row, mold.generation, now)
        self._link(slot, ours)
        return True

    def _cannot(self, slot: Slot, why: str, now: float) -> None:
        slot.failed(now, random.random())
        wait = slot.not_before - now
        _log.error("%s cannot be forked: %s; again in %.1f s", slot.name, why, wait, extra=facts(slot=slot.place))

    def _free_row(self) -> int:
        return next(row for row in range(_ROWS) if row not in self._links)

    def _link(self, slot: Slot, sock: socket.socket) -> None:
        self._links[slot.row] = slot, Channel(sock, self._selector, partial(self._stirs, slot))

    def _inherited(self) -> list[int]:
        return [*self._descriptors(), *(channel.fileno() for _, channel in self._links.values())]

    # ---- they are spoken to

    def send(self, slot: Slot, message: Message) -> bool:
        """False when there is none, or it takes nothing."""
        link, at = self._links.get(slot.row), time.monotonic()
        owes = slot.told_at is not None and self._heartbeat(slot) < slot.told_at
        if link is None or not link[1].send(message):
            return False
        if slot.role != "mold" and not owes:
            slot.told_at = at  # not later: it may have been read by now, with a sign of life after it
        return True

    def tell_all(self, message: Message) -> None:
        for slot in self.alive:
            self.send(slot, message)

    def dismiss(self, mold: Slot, kill_at: float) -> None:
        """Want no more children of it: it ends at the end of file, when what was asked for is done."""
        link = self._links.get(mold.row)
        if link is not None:
            if mold.state is State.BOOTING and mold.pid is not None:
                os.kill(mold.pid, signal.SIGTERM)  # it reads nothing before it has imported everything
            mold.stop(kill_at)
            link[1].finish()

    def _stirs(self, slot: Slot, events: int) -> None:
        link = self._links.get(slot.row)
        if link is None or link[0] is not slot:
            return
        if events & EVENT_WRITE:
            link[1].flush()
        if events & EVENT_READ:
            self._listen(slot, link[1], link[1].receive)

    def _listen(self, slot: Slot, channel: Channel, receive: Callable[[], list[Message]]) -> None:
        try:
            messages = receive()
        except ValueError as e:
            _log.error("%s writes no JSON: %s", slot.name, e, extra=facts(pid=slot.pid))
            slot.doom(time.monotonic())
            return
        for message in messages:
            try:
                self._heard(slot, message)
            except Exception:  # what a child says must never end the master
                _log.exception("%s says what is not understood", slot.name, extra=facts(pid=slot.pid))
        if channel.ended:
            self._mute(slot)

    def _mute(self, slot: Slot) -> None:
        """It will never say anything again."""
        if slot.pid is not None:
            slot.doom(time.monotonic() + _MUTE)
        elif not slot.empty:
            self._never_was(slot, "nobody came")

    def _heard(self, slot: Slot, message: Message) -> None:
        if message["t"] == "born":
            slot.pid = int(message["pid"])
            _log.info("%s started", slot.name, extra=facts(slot=slot.place, pid=slot.pid, generation=slot.generation))
        elif message["t"] == "failed":
            link = self._links.get(message["row"])
            if link is not None and link[0].pid is None:
                self._never_was(link[0], message["error"])
        else:
            self._hear(slot, message)

    # ---- they go

    def _never_was(self, slot: Slot, why: str) -> None:
        was = slot.state
        self._unlink(slot)
        self._cannot(slot, why, time.monotonic())
        self._lost.append(End(slot, None, was, None))

    def _unlink(self, slot: Slot) -> None:
        _, channel = self._links.pop(slot.row)
        channel.close()

    def reap(self) -> list[End]:
        """Every child that has ended since the last call; their slots are empty now."""
        found, self._lost = self._lost, []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            stranger = self._strangers.pop(pid, None)
            slot = None if stranger else self._of(pid)
            if stranger is not None:
                stranger(status)
            elif slot is None:
                _log.info("reaped pid=%d, no child of ours", pid)
            else:
                found.append(self._bury(slot, pid, status))

    def expect(self, pid: int, ended: Callable[[int], None]) -> None:
        """This one is a child of the master's that fills no slot; ``ended`` is given its wait status."""
        self._strangers[pid] = ended

    def _of(self, pid: int) -> Slot | None:
        """Whose pid it is. One that has just been born may have said so without having been heard yet."""
        for slot in self.alive:
            if slot.pid is None:
                channel = self._links[slot.row][1]
                self._listen(slot, channel, channel.receive_all)
        return next((slot for slot in self.alive if slot.pid == pid), None)

    def _bury(self, slot: Slot, pid: int, status: int) -> End:
        """What it still said is heard first."""
        channel = self._links[slot.row][1]
        self._listen(slot, channel, channel.receive_all)
        was, now = slot.state, time.monotonic()
        innocent = was is State.IDLE and not slot.woken and os.WIFSIGNALED(status)
        self._unlink(slot)
        slot.gone(now, random.random(), innocent and self._pardons.take(now))
        return End(slot, pid, was, status)

    # ---- they are made to go

    def stop(self, slot: Slot, kill_at: float, last: bool = False) -> None:
        """Ask it to finish what is on the wire and to end; it is killed if it has not by then. ``last``: nobody takes
        its place."""
        if not slot.empty and slot.state is not State.DRAINING:
            slot.stop(kill_at)
            self.send(slot, {"t": "stop", "last": last})

    def quit(self, kill_at: float) -> None:
        """Ask all to end at once."""
        for slot in self.alive:
            if slot.role == "mold":
                self.dismiss(slot, kill_at)
            slot.stop(kill_at)
            self.send(slot, {"t": "quit"})

    def deadlines(self) -> list[float]:
        """When there is something to kill."""
        return [slot.kill_at for slot in self.alive if slot.kill_at is not None]

    def enforce(self, now: float, hang_timeout: float) -> None:
        """Kill those whose time is up. Until it is reaped a child's pid cannot be a stranger's."""
        for slot in self.alive:
            if slot.kill_at is not None and slot.kill_at <= now:
                self._kill(slot)
            else:
                why = slot.overdue(now, partial(self._heartbeat, slot), hang_timeout)
                if why is not None:
                    self._abort(slot, why, now)

    def _heartbeat(self, slot: Slot) -> float:
        return self.read(slot).heartbeat

    def _abort(self, slot: Slot, why: str, now: float) -> None:
        """SIGABRT first: it has the child write down where it hangs."""
        _log.error("%s %s: aborted", slot.name, why, extra=facts(slot=slot.place, pid=slot.pid, reason=why))
        slot.doom(now + ABORT_GRACE)
        if slot.pid is not None:
            os.kill(slot.pid, signal.SIGABRT)
        else:
            self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        """The mold did not bring it: the mold hangs. When a child comes after all, it sees end of file."""
        for mold in self.alive:
            if mold.role == "mold" and mold.number == slot.generation:
                mold.doom(time.monotonic())
        self._never_was(slot, "its mold did not answer")

    def _kill(self, slot: Slot) -> None:
        _log.warning("%s has not ended in time: killed", slot.name, extra=facts(slot=slot.place, pid=slot.pid))
        slot.kill_at = None
        if slot.pid is not None:
            os.kill(slot.pid, signal.SIGKILL)
        else:
            self._never_was(slot, "it was not born in time")

    # ---- they are handed over

    def bequeath(self, slot: Slot) -> Document:
        """For the program that takes over."""
        link = self._links.get(slot.row)
        return {"slot": asdict(slot), "link": link[1].bequeath() if link else None}

    def inherit(self, document: Document) -> Slot:
        """Take over a slot, and who is in it."""
        known = {each.name for each in fields(Slot)}  # what another version calls otherwise starts anew
        given = {key: value for key, value in document["slot"].items() if key in known}
        slot = Slot(**{**given, "state": State(given["state"])})
        link = document["link"]
        if link is not None:
            sock = socket.socket(fileno=link["fd"])
            sock.set_inheritable(False)
            half_read, unsent = to_bytes(link["half_read"]), to_bytes(link["unsent"])
            stirs = partial(self._stirs, slot)
            self._links[slot.row] = slot, Channel(sock, self._selector, stirs, half_read, unsent)
        return slot

    def forgive(self, seconds: float) -> None:
        """The master was stopped for so long: nobody is killed for it."""
        now = time.monotonic()
        for slot in self.alive:
            slot.forgive(seconds, now)

    def close(self) -> None:
        """Let go of all children; who still lives sees end of file."""
        for slot in self.alive:
            self._unlink(slot)
        self.board.close()


def in_words(wait_status: int | None) -> str:
    """``exit code 3``, ``SIGKILL``: how a process ended, from waitpid's status."""
    if wait_status is None:
        return "never forked"
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
