"""One account's queue in a worker: who is to be sent to, when, and with which token."""

from __future__ import annotations

import heapq
import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fanoutd.bucket import Bucket, now
from fanoutd.config import Account
from fanoutd.gates import QuietWatch, is_test
from fanoutd.ids import client_msg_id
from fanoutd.journal import Attempt, tag
from fanoutd.message import Body, RenderError, broken_body, compile_body
from fanoutd.outcome import Progress, channel_name, channel_number, next_channel
from fanoutd.store.deliveries import Person
from fanoutd.store.tokens import Token
from fanoutd.times import clock
from fanoutd.worker.breaker import Breaker
from fanoutd.worker.holds import Hold
from fanoutd.worker.shut import Shut
from fanoutd.worker.trials import Key, Trials

log = logging.getLogger(__name__)

#: Pauses before a refused-for-now call is made again, in seconds; each with up to half as much again.
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0)

#: What is said when nothing could be called for so long, in seconds, for want of a part of the rate.
STARVED = "a node has not heard from the store for too long to be sure of its part of the rate, and calls nobody"
STARVED_AFTER = 3.0

#: How often to ask again for a token when none has come, in seconds.
ASK_TOKEN_EVERY = 5.0


@dataclass(slots=True, eq=False)
class Message:
    """A campaign's message as this worker sends it: compiled once."""

    channels: tuple[int, ...]
    bodies: dict[int, Body]
    shut: Shut = field(default_factory=Shut)


@dataclass(slots=True, eq=False)
class Job:
    """One claimed person on the way."""

    hold: Hold
    person: Person
    progress: Progress
    message: Message
    refused_token: str | None = None
    """Fingerprint of the token with which the last call was refused."""
    probe: bool = False
    """The one who may be called on a channel that rests, to see whether it still must."""

    @property
    def changed(self) -> bool:
        """Something was learnt since the claim."""
        return self.progress.attempts != self.person.progress.attempts

    @property
    def who(self) -> int:
        """What the journal writes of whose place this is."""
        return tag(self.person.openid)

    @property
    def attempt(self) -> Attempt:
        """What the journal knows this person by."""
        return self.hold.lease.shard, self.person.pos, self.hold.lease.token

    def body(self, channel: int) -> bytes:
        """The request for this person. Raises RenderError."""
        own = json.loads(self.person.person) if self.person.person else None
        campaign = self.hold.campaign
        key = client_msg_id(campaign.account, campaign.id, self.person.openid, self.progress.generation)
        return self.message.bodies[channel].render(self.person.openid, own, key)

    @property
    def channel(self) -> int:
        """The channel to call next."""
        channels = self.message.channels
        if not self.progress.doubtful:
            channels = self.message.shut.remaining(channels)
        return next_channel(self.progress, channels, self.person.skip_custom)

    @property
    def key(self) -> Key:
        """What a trial knows them by."""
        return self.hold.campaign.id, self.channel

    @property
    def personal(self) -> bool:
        """The message has something in it that is this person's own."""
        return self.person.person is not None


