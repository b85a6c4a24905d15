"""Reading parameters: one small function a kind of value, each raising RpcError that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from fanoutd import times
from fanoutd.ids import OPENID
from fanoutd.master.rpc import INVALID_PARAMS, NO_SUCH_CAMPAIGN, RpcError
from fanoutd.uploads import UPLOAD

_DECIMAL = re.compile(r"[0-9]{1,19}")
_CAMPAIGN = re.compile(r"[a-z0-9-]{1,64}")


def invalid(field: str, words: str) -> RpcError:
    """-32602 in one line that begins with the field's name."""
    return RpcError(INVALID_PARAMS, f"{field} {words}", field)


def only(params: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a parameter that does not exist: a misspelt one must not silently mean its default."""
    for name in params:
        if name not in known:
            raise invalid(name[:80], f"is no parameter here; there is: {', '.join(known) or 'none'}")


def text(params: Mapping[str, Any], field: str, longest: int) -> str | None:
    """A string of at most ``longest`` characters, or None for null or nothing."""
    value = params.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid(field, "must be a string")
    if len(value) > longest:
        raise invalid(field, f"is too long: {len(value)} characters, at most {longest}")
    return value


def label(params: Mapping[str, Any], field: str, longest: int) -> str | None:
    """A text for which a whole number is taken too, as PHP writes a phone number or an order's."""
    value = params.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return text({field: str(value)}, field, longest)
    return text(params, field, longest)


def whole(params: Mapping[str, Any], field: str, low: int, high: int, default: int | None) -> int | None:
    """A whole number from low to high; a string of decimals is taken too."""
    value = params.get(field)
    if value is None:
        return default
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(field, f"must be a whole number from {low} to {high}")
    return value


def table(params: Mapping[str, Any], field: str) -> dict[str, str]:
    """An object of plain values, as texts. An empty list is an empty object: PHP writes ``[]``."""
    value = params.get(field)
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise invalid(field, "must be an object")
    return {name: _plain(each, f"{field}.{name}") for name, each in value.items()}


def _plain(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid(field[:80], "must be a string or a number")
    return str(value)


def campaign(params: Mapping[str, Any]) -> str:
    """The id of a campaign. What cannot be one is a campaign that does not exist."""
    value = params.get("campaign")
    if not isinstance(value, str):
        raise invalid("campaign", "must be a campaign's id")
    if not _CAMPAIGN.fullmatch(value):
        raise RpcError(NO_SUCH_CAMPAIGN, f"no campaign {value[:64]!r}; see campaign.list", "campaign")
    return value


def flag(params: Mapping[str, Any], field: str) -> bool:
    """True or false; null and nothing are false."""
    value = params.get(field)
    if value is not None and not isinstance(value, bool):
        raise invalid(field, "must be true or false")
    return bool(value)


def openid(value: Any, field: str) -> str:
    """An openid's shape; whether there is such a person only WeChat knows."""
    if not isinstance(value, str) or not OPENID.fullmatch(value):
        raise invalid(field, "is no openid: 6 to 64 of A-Z a-z 0-9 _ -")
    return value


def openids(value: Any) -> list[str]:
    """A list of at least one of them."""
    if not isinstance(value, list) or not value:
        raise invalid("openids", "must be a list of at least one openid")
    return [openid(each, f"openids[{index}]") for index, each in enumerate(value)]


def when(params: Mapping[str, Any], field: str) -> int | None:
    """An ISO 8601 time with an offset in milliseconds since 1970; None for null or nothing."""
    value = text(params, field, 64)
    if value is None:
        return None
    try:
        return times.parse_when(value)
    except ValueError as e:
        raise RpcError(INVALID_PARAMS, f"{field}: {e}", field) from None


def when_or_epoch(params: Mapping[str, Any], field: str) -> int | None:
    """The same, or seconds since 1970 as WeChat's events have them."""
    value = params.get(field)
    if isinstance(value, int) or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
        seconds = whole(params, field, 0, 1 << 40, None)
        return None if seconds is None else seconds * 1000
    return when(params, field)


def state(params: Mapping[str, Any], states: Collection[str]) -> str | None:
    """One of these states, or None for all."""
    value = params.get("state")
    if value is not None and value not in tuple(states):
        raise invalid("state", f"must be one of {', '.join(states)}")
    return value


def upload(params: Mapping[str, Any]) -> str | None:
    """What audience.upload gave, None for null or nothing; whether it is there yet only the spool knows."""
    value = text(params, "upload", 64)
    if value is not None and not UPLOAD.fullmatch(value):
        raise invalid("upload", f"{value!r} is none; it is what audience.upload gives")
    return value
