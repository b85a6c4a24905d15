"""The worker's loop: people from the recorder, requests on the wire, outcomes back.

One thread runs this loop on one epoll: the master's socket, the recorder's eventfd and libcurl's
connections. An idle worker has neither store nor connections and sleeps until the master wakes it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from fanoutd import failpoint
from fanoutd.boot import uptime_ms
from fanoutd.bucket import Bucket, bucket_path, now
from fanoutd.child import READY, Child
from fanoutd.config import hooks, sqlite_path
from fanoutd.figures_file import Meter, folder_of
from fanoutd.lines import LineBuffer, encode
from fanoutd.log import follow as follow_log
from fanoutd.message import RenderError
from fanoutd.outcome import (
    OPEN,
    RENDER,
    Progress,
    State,
    Verdict,
    answered,
    channel_name,
    classify,
    describe,
    meaning,
    overdue,
    repeatable,
    unanswered,
)
from fanoutd.process import die_with_parent, set_title
from fanoutd.standing import LESSONS
from fanoutd.store import history, quotas
from fanoutd.store.campaigns import Campaign
from fanoutd.times import wall_ms
from fanoutd.values import message_values
from fanoutd.worker.fatigue import Fatigue
from fanoutd.worker.lane import STARVED, Job, Lane, Message, compile_message
from fanoutd.worker.recorder import (
    Broken,
    Claimed,
    Dry,
    Finished,
    Hold,
    Lost,
    NoRoom,
    Recorder,
    Resting,
    TokenRead,
    Word,
)
from fanoutd.worker.tallies import tallies_path
from fanoutd.worker.verdicts import Stop, for_everyone
from fanoutd.worker.watch import Watch
from fanoutd.worker.wire import Answer, Wire

log = logging.getLogger("fanoutd.worker")

#: How often the board is brought up to date while there is work, in seconds.
_BOARD_EVERY = 0.5

#: Answers after which it is certain that the channel has calls left today.
_TAKEN = (Verdict.SENT, Verdict.NEXT_CHANNEL, Verdict.FAILED)

#: Bytes read from the master at once.
_READ = 1 << 16


def run(child: Child) -> int:
    """Work until the master says stop or is gone; the exit code.

    Before it is first told anything a worker is a blocked read and no more: every page that it does not
    touch stays the mold's. Until then SIGTERM ends it at once, later when its work in hand is done.
    """
    try:
        child.sock.sendall(READY)
        first = child.sock.recv(_READ)
    except (BrokenPipeError, ConnectionResetError):  # the master is gone
        first = b""
    return Worker(child).run(first) if first else 0


class Worker:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._concurrency = child.config.workers.concurrency
        self._epoll = select.epoll()
        self._sock = child.sock
        self._lines = LineBuffer()
        self._epoll.register(self._sock.fileno(), select.EPOLLIN)
        die_with_parent(signal.SIGTERM)
        self._term = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._term, select.EPOLLIN)
        signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(self._term, 1))
        self._recorder: Recorder | None = None
        self._meter: Meter | None = None
        self._wire: Wire | None = None
        self._watch: Watch | None = None
        self._lanes: dict[str, Lane] = {}
        self._messages: dict[str, Message] = {}
        self._halted: set[str] = set()  # campaigns of which nothing may be started
        self._busy = False
        self._looking = 0  # the number of the open call for people, 0: none
        self._dry = True
        self._stopping = self._quit = self._finished = False
        self._figures = Figures()
        self._fatigue = Fatigue(child.config.workers)
        self._title = child.name

    def run(self, first: bytes) -> int:
        """``first`` is what the master has said already."""
        self._heed(first)
        while not (self._quit or self._finished):
            self._turn(self._epoll.poll(self._timeout()))
        return 0

    def _turn(self, events: list[tuple[int, int]]) -> None:
        on_wire = []
        for fd, mask in events:
            if fd == self._sock.fileno():
                self._listen()
            elif fd == self._term:
                os.eventfd_read(fd)
                self._stop()
            elif self._recorder and fd == self._recorder.wake_fd:
                os.eventfd_read(fd)
            else:
                on_wire.append((fd, mask))
        if self._recorder and self._wire and not self._quit:
            while self._recorder.inbox:
                self._hear(self._recorder.inbox.popleft())
            for context, answer in self._wire.step(on_wire):
                self._ended(context, answer)
            self._send()
            self._look()

    def _timeout(self) -> float | None:
        if not self._wire:
            return None
        at = now()
        waits = [self._wire.timeout(), *(lane.wait(at, self._wire.free) for lane in self._lanes.values())]
        if self._busy:
            waits.append(_BOARD_EVERY)
        known = [w for w in waits if w is not None]
        return min(known) if known else None

    # ---- the master

    def _listen(self) -> None:
        try:
            data = self._sock.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._epoll.unregister(self._sock.fileno())
            self._stop()
        self._heed(data)

    def _heed(self, data: bytes) -> None:
        messages = self._lines.messages(data)
        if messages:
            self._show(self._figures.campaign if self._busy else None)
        for message in messages:
            self._obey(message)

    def _obey(self, message: dict[str, str]) -> None:
        kind = message["t"]
        if kind == "work" and not self._stopping:
            self._wake()
        elif kind == "token" and self._recorder:
            self._recorder.read_token(message["account"])
        elif kind == "halt":
            self._halt(message["campaign"])
            self._say({"t": "halted", "n": message["n"]})
        elif kind == "unhalt":
            self._halted.discard(message["campaign"])
        elif kind == "logs":
            follow_log(message)
        elif kind == "stop":
            self._stop()
        elif kind == "quit":
            self._quit = True

    def _say(self, message: dict[str, object]) -> None:
        """Every word arrives: there is room for thousands, and a master that is stopped goes on reading later."""
        try:
            self._sock.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the master is gone; the end of file tells

    def _wake(self) -> None:
        if self._recorder is None:
            c = self._child
            history.speak_for(c.node)
            name = f"w{c.slot}-{os.getpid()}-{os.urandom(4).hex()}"
            journals = c.config.daemon.state_dir / "journals"
            if self._meter is None:
                self._meter = Meter(folder_of(c.config.daemon.state_dir), f"row-{c.row}")
            try:
                self._recorder = Recorder(
                    c.config.store_url, journals, c.node, name, self._concurrency, c.config.accounts, self._meter,
                    hooks(c.config.audiences.values()), partial(c.board.unrecorded, c.row),
                )
            except OSError as e:
                log.error("no journal can be begun: %s; nothing is sent until the disk has room", e.strerror)
                return
            self._epoll.register(self._recorder.wake_fd, select.EPOLLIN)
            self._wire = Wire(self._epoll, self._concurrency)
            self._watch = Watch(tallies_path(c.config.daemon.state_dir), c.config.workers.count)
        self._dry = False
        if not self._busy:
            self._busy = True
            self._say({"t": "busy"})

    def _halt(self, campaign: str) -> None:
        """Start nothing more of it, neither of those in hand nor of those that the recorder has just claimed."""
        self._halted.add(campaign)
        if self._recorder is None:
            return
        self._let_go(campaign)

    def _stop(self) -> None:
        """Start nothing more; what is on the wire ends, the rest is handed back."""
        if self._stopping:
            return
        self._stopping = True
        if self._recorder is None:
            self._finished = True
            return
        for lane in self._lanes.values():
            self._hand_back(lane.withdraw())
        self._recorder.finish()

    # ---- the recorder

    def _hear(self, word: Word) -> None:
        if isinstance(word, Claimed):
            self._looking = 0
            self._take(word)
        elif isinstance(word, Lost):
            for lane in self._lanes.values():
                self._hand_back(lane.withdraw(lambda job: job.hold is word.hold))
        elif isinstance(word, Dry):
            self._looking = 0
            self._dry = True
        elif isinstance(word, NoRoom):
            self._no_room(word)
        elif isinstance(word, Resting):
            self._rest(self._lane(word.account), word.channels)
        elif isinstance(word, TokenRead):
            self._token_read(word)
        elif isinstance(word, Finished):
            self._finished = True
        elif isinstance(word, Broken):
            # Not patched up: the process ends, and its journal says what is what.
            raise RuntimeError("the recorder failed") from word.error

    def _no_room(self, word: NoRoom) -> None:
        """Nobody is claimed whose sending could not be written down; the dispatcher wakes us again."""
        self._looking = 0
        self._dry = True
        log.error("the journal cannot grow: %s; nothing is sent until the disk has room", word.error.strerror)

    def _take(self, claimed: Claimed) -> None:
        hold = claimed.hold
        lane = self._lane(hold.campaign.account)
        jobs = [Job(hold, p, p.progress, self._message(hold.campaign)) for p in claimed.people]
        for job in jobs:
            job.probe = job.channel == claimed.probe
        if hold.campaign.id in self._halted:
            self._hand_back(jobs)
            self._recorder_on().let_go(hold.campaign.id)
        elif lane is None or self._stopping or hold.lost:
            self._hand_back(jobs)
        else:
            self._line_up(lane, hold, jobs)
        if lane is None:
            self._recorder_on().pause(
                hold.campaign.id, "config", f"account {hold.campaign.account} is not configured any more"
            )

    def _line_up(self, lane: Lane, hold: Hold, jobs: list[Job]) -> None:
        if jobs:
            jobs[0].message.shut = lane.shut
        self._watch_on().begins(hold.campaign.id, hold.lease.token, hold.lease.shard)
        lane.trials.line_up(jobs, lane.ready)

    def _lane(self, name: str) -> Lane | None:
        if name not in self._lanes:
            account = self._child.config.accounts.get(name)
            if account is None:
                return None
            path = bucket_path(self._child.config.daemon.state_dir, name)
            shared = sqlite_path(self._child.config.store_url) is None
            self._lanes[name] = Lane(account, Bucket(path, account.rate, shared), self._watch_on().room)
            self._recorder_on().read_token(name)
        return self._lanes[name]

    def _message(self, campaign: Campaign) -> Message:
        if campaign.id not in self._messages:
            account = self._child.config.accounts.get(campaign.account)
            values = message_values(campaign, account.timezone if account else "UTC")
            self._messages[campaign.id] = compile_message(campaign.definition, values)
        return self._messages[campaign.id]

    def _token_read(self, word: TokenRead) -> None:
        lane = self._lanes.get(word.account)
        if lane is None:
            return
        lane.accept(word.token, wall_ms())

    def _hand_back(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.changed or job.hold.taken:
                self._recorder_on().put(job.hold, job.person.pos, job.progress)
            else:
                self._recorder_on().put_back(job.hold)
        if jobs:
            self._recorder_on().flush()

    def _recorder_on(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder

    def _watch_on(self) -> Watch:
        assert self._watch is not None
        return self._watch

    def _look(self) -> None:
        """Ask for people before the wire runs dry; go idle when there are none."""
        recorder, wire = self._recorder_on(), self._wire
        assert wire is not None
        waiting = sum(len(lane) for lane in self._lanes.values())
        on_hand = sum(len(lane.ready) for lane in self._lanes.values())
        if not self._looking and not self._dry and not self._stopping and on_hand < recorder.enough:
            self._looking = recorder.ask()
        if self._busy and self._dry and not waiting and not wire.busy and not self._looking:
            self._busy = False
            recorder.flush()
            self._figures.rate = 0.0
            self._figures.campaign = None
            self._show(None)
            self._entitle()
            self._messages.clear()
            self._halted.clear()  # whoever claims for it from here on has read in the store that it runs again
            self._say({"t": "idle"})
        elif self._busy and self._figures.due():
            self._show(self._figures.campaign)
            self._entitle()
            why = self._fatigue.complaint(self._figures.ended)
            if why:
                self._say({"t": "recycle", "why": why})

    def _entitle(self) -> None:
        """What ps shows: whose people these are, and how far the campaign is as this worker knows."""
        words, campaign = self._child.name, self._figures.campaign
        if campaign:
            share = self._recorder_on().shares.get(campaign)
            words += f" · campaign {campaign}" + (f" {share:.0%}" if share is not None else "")
        if words != self._title:
            self._title = words
            set_title(words)

    def _show(self, campaign: str | None) -> None:
        """On the board; also the sign of life that the master looks for."""
        f = self._figures
        self._child.board.write(
            self._child.row, campaign=campaign, sent=f.sent, failed=f.failed, rate=f.rate, heartbeat=time.monotonic()
        )

    # ---- the wire

    def _send(self) -> None:
        wire = self._wire
        assert wire is not None
        if self._stopping:
            return
        at = now()
        for lane in self._lanes.values():
            lane.due(at)
            self._hand_back(lane.shut_out(wall_ms()))
            if lane.should_ask_token(at):
                self._recorder_on().read_token(lane.account.name)
                self._say({"t": "token_refused", "account": lane.account.name, "token": lane.refused_token})
            lane.trials.sift(lane.ready)
            if lane.bucket.starved_since is not None or lane.trouble == STARVED:
                self._tell_trouble(lane)
            for _ in range(lane.permits(at, wire.free)):
                if not lane.ready:  # their campaign was stopped just now
                    break
                self._start(lane, wire, lane.ready.popleft(), at)

    def _start(self, lane: Lane, wire: Wire, job: Job, at: float) -> None:
        if at > job.hold.deadline:  # our lease may be over, and they be called unknown: say that they never left
            self._recorder_on().put(job.hold, job.person.pos, job.progress)
            return
        if self._watch_on().stopped(job.hold.campaign.id):
            self._hand_back([job])
            self._let_go(job.hold.campaign.id)
            return
        if lane.shuts(job, wall_ms()):
            self._hand_back([job])
            return
        if overdue(job.progress, uptime_ms()):
            self._close(job, replace(job.progress, state=State.UNKNOWN))
            return
        token = lane.token
        assert token is not None
        channel = job.channel
        try:
            body = job.body(channel)
        except RenderError:
            refused = Progress(State.FAILED, None, RENDER, None, job.progress.attempts, job.progress.generation)
            self._close(job, refused)
            return
        recorder = self._recorder_on()
        target = (lane.account.name, channel_name(channel) or "", token.text)
        lane.breaker.started()
        lane.trials.started((job.hold.campaign.id, channel))
        wire.start(
            target, lane.account, body, (lane, job, channel, token.fingerprint),
            lambda: _leave(recorder, lane.account.name, job, channel),
        )  # fmt: skip

    def _ended(self, context: tuple[Lane, Job, int, str], answer: Answer) -> None:
        lane, job, channel, fingerprint = context
        at = now()
        if self._meter is not None:
            result = answer.failure if answer.errcode is None else answer.errcode
            self._meter.request(
                lane.account.name, channel_name(channel) or "", result, answer.seconds if answer.left else None
            )
        lane.trials.ended((job.hold.campaign.id, channel))
        if answer.errcode is None:
            lane.breaker.failed(at)
            self._unanswered(lane, job, channel, answer)
        else:
            lane.breaker.answered()
            lane.bucket.tally(busy=classify(answer.errcode) is Verdict.RETRY)
            self._answered(lane, job, channel, fingerprint, answer, at)
        self._tell_trouble(lane)

    def _unanswered(self, lane: Lane, job: Job, channel: int, answer: Answer) -> None:
        if answer.left:
            job.progress = unanswered(job.progress, channel, answer.left)
            if repeatable(job.progress, uptime_ms(), lane.account.on_unknown == "resend"):
                job.progress = replace(job.progress, state=State.RESEND)
                self._later(lane, job, now())
            else:
                self._close(job, job.progress)
        else:  # proved by the journal's silence: nothing was sent
            self._again_now(lane, job)

    def _answered(
        self, lane: Lane, job: Job, channel: int, fingerprint: str, answer: Answer, at: float
    ) -> None:
        assert answer.errcode is not None
        failpoint.reach("after_reply")
        self._recorder_on().journal.answer(job.attempt, channel, job.who, answer.errcode, answer.msgid)
        failpoint.reach("after_R")
        self._learn(job, channel, answer.errcode)
        last = channel == job.message.channels[-1]
        job.progress, verdict = answered(
            job.progress, channel, answer.errcode, answer.msgid, last, personal=job.personal
        )
        if job.probe and verdict in _TAKEN:
            job.probe = False
            self._recorder_on().reopen(lane.account.name, channel)
        stop = self._watch_on().answered((job.hold.campaign.id, channel), answer.errcode, answer.errmsg, verdict)
        if stop:
            self._stop_campaign(job.hold, stop)
        if job.progress.state not in OPEN:
            self._close(job, job.progress)
        elif verdict is Verdict.NEXT_CHANNEL:
            if meaning(answer.errcode).for_all and lane.shut.heard(channel, at):
                log.warning("account %s: %s (%d %s); it is left out for 10 minutes", lane.account.name,
                            describe(answer.errcode), answer.errcode, answer.errmsg)  # fmt: skip
            lane.trials.expect([job.key])
            self._again_now(lane, job)
        elif verdict is Verdict.RETRY:
            self._later(lane, job, at, meaning(answer.errcode).pause)
        elif verdict in (Verdict.STOP_CAMPAIGN, Verdict.STOP_ACCOUNT):
            self._refused_for_all(lane, job, verdict, answer)
        else:
            self._account_refused(lane, job, fingerprint, verdict, answer)

    def _learn(self, job: Job, channel: int, errcode: int) -> None:
        """What the answer says about the person, whatever becomes of the message."""
        counted = errcode == 0 and job.person.counted and channel_name(channel) == "custom"
        if counted or errcode in LESSONS:
            self._recorder_on().learn(job.hold.campaign.account, job.person.openid, errcode)

    def _refused_for_all(self, lane: Lane, job: Job, verdict: Verdict, answer: Answer) -> None:
        """Nothing is said about this person: it would be the same for all of the campaign, or of the account."""
        stop = for_everyone(verdict, answer.errcode or 0, answer.errmsg)
        others = []
        if verdict is Verdict.STOP_ACCOUNT and not job.hold.lost:
            self._recorder_on().pause_account(lane.account.name, stop.cause, stop.reason)
            others = self._recorder_on().holds_of(lane.account.name)
        for hold in (job.hold, *others):
            self._stop_campaign(hold, stop)
        self._again_now(lane, job)

    def _stop_campaign(self, hold: Hold, stop: Stop) -> None:
        """Pause it, and have every worker of this node start nothing more of it; once for all that is on the wire."""
        if hold.lost:
            return
        self._recorder_on().pause(hold.campaign.id, stop.cause, stop.reason)
        self._watch_on().stop(hold.campaign.id)
        self._let_go(hold.campaign.id)

    def _let_go(self, campaign: str) -> None:
        for lane in self._lanes.values():
            self._hand_back(lane.withdraw(lambda job: job.hold.campaign.id == campaign))
        self._recorder_on().let_go(campaign)

    def _account_refused(
        self, lane: Lane, job: Job, fingerprint: str, verdict: Verdict, answer: Answer
    ) -> None:
        """Nothing is said about this person: they go on when the account may call again."""
        if verdict is Verdict.TOKEN:
            if job.refused_token not in (None, fingerprint):
                reason = (f"WeChat refused two access tokens one after the other ({answer.errcode}: {answer.errmsg}); "
                          "look at the account's app_id and at who else fetches its tokens")  # fmt: skip
                self._stop_account(lane, job, fingerprint, reason, token=True)
            job.refused_token = fingerprint
            lane.refused(fingerprint)
        elif verdict is Verdict.ACCOUNT:
            reason = f"WeChat refuses the account: {describe(answer.errcode or 0)} ({answer.errcode} {answer.errmsg})"
            self._stop_account(lane, job, fingerprint, reason, token=False)
            self._let_go(job.hold.campaign.id)
        elif verdict is Verdict.QUOTA:
            self._used_up(lane, job)
        else:
            lane.bucket.rest()
        self._again_now(lane, job)

    def _stop_account(self, lane: Lane, job: Job, fingerprint: str, reason: str, token: bool) -> None:
        """The campaign pauses; the dispatcher has it go on when the account may call again."""
        self._recorder_on().pause(job.hold.campaign.id, "token", reason)
        if lane.should_complain(now()):
            self._say({"t": "token_refused", "account": lane.account.name, "token": fingerprint, "reason": reason,
                       "token_refused": token})  # fmt: skip

    def _used_up(self, lane: Lane, job: Job) -> None:
        """45009: the channel rests until WeChat counts anew, or an hour when that was tried just now."""
        name, channel, at = lane.account.name, job.channel, wall_ms()
        until = at + quotas.REFUSED_MS if job.probe else quotas.reopening(name, channel, at)
        job.probe = False
        self._recorder_on().rest(name, channel, until)
        self._rest(lane, {**lane.rests, channel: until})

    def _rest(self, lane: Lane | None, channels: Mapping[int, int]) -> None:
        """Whoever is due on one of them waits in the store; the others go on."""
        if lane is not None:
            lane.rests = channels
            self._hand_back(lane.withdraw(lambda job: job.channel in channels and not job.probe))

    def _again_now(self, lane: Lane, job: Job) -> None:
        if self._stopping or job.hold.lost or job.hold.campaign.id in self._halted or lane.shuts(job, wall_ms()):
            self._hand_back([job])
        else:
            lane.ready.appendleft(job)

    def _later(self, lane: Lane, job: Job, at: float, least: float = 0.0) -> None:
        if self._stopping or job.hold.lost or job.hold.campaign.id in self._halted or lane.shuts(job, wall_ms()):
            self._hand_back([job])
        else:
            lane.again(job, at, least)

    def _close(self, job: Job, progress: Progress) -> None:
        self._recorder_on().put(job.hold, job.person.pos, progress)
        self._figures.count(progress, job.hold.campaign.id)
        account = self._lanes[job.hold.campaign.account].account
        stop = self._watch_on().ended(job.hold.campaign.id, progress, account.max_failures)
        if stop:
            self._stop_campaign(job.hold, stop)

    def _tell_trouble(self, lane: Lane) -> None:
        trouble = lane.waits_for()
        if trouble != lane.trouble:
            lane.trouble = trouble
            self._recorder_on().explain(lane.account.name, "api" if trouble else "", trouble)


def _leave(recorder: Recorder, account: str, job: Job, channel: int) -> None:
    """The body is about to leave."""
    recorder.journal.sending(job.attempt, channel, job.who)
    recorder.called(account, channel)
    failpoint.reach("after_S")


class Figures:
    """What the board shows of this worker."""

    def __init__(self) -> None:
        self.sent = self.failed = self.ended = 0
        self.rate = 0.0
        self.campaign: str | None = None
        self._since = now()
        self._ended_before = 0

    def count(self, progress: Progress, campaign: str) -> None:
        self.campaign = campaign
        self.ended += 1
        self.sent += progress.state is State.SENT
        self.failed += progress.state is State.FAILED

    def due(self) -> bool:
        """Time to show them again; the rate is then that of the span since the last time."""
        span = now() - self._since
        if span < _BOARD_EVERY:
            return False
        self.rate = (self.ended - self._ended_before) / span
        self._since, self._ended_before = now(), self.ended
        return True

