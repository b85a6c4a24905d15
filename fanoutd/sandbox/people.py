"""Who answers what: by chance from a seed, or by a script for one person."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fanoutd.sandbox.http import Ending
from fanoutd.sandbox.options import Options

CHANNELS = ("custom", "template", "subscribe")

#: A fate's errcode on each of CHANNELS. ``busy`` is -1 at the person's first call only. Consent to subscription
#: notifications does not depend on following.
FATES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "no_window": (45015, 0, 0),
        "used_up": (45047, 0, 0),
        "unfollowed": (43004, 43004, 0),
        "busy": (-1, -1, -1),
        "no_consent": (0, 0, 43101),
        "reached": (0, 0, 0),
    }
)


#: Those with a switch for their share.
_SHARED = tuple(name for name in FATES if name != "reached")


@dataclass(frozen=True, slots=True)
class Fault:
    """A call that gets no proper answer; whether its message is accepted all the same."""

    accepts: bool
    ending: Ending


#: By the name of the switch for its share, which is its name in scripts too.
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "drop_before": Fault(False, Ending.DROPPED),
        "drop_after": Fault(True, Ending.DROPPED),
        "reset_before": Fault(False, Ending.RESET),
        "reset_after": Fault(True, Ending.RESET),
        "hang_before": Fault(False, Ending.NEVER),
        "hang_after": Fault(True, Ending.NEVER),
        "bad_gateway_before": Fault(False, Ending.GATEWAY),
        "bad_gateway_after": Fault(True, Ending.GATEWAY),
        "truncated": Fault(True, Ending.TRUNCATED),
        "half_json": Fault(True, Ending.HALF),
    }
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What happens to one call: an errcode, 0 to accept, the name of a fault, empty for none, and whether by script."""

    errcode: int
    fault: str = ""
    scripted: bool = False


def chance(*subject: object) -> float:
    """A number in [0, 1) that is the same for the same subject in every process."""
    digest = hashlib.blake2b("\0".join(map(str, subject)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def fate(openid: str, options: Options) -> str:
    """The person's fate, a key of FATES; it depends on the seed and the shares alone."""
    left = chance(options.seed, openid)
    for name in _SHARED:
        left -= getattr(options, name)
        if left < 0:
            return name
    return "reached"


def fault(openid: str, nth: int, options: Options) -> str:
    """What befalls the person's nth call, from 1: a key of FAULTS, empty for nothing."""
    shares = [(name, share) for name in FAULTS if (share := getattr(options, name))]
    if not shares:
        return ""
    left = chance(options.seed, openid, nth)
    for name, share in shares:
        left -= share
        if left < 0:
            return name
    return ""


class People:
    """Everybody's scripts, and how often each was called."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._scripts: dict[tuple[str, str], deque[Turn]] = {}

    def turn(self, channel: str, openid: str, options: Options) -> Turn:
        """What happens to this call. A script for person and channel leaves nothing to chance."""
        self._calls[openid] += 1
        script = self._scripts.get((channel, openid))
        if script:
            return script.popleft() if len(script) > 1 else script[0]
        nth, name = self._calls[openid], fate(openid, options)
        errcode = 0 if name == "busy" and nth > 1 else FATES[name][CHANNELS.index(channel)]
        return Turn(errcode, fault(openid, nth, options))

    def script(self, document: object) -> int:
        """Set scripts, return how many people have a new one. Raises ValueError; nothing is set then.

        Shape: ``{openid: [answer, …]}`` for custom or ``{openid: {channel: [answer, …]}}``. The answers
        are used in turn, the last one again and again; an empty list ends the script.
        """
        if not isinstance(document, dict):
            raise ValueError("wants an object of openids")
        scripts = {}
        for openid, channels in document.items():
            for channel, answers in _by_channel(openid, channels).items():
                scripts[channel, openid] = _turns(openid, answers)
        self._scripts |= scripts
        return len(document)


def _by_channel(openid: str, value: object) -> dict[str, object]:
    channels = value if isinstance(value, dict) else {"custom": value}
    if not set(channels) <= set(CHANNELS):
        raise ValueError(f"{openid}: the channels are {', '.join(CHANNELS)}")
    return channels


def _turns(openid: str, answers: object) -> deque[Turn]:
    if not isinstance(answers, list):
        raise ValueError(f"{openid}: wants a list of answers")
    return deque(_turn(openid, answer) for answer in answers)


def _turn(openid: str, answer: object) -> Turn:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return Turn(answer, scripted=True)
    if isinstance(answer, str) and answer in FAULTS:
        return Turn(0, answer, scripted=True)
    raise ValueError(f"{openid}: an answer is an errcode or one of {', '.join(FAULTS)}")
