"""What becomes of a delivery by WeChat's answer, or by the lack of one.

The errcodes themselves stand in ``errcodes``; the sender and the recovery of journals both look here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from fanoutd.errcodes import RENDER, TABLE, Meaning, Row, Verdict, classify, describe, describe_zh, meaning

__all__ = (
    "CHANNELS", "DOUBTFUL", "ENDED", "KEY_LIFE_MS", "LONG_AGO", "MAX_TRIES", "MOVES", "NEVER_HEARD", "OPEN", "RENDER",
    "TABLE", "Ended", "Meaning", "Progress", "Row", "State", "Verdict", "answered", "channel_name", "channel_number",
    "classify", "describe", "describe_zh", "errcode_word", "meaning", "next_channel", "overdue", "repeatable", "row_of",
    "unanswered",
)  # fmt: skip


class State(IntEnum):
    """A delivery's state as stored. ``PENDING`` and ``RESEND`` are those that a worker still works on."""

    PENDING = 0
    SENT = 1
    FAILED = 2
    SKIPPED = 3
    UNKNOWN = 4
    RESEND = 5
    """Unknown, and to be sent again."""

    @property
    def word(self) -> str:
        """As users know it: whoever is to be sent to again is unknown until an answer proves otherwise."""
        return "unknown" if self is State.RESEND else self.name.lower()


#: States of a delivery that a worker may claim.
OPEN = (State.PENDING, State.RESEND)

#: States of which nobody knows whether WeChat has accepted the message.
DOUBTFUL = (State.UNKNOWN, State.RESEND)

#: States in which nobody works on a delivery any more.
ENDED = (State.SENT, State.FAILED, State.SKIPPED, State.UNKNOWN)

Ended = Counter[tuple[State, int | None, int | None]]
"""How many deliveries came into one of those: by (state, channel, errcode)."""


#: Calls on one channel that WeChat may answer with ``RETRY`` before the delivery has failed.
MAX_TRIES = 5

#: Every change of a delivery's state that there is. What was accepted stays so; back to pending goes only what was
#: proved never to have left, or what an operator wants to have tried again.
MOVES = frozenset(
    {(State.PENDING, new) for new in State}
    | {(State.RESEND, new) for new in (State.RESEND, State.SENT, State.UNKNOWN, State.FAILED)}
    | {(State.UNKNOWN, new) for new in (State.UNKNOWN, State.RESEND, State.SENT, State.FAILED, State.PENDING)}
    | {(State.FAILED, State.PENDING)}
)

#: For how long a call is repeated by itself under one client_msg_id, in milliseconds since the first under it: WeChat
#: documents that it drops repeats for 10 minutes and promises nothing beyond.
KEY_LIFE_MS = 480_000

#: When a key was first used, if that was before this boot or on another machine: too long ago.
LONG_AGO = -(1 << 40)

#: The same of a delivery that was given up with its worker's machine, of which not even a call is known: should the
#: journal come back and prove that nothing left, it is pending again.
NEVER_HEARD = LONG_AGO - 1

#: What WeChat was seen to answer to a message that it had taken within the last minute (field reports).
_REPEATED = 40241

CHANNELS = ("custom", "template", "subscribe")
"""Channels in the order of their stored numbers, which start at 1; `subscribe` are subscription notifications."""


def channel_number(channel: str) -> int:
    return CHANNELS.index(channel) + 1


def channel_name(number: int | None) -> str | None:
    return CHANNELS[number - 1] if number else None


def errcode_word(errcode: int | None) -> str | None:
    """As export and reports show it: digits, ``render``, or None."""
    if errcode is None:
        return None
    return "render" if errcode == RENDER else str(errcode)


@dataclass(frozen=True, slots=True)
class Progress:
    """One delivery as far as it has come. ``channel`` counts from 1; ``tries`` on that channel.

    ``attempts`` counts the calls that reached the wire, all of them. ``generation`` rises with
    each definite refusal and is part of the idempotency key of a template message. ``since`` is when the
    first call under the key of this generation left, of those that stayed without an answer
    (CLOCK_BOOTTIME, milliseconds); None in doubt: somebody decided that it be sent again whatever its age.
    """

    state: State = State.PENDING
    channel: int | None = None
    errcode: int | None = None
    msgid: int | None = None
    attempts: int = 0
    generation: int = 0
    tries: int = 0
    since: int | None = None

    @property
    def doubtful(self) -> bool:
        """An earlier call left and its answer was never seen."""
        return self.state in DOUBTFUL


