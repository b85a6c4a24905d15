"""What an answer of WeChat means: one table, and the only place that asks for an errcode.

``classify`` gives the verdict for one answer; the sender, the recovery of journals and the
reports all look here. Numbers and meanings are those of WeChat's published lists of return
codes and of the SDKs that carry them; what to do about each is our decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType


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


class Verdict(Enum):
    """What to do with the delivery after this answer."""

    SENT = "sent"
    NEXT_CHANNEL = "next channel"
    """A definite refusal of this channel alone: the next one may be tried."""
    RETRY = "retry"
    """Refused for now: the same channel again, after a pause."""
    TOKEN = "token"
    """The token was refused: again with another one."""
    REST = "rest"
    """The account called too often: everybody waits, then again."""
    QUOTA = "quota"
    """Today's calls are used up: everybody waits for tomorrow."""
    ACCOUNT = "account"
    """The account or this machine may not call: sending stops, nobody has failed."""
    FAILED = "failed"


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

#: The errcode under which a delivery is stored that we ourselves could not render.
RENDER = -2

CHANNELS = ("custom", "template", "subscribe")
"""Channels in the order of their stored numbers, which start at 1; `subscribe` are subscription notifications."""


def channel_number(channel: str) -> int:
    return CHANNELS.index(channel) + 1


def channel_name(number: int | None) -> str | None:
    return CHANNELS[number - 1] if number else None


@dataclass(frozen=True, slots=True)
class Meaning:
    """One errcode: the verdict and a short text for reports."""

    verdict: Verdict
    text: str


def _all(verdict: Verdict, texts: Mapping[int, str]) -> dict[int, Meaning]:
    return {code: Meaning(verdict, text) for code, text in texts.items()}


TABLE: Mapping[int, Meaning] = MappingProxyType(
    _all(Verdict.SENT, {0: "accepted"})
    | _all(
        Verdict.TOKEN,
        {
            40001: "access token refused",
            40014: "access token invalid",
            41001: "access token missing",
            42001: "access token expired",
        },
    )
    | _all(
        Verdict.NEXT_CHANNEL,
        {
            45015: "has not written or tapped within WeChat's window, or unfollowed",
            45047: "used up the messages of this window",
            45087: "customer-service messages are barred for the account",
            48001: "the account may not use this call",
        },
    )
    | _all(
        Verdict.RETRY,
        {
            -1: "WeChat is busy",
            -1000: "WeChat had an internal error",
            43108: "another call for this follower is under way",
            61450: "WeChat had an internal error",
        },
    )
    | _all(Verdict.REST, {45011: "too many calls in a minute"})
    | _all(Verdict.QUOTA, {45009: "today's calls of this kind are used up"})
    | _all(
        Verdict.ACCOUNT,
        {
            40013: "app_id refused",
            40125: "app_secret refused",
            40164: "this machine's IP address is not on the account's whitelist",
            40243: "the app_secret is frozen",
            61004: "this machine's IP address is not registered",
            89501: "waiting for the administrator's confirmation",
            89502: "waiting for the administrator's confirmation",
            89503: "this call needs the administrator's confirmation",
            89504: "waiting for the administrator's confirmation",
            89505: "waiting for the administrator's confirmation",
            89506: "the administrator refused this machine for 24 hours",
            89507: "the administrator refused this machine for an hour",
        },
    )
    | _all(
        Verdict.FAILED,
        {
            40003: "openid unknown to this account",
            43004: "does not follow the account",
            50005: "does not follow the account",
            46004: "no such user",
            43019: "is on the account's blacklist",
            48002: "switched messages off",
            43101: "refused messages of this kind",
            43117: "was sent too much of late",
            49003: "openid of another account",
            50002: "the user or the account is restricted",
            40007: "media_id invalid or expired",
            40033: "characters that WeChat refuses",
            40035: "a parameter is wrong",
            40037: "template_id unknown",
            40038: "format of the request refused",
            40097: "a parameter is wrong",
            40165: "mini program page refused",
            40166: "mini program app_id refused",
            40200: "this account may not send this kind of message",
            41009: "openid missing",
            43100: "the template changed too often",
            43106: "the account is barred for breaking WeChat's rules",
            43107: "the account is barred for breaking WeChat's rules",
            43116: "the template is banned",
            44001: "the media is empty",
            44002: "the body is empty",
            44003: "the article is empty",
            44004: "the text is empty",
            45002: "the text is too long",
            45003: "the title is too long",
            45004: "the description is too long",
            45005: "the link is too long",
            45008: "too many articles",
            45012: "the template is too large",
            45013: "the template has too many values",
            45014: "the template has too many values",
            45050: "this msgtype does not exist",
            45051: "a link is not allowed here",
            45162: "this msgtype does not exist",
            45168: "a banned word in the text",
            47001: "the request is not JSON",
            47002: "the request is not UTF-8 JSON",
            47003: "a value breaks the rules of its template field",
            48003: "the account has not accepted the rules for this call",
            48004: "WeChat barred this call for the account",
            48008: "no right for this kind of message",
            61451: "the customer-service account is wrong",
            61452: "the customer-service account is wrong",
        },
    )
)

_UNLISTED = Meaning(Verdict.FAILED, "refused, errcode not listed")


def classify(errcode: int) -> Verdict:
    """The verdict for an errcode; one that nobody knows fails that one delivery."""
    return TABLE.get(errcode, _UNLISTED).verdict


def describe(errcode: int | str) -> str:
    """A few words for reports; takes the number, its text, or ``render``."""
    if errcode in (RENDER, "render"):
        return "the message could not be rendered for this person"
    try:
        return TABLE.get(int(errcode), _UNLISTED).text
    except ValueError:
        return _UNLISTED.text


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


def answered(
    before: Progress, channel: int, errcode: int, msgid: int | None, last_channel: bool, max_tries: int = MAX_TRIES
) -> tuple[Progress, Verdict]:
    """The delivery after WeChat's answer to a call on ``channel``.

    A refusal of this call says nothing about an earlier one that stayed without an answer: such a delivery
    stays unknown, under its key.
    """
    verdict = classify(errcode)
    tries = before.tries + 1 if before.channel == channel else 1
    if verdict is Verdict.TOKEN:
        tries -= 1
    no_further = verdict is Verdict.NEXT_CHANNEL and (last_channel or before.doubtful)
    if before.doubtful and errcode == _REPEATED:
        verdict = Verdict.SENT
    elif no_further or (verdict is Verdict.RETRY and tries >= max_tries):
        verdict = Verdict.FAILED
    if before.doubtful and verdict is not Verdict.SENT:
        state = State.UNKNOWN if verdict is Verdict.FAILED else State.RESEND
        kept = (before.generation, tries, before.since)
    else:
        state = {Verdict.SENT: State.SENT, Verdict.FAILED: State.FAILED}.get(verdict, State.PENDING)
        kept = (before.generation + 1, tries, None)
    return Progress(state, channel, errcode, msgid, before.attempts + 1, *kept), verdict


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


def next_channel(progress: Progress, channels: tuple[int, ...]) -> int:
    """The channel to call now: the first, the one tried last, or the one after its refusal. In doubt the same."""
    if progress.channel not in channels:
        return channels[0]
    if progress.doubtful:
        return progress.channel
    at = channels.index(progress.channel)
    refused = progress.errcode is not None and classify(progress.errcode) is Verdict.NEXT_CHANNEL
    return channels[min(at + 1, len(channels) - 1)] if refused else channels[at]
