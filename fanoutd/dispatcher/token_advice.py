"""What a refusal of the token endpoint means: one row an errcode, each with what to do in WeChat's console.

Numbers and meanings are those of WeChat's token pages and of the tables of its SDKs. On a fetch 40001 means
the secret, not a token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

#: A refusal that somebody has to end is asked about no sooner than after so many seconds.
FATAL_EVERY = 30.0

#: Pauses while WeChat is busy or does not answer, in seconds; the last one for ever after.
BACK_OFF = (1.0, 2.0, 4.0, 30.0)

#: The day by which WeChat counts calls.
_WECHAT_DAY = timezone(timedelta(hours=8))

_PLACE = "WeChat's console, 开发→基本配置"
_CONFIRM = "have the account's administrator confirm this machine's calls in WeChat"
_MISTAKE = "this is a mistake in fanoutd or in what stands between it and WeChat; look at api_base"


@dataclass(frozen=True, slots=True)
class Advice:
    """``wait``: seconds until it is asked again by itself; None: growing pauses, see BACK_OFF.

    Fatal ones stop the account's campaigns until somebody has done ``todo``.
    """

    fatal: bool
    todo: str
    wait: float | None = FATAL_EVERY
    tomorrow: bool = False


def _whitelist(why: str) -> str:
    return f"{why}; add {{ip}} in {_PLACE}→IP白名单"


ADVICE: Mapping[int, Advice] = MappingProxyType(
    {
        40001: Advice(True, f"the app_secret is wrong; compare it with {_PLACE}, or reset it there and put it in anew"),
        40002: Advice(True, _MISTAKE),
        40013: Advice(True, f"the app_id is wrong; compare it with {_PLACE}"),
        40125: Advice(True, f"the app_secret is wrong; compare it with {_PLACE}, or reset it there and put it in anew"),
        40164: Advice(True, _whitelist("this machine's address is not on the account's list")),
        40243: Advice(True, f"the app_secret is frozen; unfreeze it in {_PLACE}"),
        41002: Advice(True, "the app_id is missing; look at app_id in the configuration"),
        41004: Advice(True, "the app_secret is missing; look at app_secret in the configuration"),
        43002: Advice(True, _MISTAKE),
        45035: Advice(True, _whitelist("this machine's address is not registered")),
        61004: Advice(True, _whitelist("this machine's address is not registered")),
        89501: Advice(True, f"WeChat waits for a confirmation; {_CONFIRM}"),
        89502: Advice(True, f"WeChat waits for a confirmation; {_CONFIRM}"),
        89503: Advice(True, f"this call wants a confirmation; {_CONFIRM}"),
        89504: Advice(True, f"WeChat waits for a confirmation; {_CONFIRM}"),
        89505: Advice(True, f"WeChat waits for a confirmation; {_CONFIRM}"),
        89506: Advice(True, "the administrator refused this machine: WeChat is asked again in 24 hours", 86_400.0),
        89507: Advice(True, "the administrator refused this machine: WeChat is asked again in an hour", 3_600.0),
        45009: Advice(False, "today's fetches are used up; WeChat is asked again tomorrow", tomorrow=True),
        45011: Advice(False, "too many fetches in a minute; WeChat is asked again in 60 s", 60.0),
        -1: Advice(False, "WeChat is busy; it is asked again", None),
        -1000: Advice(False, "WeChat is busy; it is asked again", None),
    }
)

_UNLISTED = Advice(False, "the errcode is not listed; it is asked again in 30 s")

_IP = re.compile(r"invalid ip +([0-9A-Fa-f:.]+)")


def advice(errcode: int) -> Advice:
    """One that nobody knows is asked about again, and stops nothing."""
    return ADVICE.get(errcode, _UNLISTED)


def words(errcode: int, errmsg: str) -> str:
    """One line: what WeChat said, what that means, what to do. The address is the one that WeChat saw."""
    found = _IP.search(errmsg)
    todo = advice(errcode).todo.replace("{ip}", found[1] if found else "it")
    return f"WeChat gives no access token ({errcode} {errmsg}): {todo}"


def pause(wait: float | None, failures: int) -> float:
    """Seconds until the next try after so many failures in a row."""
    return BACK_OFF[min(max(failures, 1), len(BACK_OFF)) - 1] if wait is None else wait


def until_tomorrow(now: int) -> float:
    """Seconds from ``now``, milliseconds since 1970, to a minute after midnight by WeChat's day."""
    at = datetime.fromtimestamp(now / 1000, UTC).astimezone(_WECHAT_DAY)
    midnight = at.replace(hour=0, minute=1, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - at).total_seconds()