#: Verdicts that say nothing about this person, and so are no tries of theirs.
_NO_TRY = (
    Verdict.TOKEN, Verdict.REST, Verdict.QUOTA, Verdict.ACCOUNT, Verdict.STOP_CAMPAIGN, Verdict.STOP_ACCOUNT
)  # fmt: skip


def answered(
    before: Progress, channel: int, errcode: int, msgid: int | None, last_channel: bool, max_tries: int = MAX_TRIES,
    personal: bool = False,
) -> tuple[Progress, Verdict]:  # fmt: skip
    """The delivery after WeChat's answer to a call on ``channel``. ``personal``: the message is this person's own.

    A refusal of this call says nothing about an earlier one that stayed without an answer: such a delivery
    stays unknown, under its key.
    """
    known = meaning(errcode)
    verdict = classify(errcode, channel_name(channel))
    if verdict is Verdict.STOP_CAMPAIGN and personal and known.personal:
        verdict = Verdict.FAILED
    tries = before.tries + 1 if before.channel == channel else 1
    no_further = verdict is Verdict.NEXT_CHANNEL and (last_channel or before.doubtful)
    if before.doubtful and errcode == _REPEATED:
        verdict = Verdict.SENT
    elif no_further:
        verdict = Verdict.STOP_CAMPAIGN if known.for_all and last_channel else Verdict.FAILED
    elif verdict is Verdict.RETRY and tries >= max_tries:
        verdict = Verdict.FAILED
    if verdict in _NO_TRY:
        tries -= 1
    if before.doubtful and verdict is not Verdict.SENT:
        state = State.UNKNOWN if verdict is Verdict.FAILED else State.RESEND
        kept = (before.generation, tries, before.since)
    else:
        state = {Verdict.SENT: State.SENT, Verdict.FAILED: State.FAILED}.get(verdict, State.PENDING)
        kept = (before.generation + 1, tries, None)
    return Progress(state, channel, errcode, msgid, before.attempts + 1, *kept), verdict


def row_of(errcode: int, verdict: Verdict) -> Row:
    """Of which row this answer is one, if many such in a row would be about all and not about this person."""
    known = meaning(errcode)
    if verdict is not Verdict.FAILED:
        return Row.NONE
    return Row.CONTENT if known.personal else known.row


def unanswered(before: Progress, channel: int, left: int) -> Progress:
    """The delivery after a call on ``channel`` left, at ``left`` on CLOCK_BOOTTIME, and no answer was seen."""
    tries = before.tries + 1 if before.channel == channel else 1
    since = before.since if before.doubtful else left
    return Progress(State.UNKNOWN, channel, before.errcode, None, before.attempts + 1, before.generation, tries, since)


def repeatable(progress: Progress, now: int, at_any_risk: bool) -> bool:
    """Whether a doubtful delivery is sent again by itself. ``at_any_risk``: also without a key that protects it.

    A template message has a key, and WeChat drops a repeat under it for a while; a custom one has none.
    """
    if not progress.doubtful or progress.tries >= MAX_TRIES:
        return False
    if channel_name(progress.channel) != "template":
        return at_any_risk
    return progress.since is not None and 0 <= now - progress.since < KEY_LIFE_MS


def overdue(progress: Progress, now: int) -> bool:
    """Its key protects it no longer: what was to be sent again is not, any more."""
    limited = progress.doubtful and progress.since is not None and channel_name(progress.channel) == "template"
    return limited and progress.since is not None and not 0 <= now - progress.since < KEY_LIFE_MS


def next_channel(progress: Progress, channels: tuple[int, ...], without_custom: bool = False) -> int:
    """The channel to call now: the first, the one tried last, or the one after its refusal. In doubt the same.

    ``without_custom``: their window is known to be shut, so a customer-service call is not where to begin.
    """
    if progress.channel not in channels:
        begin = without_custom and progress.channel is None and channel_name(channels[0]) == "custom"
        return channels[1] if begin and len(channels) > 1 else channels[0]
    if progress.doubtful:
        return progress.channel
    at = channels.index(progress.channel)
    verdict = None if progress.errcode is None else classify(progress.errcode, channel_name(progress.channel))
    return channels[min(at + 1, len(channels) - 1)] if verdict is Verdict.NEXT_CHANNEL else channels[at]
