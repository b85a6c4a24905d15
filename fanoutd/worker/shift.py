"""A worker at work: people from the recorder, requests on the wire, outcomes back, one turn after the other."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable

from fanoutd.bucket import now
from fanoutd.child import Child
from fanoutd.figures_file import Meter
from fanoutd.worker.answers import Answers
from fanoutd.worker.display import BOARD_EVERY, Display
from fanoutd.worker.fatigue import Fatigue
from fanoutd.worker.lanes import Lanes
from fanoutd.worker.recorder import Recorder
from fanoutd.worker.starts import Starts
from fanoutd.worker.stops import Stops
from fanoutd.worker.takes import Takes
from fanoutd.worker.tallies import tallies_path
from fanoutd.worker.watch import Watch
from fanoutd.worker.wire import Wire
from fanoutd.worker.words import Broken, Claimed, Dry, Finished, Lost, NoRoom, Resting, TokenRead, Word

log = logging.getLogger("fanoutd.worker")


class Shift:
    """From when the worker is first woken to its end, with pauses in which it is idle.

    ``halted``: campaigns of which nothing may be started. ``say`` speaks to the master.
    """

    def __init__(
        self, child: Child, epoll: select.epoll, recorder: Recorder, meter: Meter, display: Display, fatigue: Fatigue,
        halted: set[str], say: Callable[[dict[str, object]], None],
    ) -> None:  # fmt: skip
        config, desk, journals = child.config, recorder.desk, recorder.journals
        self._recorder, self._desk, self._display, self._fatigue = recorder, desk, display, fatigue
        self._say = say
        self._wire = wire = Wire(epoll, config.workers.concurrency)
        watch = Watch(tallies_path(config.daemon.state_dir), config.workers.count)
        self._lanes = lanes = Lanes(config, desk, watch.room, halted)
        self._takes = Takes(config, lanes, desk, watch)
        stops = Stops(lanes, desk, watch, say)
        self._answers = answers = Answers(lanes, desk, journals, watch, stops, meter, display.figures)
        self._starts = Starts(lanes, wire, desk, journals, watch, say, answers.close)
        self._busy = False
        self._looking = 0  # the number of the open call for people, 0: none
        self._dry = True
        self.finished = False

    # ---- the master's words

    def wake(self) -> None:
        """There may be people."""
        self._dry = False
        if not self._busy:
            self._busy = True
            self._say({"t": "busy"})

    def read_token(self, account: str) -> None:
        """There is a new one."""
        self._desk.read_token(account)

    def let_go(self, campaign: str) -> None:
        """It is halted."""
        self._lanes.let_go(campaign)

    def stop(self) -> None:
        """Start nothing more; what is on the wire ends, the rest is handed back. ``finished`` when that is so."""
        self._lanes.stop()
        self._desk.finish()

    # ---- the loop

    def turn(self, on_wire: list[tuple[int, int]]) -> None:
        """Hear the recorder, take these epoll events of the wire, start what may be started."""
        inbox = self._recorder.inbox
        while inbox:
            self._hear(inbox.popleft())
        for context, answer in self._wire.step(on_wire):
            self._answers.ended(context, answer)
        if not self._lanes.stopping:
            self._starts.send()
        self._look()

    def timeout(self) -> float | None:
        """Seconds until the next turn if nothing happens; None: no limit."""
        at = now()
        waits = [self._wire.timeout(), *(lane.wait(at, self._wire.free) for lane in self._lanes)]
        if self._busy:
            waits.append(BOARD_EVERY)
        known = [w for w in waits if w is not None]
        return min(known) if known else None

    def _hear(self, word: Word) -> None:
        if isinstance(word, Claimed):
            self._looking = 0
            self._takes.take(word)
        elif isinstance(word, Lost):
            self._lanes.withdraw(lambda job: job.hold is word.hold)
        elif isinstance(word, Dry):
            self._looking = 0
            self._dry = True
        elif isinstance(word, NoRoom):
            self._no_room(word)
        elif isinstance(word, Resting):
            self._lanes.rest(self._lanes.of(word.account), word.channels)
        elif isinstance(word, TokenRead):
            self._lanes.token_read(word.account, word.token)
        elif isinstance(word, Finished):
            self.finished = True
        elif isinstance(word, Broken):
            # Not patched up: the process ends, and its journal says what is what.
            raise RuntimeError("the recorder failed") from word.error

    def _no_room(self, word: NoRoom) -> None:
        """Nobody is claimed whose sending could not be written down; the dispatcher wakes us again."""
        self._looking = 0
        self._dry = True
        log.error("the journal cannot grow: %s; nothing is sent until the disk has room", word.error.strerror)

    def _look(self) -> None:
        """Ask for people before the wire runs dry; go idle when there are none."""
        enough = self._recorder.speed.enough
        if not self._looking and not self._dry and not self._lanes.stopping and self._lanes.on_hand < enough:
            self._looking = self._desk.ask()
        if not self._busy:
            return
        if self._dry and not self._lanes.waiting and not self._wire.busy and not self._looking:
            self._idle()
        elif self._display.figures.due():
            self._show()
            why = self._fatigue.complaint(self._display.figures.ended)
            if why:
                self._say({"t": "recycle", "why": why})

    def _idle(self) -> None:
        self._busy = False
        self._desk.flush()
        self._display.figures.rest()
        self._show()
        self._takes.forget()
        self._lanes.halted.clear()  # whoever claims for it from here on has read in the store that it runs again
        self._say({"t": "idle"})

    def _show(self) -> None:
        self._display.show(self._recorder.late_since)
        self._display.entitle(self._recorder.shares)