class Lane:
    """Times are CLOCK_BOOTTIME seconds, passed in."""

    def __init__(self, account: Account, bucket: Bucket, room: Callable[[Key], int | None] = lambda _key: None) -> None:
        self.account = account
        self.bucket = bucket
        self.breaker = Breaker()
        self.token: Token | None = None
        self.ready: deque[Job] = deque()
        self.trials: Trials[Job] = Trials(room)
        self.shut = Shut()
        self._later: list[tuple[float, int, Job]] = []
        self._serial = 0
        self._next_start = 0.0
        self._token_asked = -ASK_TOKEN_EVERY
        self.refused_token = ""
        """Fingerprint of the token that WeChat refused last."""
        self.complained = -ASK_TOKEN_EVERY
        """When it was last said that the account is refused."""
        self.trouble = ""
        """What the account's campaigns have been told to wait for."""
        self.rests: Mapping[int, int] = {}
        """The channels that have no calls left today, and until when (milliseconds since 1970)."""
        self._quiet = QuietWatch(account)

    def __len__(self) -> int:
        """People here who are not on the wire."""
        return len(self.ready) + len(self._later) + len(self.trials)

    def again(self, job: Job, at: float, least: float = 0.0) -> None:
        """Refused for now: to be tried again after a pause that grows with the tries, and is at least so long."""
        pause = max(least, RETRY_PAUSES[min(job.progress.tries, len(RETRY_PAUSES)) - 1]) * random.uniform(1.0, 1.5)
        self._serial += 1
        heapq.heappush(self._later, (at + pause, self._serial, job))

    def due(self, at: float) -> None:
        """Put those whose pause is over in front of those who never had a turn."""
        self.shut.tick(at)
        while self._later and self._later[0][0] <= at:
            self.ready.appendleft(heapq.heappop(self._later)[2])

    def shuts(self, job: Job, wall_ms: int) -> bool:
        """Nothing may be started for this one now: its channel rests, or the account is quiet."""
        if self.rests and job.channel in self.rests and not job.probe:
            return True
        return self._quiet.until(wall_ms) is not None and not is_test(job.hold.campaign)

    def shut_out(self, wall_ms: int) -> list[Job]:
        """Take out those for whom quiet hours have begun."""
        if self._quiet.until(wall_ms) is None or not len(self):
            return []
        return self.withdraw(lambda job: not is_test(job.hold.campaign))

    def permits(self, at: float, free: int) -> int:
        """How many calls may start now: by work, slots, token, breaker and the account's rate."""
        wanted = min(len(self.ready), free)
        if wanted == 0 or self.token is None or at < self._next_start:
            return 0
        wanted = self.breaker.allowed(at, wanted)
        if wanted == 0:
            return 0
        granted, wait = self.bucket.take(wanted)
        self._next_start = at + wait if granted < wanted else at
        return granted

    def wait(self, at: float, free: int) -> float | None:
        """Seconds until there may be something to start; None: not before something happens."""
        waits = [self._later[0][0] - at] if self._later else []
        if self.ready and self.token is None:
            waits.append(self._token_asked + ASK_TOKEN_EVERY - at)
        elif self.ready and free:
            probe = self.breaker.wait(at)
            if not self.breaker.open or probe is not None:
                waits.append(max(self._next_start - at, probe or 0.0))
        elif not self.ready and self.trials.stalled:
            waits.append(0.0)
        return max(0.0, min(waits)) if waits else None

    def should_ask_token(self, at: float) -> bool:
        """A token is missing and none was asked for lately; the caller asks then."""
        if self.token is not None or not self.ready or at < self._token_asked + ASK_TOKEN_EVERY:
            return False
        self._token_asked = at
        return True

    def should_complain(self, at: float) -> bool:
        """Of all the calls that are refused together one is spoken of."""
        if at < self.complained + 1.0:
            return False
        self.complained = at
        return True

    def refused(self, fingerprint: str) -> None:
        """WeChat refuses this token: nothing starts until there is another one."""
        if self.token is not None and self.token.fingerprint == fingerprint:
            self.token = None
            self.refused_token = fingerprint
            self._token_asked = -ASK_TOKEN_EVERY

    def accept(self, token: Token | None, wall_ms: float) -> None:
        """A token as the store has it; one that was refused or has expired is none."""
        if token is None or token.expires_at <= wall_ms or token.fingerprint == self.refused_token:
            return
        self.token = token

    def waits_for(self) -> str:
        """In words what all of the account wait for; empty when nothing."""
        if self.breaker.open:
            return "WeChat's API does not answer; one request at a time is tried until it does"
        since = self.bucket.starved_since
        if since is not None and now() > since + STARVED_AFTER:
            return STARVED
        rest = self.bucket.resting()
        if not rest:
            return ""
        until = clock(int((time.time() + rest) * 1000), self.account.timezone)
        return f"WeChat said too many calls in a minute (45011): the account rests until {until}, then goes slower"

    def withdraw(self, wanted: Callable[[Job], bool] = lambda _job: True) -> list[Job]:
        """Take out those of them who are not on the wire."""
        gone = [job for job in chain(self.ready, self.trials, (job for _, _, job in self._later)) if wanted(job)]
        if gone:
            self.ready = deque(job for job in self.ready if not wanted(job))
            self.trials.keep(lambda job: not wanted(job))
            self._later = [entry for entry in self._later if not wanted(entry[2])]
            heapq.heapify(self._later)
        return gone


def compile_message(definition: dict[str, Any], values: dict[str, str]) -> Message:
    """The bodies of a campaign with everything filled in that is the same for all."""
    numbers = tuple(channel_number(c) for c in definition["channels"])
    return Message(numbers, {n: _compile(definition, n, values) for n in numbers})


def _compile(definition: dict[str, Any], number: int, values: dict[str, str]) -> Body:
    channel = channel_name(number) or ""
    open_names = [name for name in definition["variables"] if name not in values]
    try:
        return compile_body(
            definition["bodies"][channel], values, open_names, channel=channel, too_long=definition["too_long"]
        )
    except RenderError as e:  # who needs this channel fails; the others do not
        log.warning("campaign %s: nobody can be sent its %s message: %s", values.get("campaign"), channel, e)
        return broken_body(channel, e)
