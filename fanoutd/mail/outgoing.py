"""What waits to be mailed, and a round of handing it in. One thread makes the rounds; events may come from any.

What a server surely did not take waits on as events, and is folded anew with what came meanwhile. What it may have
taken is a parcel: the same mail again, with the same Message-ID, until it says so. What only some recipients were
refused is one too, for these alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from fanoutd.config import addresses
from fanoutd.mail.event import Event
from fanoutd.mail.folding import Pace, Past, Waiting, plan
from fanoutd.mail.letter import Letterhead, bounded, compose, in_short, message_id, urgent, wire
from fanoutd.mail.retry import Retry
from fanoutd.mail.smtp import NoSession, NotSent, Patience, Session, Unclear, refusals, session
from fanoutd.mail.spool import MailSpool, Parcel

log = logging.getLogger(__name__)

#: Seconds until what cannot be mailed is given up; and for which we have tried ourselves by then, since a clock that is
#: set makes all of it old.
_GIVEN_UP, _TRIED = 7 * 86_400.0, 3600.0
#: Seconds between two looks for what others have put into the spool.
_RESCAN = 30.0
#: Mails that some recipients are refused, kept for them.
_MOST_PARCELS = 100
#: Events that wait: of a kind so many are kept in full, of others their lines, which are all that a mail shows of them;
#: and so many altogether, but for urgent ones.
_IN_FULL, _MOST = 100, 10_000


@dataclass(slots=True)
class _InHand:
    parcel: Parcel
    keys: frozenset[str]
    came: float
    retry: Retry = field(default_factory=Retry)


class Outgoing:
    """``clock`` counts seconds, ``wall`` those since 1970. Set ``stopping`` to have a round end after the mail in hand,
    and ``nudged`` to have the next one try at once whatever is paused."""

    def __init__(
        self, spool: MailSpool, head: Letterhead, pace: Pace, patience: Patience,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._spool, self._head, self._pace, self._patience = spool, head, pace, patience
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._waiting: dict[str, Waiting] = {}
        self._unkept: dict[str, Event] = {}  # for which there was no room on disk
        self._settled: set[str] = set()  # that could not be taken off the disk
        self._parcels: list[_InHand] = []
        self._past, self._refused, self._server = Past(), dict[str, Retry](), Retry()
        self._scanned = float("-inf")
        self.last_error: str | None = None
        self.last_sent: float | None = None
        self.stopping = False
        self.nudged = False

    def put(self, event: Event) -> None:
        """Have it mailed; it is on disk on return if there is room."""
        event, room = self._bounded(bounded(event))
        if not room:
            return
        try:
            if not self._spool.put(event):
                return
        except OSError as e:
            log.error("mail/%s cannot be kept, and is lost if the daemon ends before it is mailed: %s", event.id, e)
            self._unkept[event.id] = event
        self._take(event)

    def _bounded(self, event: Event) -> tuple[Event, bool]:
        """While a server is away for days the disk must not fill up with what no mail would show."""
        with self._lock:
            known, count = event.id in self._waiting, len(self._waiting)
            alike = sum(1 for each in self._waiting.values() if each.kind == event.kind) if event.kind else 0
        if known or urgent(event.subject):
            return event, True
        if count >= _MOST:
            log.error("%d mails wait, and this one is told only here: %s", count, event.line or event.subject)
            return event, False
        return (event if alike < _IN_FULL else replace(event, text=event.line, html=None)), True

    def __len__(self) -> int:
        """Events that somebody has not got yet."""
        return len(self._waiting) + sum(len(each.parcel.events) for each in self._parcels)

    def open(self) -> None:
        """Take up what is on disk. Raises OSError."""
        self._spool.prepare()
        self._parcels.clear()
        self.last_sent = self._spool.last_sent()
        known = {addresses.split(line)[1] for line in self._head.mail.to}
        for parcel in self._spool.parcels():
            to = None if parcel.to is None else tuple(each for each in parcel.to if each in known)
            events = self._read(parcel.events)
            if to == () or len(events) < len(parcel.events):  # it was mailed, or nobody is to have it any more
                self._done(parcel)
            else:
                self._parcels.append(_InHand(replace(parcel, to=to), _keys(events), self._clock()))

    def round(self) -> float:
        """Hand in what is due now. Returns when to look again, by the clock. Raises OSError."""
        now = self._clock()
        if self.nudged:
            self.nudged = False
            self._pause_no_longer()
        if now >= self._scanned + _RESCAN:
            self._scan()
            self._scanned = now
        if now < self._server.due:
            return self._server.due
        parcels, mails, wake = self._due(now)
        if not parcels and not mails:
            return min(wake, self._scanned + _RESCAN)
        try:
            with session(self._head.mail.relay, self._patience) as opened:
                self._hand_in(opened, parcels, mails)
        except NoSession as e:
            seconds = self._server.failed(self._clock())
            self._failed(f"{e}", seconds)
        except Unclear:
            pass  # said already; the connection is gone, the others go with the next one
        return self._clock()

    def _pause_no_longer(self) -> None:
        for retry in (self._server, *self._refused.values(), *(each.retry for each in self._parcels)):
            retry.due = 0.0

    def _due(self, now: float) -> tuple[list[_InHand], list[list[Waiting]], float]:
        held = {key: retry.due for key, retry in self._refused.items()}
        for each in self._parcels:
            if each.parcel.to is None:  # those of its kind wait until it is known what became of it
                held |= dict.fromkeys(each.keys, float("inf"))
        ours = {name for each in self._parcels for name in each.parcel.events}  # and may have been told again
        with self._lock:
            waiting = [each for each in self._waiting.values() if each.id not in ours]
        found = plan(waiting, self._past, held, self._pace, now)
        wakes = [each.retry.due for each in self._parcels]
        wakes += [] if found.wake is None else [found.wake]
        return [each for each in self._parcels if each.retry.due <= now], found.mails, min(wakes, default=float("inf"))

    def _hand_in(self, opened: Session, parcels: Sequence[_InHand], mails: Sequence[Sequence[Waiting]]) -> None:
        """Raises NoSession, Unclear: what was not tried is due still."""
        for mail in mails:
            if self.stopping:
                return
            self._first_time(opened, mail)
        for each in parcels:
            if self.stopping:
                return
            self._again(opened, each)

    def _first_time(self, opened: Session, mail: Sequence[Waiting]) -> None:
        events = self._read([each.id for each in mail])
        if not events:
            self._leave_out([each.id for each in mail])
            return
        parcel = Parcel(self._name(events), tuple(each.id for each in events), None, self._wall())
        self._pack(parcel)
        keys = frozenset(each.key for each in mail)
        try:
            self._send(opened, parcel, events)
        except NotSent as e:
            self._spool.unpack(parcel)
            if not isinstance(e, NoSession):
                self._put_off(keys, str(e))
                return
            raise
        except Unclear as e:
            in_hand = _InHand(parcel, keys, self._clock())
            self._parcels.append(in_hand)
            self._leave_out(parcel.events)
            self._failed(str(e), in_hand.retry.failed(self._clock()))
            raise
        self._past.note(mail, self._clock())
        self._leave_out([each.id for each in mail])

    def _again(self, opened: Session, each: _InHand) -> None:
        events = self._read(each.parcel.events)
        self._parcels.remove(each)
        if len(events) < len(each.parcel.events):  # somebody has taken them away
            self._done(each.parcel)
            return
        try:
            self._send(opened, each.parcel, events)
        except (NotSent, Unclear) as e:
            self._parcels.append(each)
            if isinstance(e, NoSession):
                raise
            self._failed(str(e), each.retry.failed(self._clock()))
            if isinstance(e, Unclear):
                raise

    def _send(self, opened: Session, parcel: Parcel, events: Sequence[Event]) -> None:
        """Raises NotSent, NoSession, Unclear."""
        letter = compose(events, self._head, self._wall())
        sender = addresses.split(self._head.mail.sender)[1]
        everybody = [addresses.split(line)[1] for line in self._head.mail.to]
        said, refused = opened.send(sender, parcel.to or everybody, wire(letter))
        self._server, self.last_sent, self.last_error = Retry(), self._wall(), None
        for key in _keys(events):
            self._refused.pop(key, None)
        log.info("mailed: %s: %s", in_short(events), said)
        if not refused:
            self._done(parcel)
            return
        rest = _InHand(replace(parcel, to=tuple(refused)), _keys(events), self._clock())
        self._pack(rest.parcel)
        self._parcels.append(rest)
        self._failed(f"some recipients were refused: {refusals(refused)}", rest.retry.failed(self._clock()))
        self._limit_parcels()

    def _put_off(self, keys: Iterable[str], words: str) -> None:
        """The server is well, and does not want these."""
        now, self._server = self._clock(), Retry()
        self._failed(words, max(self._refused.setdefault(key, Retry()).failed(now) for key in keys))

    def _failed(self, words: str, seconds: float) -> None:
        self.last_error = words
        log.warning("mail is tried again in %d s, %d events wait: %s", seconds, len(self), words)

    def _done(self, parcel: Parcel) -> None:
        for name in parcel.events:
            self._unkept.pop(name, None)
        try:
            self._spool.settle(parcel.events)
            self._spool.unpack(parcel)
        except OSError as e:
            log.error("what was mailed cannot be taken off the disk, and is mailed again after a restart: %s", e)
            self._settled.update(parcel.events)

    def _pack(self, parcel: Parcel) -> None:
        try:
            self._spool.pack(parcel)
        except OSError as e:  # it goes out all the same: there may be an alert in it about that very disk
            log.warning("a mail cannot be noted on disk, and may come twice after a crash: %s", e)

    def _scan(self) -> None:
        """What came by other ways than ``put``, and what has waited too long."""
        now = self._wall()
        known = {*self._settled, *(name for each in self._parcels for name in each.parcel.events)}
        for name, since in sorted(self._spool.names().items(), key=lambda each: each[1]):
            if since < now - _GIVEN_UP and name not in known and self._tried(name):
                self._give_up([name])
            elif name not in self._waiting and name not in known and (event := self._spool.read(name)) is not None:
                self._take(event)
        for each in [each for each in self._parcels if each.parcel.since < now - _GIVEN_UP]:
            if each.came > self._clock() - _TRIED:
                continue
            self._parcels.remove(each)
            self._give_up(each.parcel.events)
            self._spool.unpack(each.parcel)
        self._spool.forget(now)

    def _tried(self, name: str) -> bool:
        waiting = self._waiting.get(name)
        return waiting is not None and waiting.came <= self._clock() - _TRIED

    def _take(self, event: Event) -> None:
        with self._lock:
            if event.id not in self._waiting:
                self._waiting[event.id] = Waiting(event.id, event.kind, urgent(event.subject), self._clock())

    def _give_up(self, names: Sequence[str]) -> None:
        subjects = in_short(self._read(names[:1])) if names else ""
        log.error("not mailed within %d days, and given up: %s (%s)", _GIVEN_UP / 86_400, subjects, self.last_error)
        self._leave_out(names)
        self._spool.drop(names)

    def _limit_parcels(self) -> None:
        partial = [each for each in self._parcels if each.parcel.to is not None]
        for each in partial[:-_MOST_PARCELS]:
            log.error("given up for %s: more than %d mails wait for them", each.parcel.to, _MOST_PARCELS)
            self._parcels.remove(each)
            self._done(each.parcel)

    def _read(self, names: Iterable[str]) -> list[Event]:
        found = [self._unkept.get(name) or self._spool.read(name) for name in names]
        return [each for each in found if each is not None]

    def _leave_out(self, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                self._waiting.pop(name, None)

    def _name(self, events: Sequence[Event]) -> str:
        return message_id([each.id for each in events], self._head).partition("@")[0].strip("<")


def _keys(events: Iterable[Event]) -> frozenset[str]:
    return frozenset(Waiting(each.id, each.kind, False, 0.0).key for each in events)
