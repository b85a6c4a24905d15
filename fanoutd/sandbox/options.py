"""The sandbox's switches: one table for the command line and for changes while it runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

Parser = Callable[[object], Any]

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_AES_KEY = re.compile(r"[A-Za-z0-9]{43}")
_LIST_ENDS = ("extra", "empty", "repeat")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _number(value: object, right: str) -> float:
    number = -1.0
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"wants {right}, not {str(value)[:40]!r}")
    return number


def duration(value: object) -> float:
    """``"240ms"``, ``"5s"``, ``"10m"``, ``"2h"``, or a number of seconds; 0 is allowed."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match:
        return round(float(match[1]) * _SECONDS[match[2]], 6)
    return _number(value, 'a duration like "240ms" or "5s"')


def share(value: object) -> float:
    """A part of the whole, 0 to 1."""
    number = _number(value, "a share from 0 to 1")
    if number > 1:
        raise ValueError(f"wants a share from 0 to 1, not {number:g}")
    return number


def count(value: object) -> int:
    """A whole number, 0 or more."""
    number = _number(value, "a whole number, 0 or more")
    if number != int(number):
        raise ValueError(f"wants a whole number, 0 or more, not {number:g}")
    return int(number)


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"wants true or false, not {str(value)[:40]!r}")
    return value


def text(value: object) -> str:
    """Any text; empty for none."""
    if not isinstance(value, str):
        raise ValueError(f"wants a text, not {str(value)[:40]!r}")
    return value


def aes_key(value: object) -> str:
    """An EncodingAESKey, 43 characters; empty for none."""
    key = text(value)
    if key and not _AES_KEY.fullmatch(key):
        raise ValueError("wants an EncodingAESKey: 43 of A-Z a-z 0-9, as WeChat's console makes them")
    return key


def list_end(value: object) -> str:
    """How lists of people end."""
    if value not in _LIST_ENDS:
        raise ValueError(f"wants {', '.join(_LIST_ENDS)}, not {str(value)[:40]!r}")
    return str(value)


def _switch(default: Any, parse: Parser, help_text: str) -> Any:
    return field(default=default, metadata={"parse": parse, "help": help_text})


@dataclass(frozen=True, slots=True)
class Options:
    """How the sandbox behaves. Durations are seconds; shares are of people, of calls for what follows ``no_consent``.

    Faults that end in ``_before`` come before the message is accepted, all others after it is in the ledger.
    """

    latency: float = _switch(0.0, duration, "Median time to answer a call.")
    spread: float = _switch(0.0, share, "Spread of the latency: sigma of a log-normal distribution.")
    idle: float = _switch(60.0, duration, "Close connections that are idle for so long; 0 = never.")
    token_life: float = _switch(7200.0, duration, "Life of access tokens; they overlap by 1/24 of it.")
    dedupe: float = _switch(600.0, duration, "How long a client_msg_id is remembered.")
    minute_limit: int = _switch(0, count, "Calls per channel in any 60 s before 45011; 0 = no limit.")
    quota_custom: int = _switch(0, count, "Custom messages a day before 45009; 0 = no limit.")
    quota_template: int = _switch(0, count, "Template messages a day before 45009; 0 = no limit.")
    quota_subscribe: int = _switch(0, count, "Subscription notifications a day before 45009; 0 = no limit.")
    lenient: bool = _switch(False, flag, "Like a test account: no rules for template keywords.")
    seed: int = _switch(1, count, "Decides who has which fate.")
    windows: bool = _switch(False, flag, "Custom messages only within windows that /_sandbox/interact opens.")
    page_size: int = _switch(10_000, count, "Openids on a page of followers.")
    list_end: str = _switch(
        "extra", list_end, "Lists end with an extra empty page, an empty next_openid, or repeat the last page."
    )
    no_window: float = _switch(0.0, share, "Share of people: 45015 on custom.")
    used_up: float = _switch(0.0, share, "Share of people: 45047 on custom.")
    unfollowed: float = _switch(0.0, share, "Share of people: 43004 on custom and template.")
    busy: float = _switch(0.0, share, "Share of people: -1 once, then reached.")
    no_consent: float = _switch(0.0, share, "Share of people: 43101 on subscribe.")
    drop_before: float = _switch(0.0, share, "Share of calls: closed without accepting or answering.")
    drop_after: float = _switch(0.0, share, "Share of calls: decided and done, closed without an answer.")
    reset_before: float = _switch(0.0, share, "Share of calls: reset without accepting.")
    reset_after: float = _switch(0.0, share, "Share of calls: decided and done, then reset.")
    hang_before: float = _switch(0.0, share, "Share of calls: not accepted, and never an answer.")
    hang_after: float = _switch(0.0, share, "Share of calls: decided and done, and never an answer.")
    bad_gateway_before: float = _switch(0.0, share, "Share of calls: HTTP 502 with a page, not accepted.")
    bad_gateway_after: float = _switch(0.0, share, "Share of calls: decided and done, HTTP 502 with a page.")
    truncated: float = _switch(0.0, share, "Share of calls: decided and done, closed in mid-answer.")
    half_json: float = _switch(0.0, share, "Share of calls: decided and done, half of the JSON as all of it.")
    refuse: float = _switch(0.0, duration, "From now on, refuse connections for so long; open ones get one answer.")
    callback_url: str = _switch("", text, "The account's server: where events are posted; empty = nowhere.")
    callback_token: str = _switch("token", text, "Token of the account's server.")
    callback_aes_key: str = _switch("", aes_key, "EncodingAESKey of the account's server: events are encrypted.")
    callback_app_id: str = _switch("wx0123456789abcdef", text, "The app_id in encrypted events.")
    callback_compatible: bool = _switch(False, flag, "Encrypted events carry the plain fields too.")
    callback_timeout: float = _switch(5.0, duration, "How long the server may take; then the next of three tries.")
    event_delay: float = _switch(0.0, duration, "How long after a message its finish event comes.")
    event_first: bool = _switch(False, flag, "The finish event comes before the answer to the call.")
    event_twice: float = _switch(0.0, share, "Share of finish events that come twice.")
    event_lost: float = _switch(0.0, share, "Share of messages without a finish event.")
    event_zero_id: float = _switch(0.0, share, "Share of finish events with MsgID 0.")
    event_blocked: float = _switch(0.0, share, "Share of finish events: failed:user block.")
    event_failed: float = _switch(0.0, share, "Share of finish events: failed: system failed.")
    event_freq_limit: float = _switch(0.0, share, "Share of finish events: failed:freq limit.")

    def changed(self, changes: Mapping[str, object]) -> Options:
        """A copy with these changes, values as written in JSON. Raises ValueError naming the switch."""
        parsers = {each.name: each.metadata["parse"] for each in fields(self)}
        values = {}
        for name, value in changes.items():
            if name not in parsers:
                raise ValueError(f"no switch {name[:40]!r}; there are {', '.join(parsers)}")
            try:
                values[name] = parsers[name](value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """All switches with their values."""
        return asdict(self)
