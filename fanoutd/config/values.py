"""Single values of the configuration: from what TOML gives to what the program uses.

Every parser raises ValueError with words that say what would be right. None of them repeats a
value that may hold a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from fanoutd.config import mysql_url
from fanoutd.outcome import CHANNELS
from fanoutd.times import local_ms

Parser = Callable[[Any], Any]

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_QUIET = re.compile(rf"({_CLOCK})-({_CLOCK})")
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,-]+")
_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^:@/]*):[^/]+@", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_TYPES = {
    str: "a string", bool: "true or false", int: "a whole number", float: "a number", list: "a list",
    dict: "a table",
}


def _wants(what: str, value: object) -> ValueError:
    return ValueError(f"wants {what}, not {_TYPES.get(type(value), 'a date')}")


def text(value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise _wants("a string", value)
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def word(value: object) -> str:
    """A string of one line without blanks around it: an id, a user, an address."""
    line = text(value)
    if _CONTROL.search(line) or line != line.strip():
        raise ValueError("wants one line without control characters or blanks around it")
    return line


def words(value: object) -> tuple[str, ...]:
    """A list of strings, possibly empty."""
    if not isinstance(value, list):
        raise _wants("a list of strings", value)
    return tuple(word(each) for each in value)


def reply(value: object) -> str:
    """A text for a follower, of at most 600 characters (WeChat takes 2048 bytes); empty: none."""
    if not isinstance(value, str):
        raise _wants('a string, or "" for no reply', value)
    if len(value) > 600:
        raise ValueError("is too long: at most 600 characters")
    return value.strip()


def window(value: object) -> tuple[int, float]:
    """``{ messages = 5, within = "48h" }``: how many messages (0: any number), and seconds."""
    right = '{ messages = 5, within = "48h" }, with messages = 0 for any number'
    if not isinstance(value, dict):
        raise _wants(right, value)
    if set(value) != {"messages", "within"}:
        raise ValueError(f"wants {right}")
    return whole(0, 1000)(value["messages"]), duration(value["within"])


def choice(*options: str) -> Parser:
    """One of these strings."""
    right = " or ".join(f'"{option}"' for option in options)

    def parse(value: object) -> str:
        if not isinstance(value, str):
            raise _wants(right, value)
        if value not in options:
            raise ValueError(f"wants {right}, not {value[:40]!r}")
        return value

    return parse


def some_of(*options: str) -> Parser:
    """A list of some of these strings, possibly empty."""

    def parse(value: object) -> tuple[str, ...]:
        chosen = words(value)
        for each in chosen:
            if each not in options:
                raise ValueError(f"{each[:40]!r} is none; there are: {', '.join(options)}")
        return chosen

    return parse


def whole(low: int, high: int) -> Parser:
    """A whole number from low to high."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wants(f"a whole number from {low} to {high}", value)
        if not low <= value <= high:
            raise ValueError(f"wants a whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Parser:
    """A number from low to high; TOML's nan and inf are none."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wants(f"a number from {low:g} to {high:g}", value)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"wants a number from {low:g} to {high:g}")
        return float(value)

    return parse


def duration(value: object) -> float:
    """``"250ms"``, ``"30s"``, ``"5m"``, ``"2h"``, ``"90d"``: seconds, more than 0."""
    right = 'a duration like "30s", "5m" or "2h"'
    if not isinstance(value, str):
        raise _wants(right, value)
    match = _DURATION.fullmatch(value)
    seconds = round(float(match[1]) * _SECONDS[match[2]], 3) if match else 0.0
    if not 0 < seconds <= 36500 * 86400:
        raise ValueError(f"wants {right}, more than 0, not {value[:40]!r}")
    return seconds


def size(value: object) -> int:
    """``"64KiB"``, ``"1MiB"``: bytes, at least 1 KiB."""
    right = 'a size like "64KiB" or "1MiB"'
    if not isinstance(value, str):
        raise _wants(right, value)
    match = _SIZE.fullmatch(value)
    count = int(match[1]) * _BYTES[match[2]] if match else 0
    if count < 1024:
        raise ValueError(f"wants {right}, at least 1KiB, not {value[:40]!r}")
    return count


def mode(value: object) -> int:
    """``"0660"``: permission bits, as a string since a TOML number would be decimal."""
    right = 'file permissions like "0660"'
    if not isinstance(value, str):
        raise _wants(f"{right} (in quotes)", value)
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f"wants {right}, not {value[:40]!r}")
    return int(value, 8)


def path(value: object) -> Path:
    """A path as written; who reads it knows the folder it is relative to."""
    return Path(word(value))


def timezone(value: object) -> str:
    """A name of the tz database, such as Asia/Shanghai."""
    name = word(value)
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder such as "Asia"
        raise ValueError(
            f"no time zone {name[:40]!r}; wants one like Asia/Shanghai (is the package tzdata installed?)"
        ) from None
    return name


def quiet_hours(value: object) -> tuple[str, str]:
    """``"22:00-08:00"``: from and until, over midnight if need be."""
    match = _QUIET.fullmatch(word(value))
    if not match or match[1] == match[2]:
        raise ValueError('wants two different times of day like "22:00-08:00"')
    return match[1], match[2]


def daily_limit(value: object) -> dict[str, int]:
    """``{ custom = 500000, template = 100000 }``: calls a day by channel, any of them."""
    if not isinstance(value, dict):
        raise _wants("a table like { custom = 500000, template = 100000 }", value)
    for channel in value:
        if channel not in CHANNELS:
            raise ValueError(f'unknown channel "{channel[:40]}"; there are: {", ".join(CHANNELS)}')
    return {channel: whole(1, 10**12)(calls) for channel, calls in value.items()}


def crontab(value: object) -> str:
    """Five crontab fields; empty for off."""
    if not isinstance(value, str):
        raise _wants('a crontab line like "0 9 * * *", or "" for off', value)
    fields = value.split()
    if fields and not (len(fields) == 5 and all(_CRON_FIELD.fullmatch(each) for each in fields)):
        raise ValueError('wants five crontab fields like "0 9 * * *", or "" for off')
    if fields:
        _check_crontab(" ".join(fields))
    return " ".join(fields)


def _check_crontab(line: str) -> None:
    from fanoutd import cron  # its scheduler is imported where a file has such a line, and not by every command

    if cron.next_after(line, "UTC", local_ms()) is None:
        raise ValueError(f"{line!r} never comes")


def listen(value: object) -> tuple[str, int]:
    """``"127.0.0.1:9464"`` or ``"[::1]:9464"``: host and port."""
    host, _, port = word(value).rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError('wants an address like "127.0.0.1:9464"')
    return host.strip("[]"), int(port)


def _split(value: object, schemes: tuple[str, ...], right: str) -> SplitResult:
    url = word(value)
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and url.startswith(
            tuple(f"{scheme}://" for scheme in schemes)
        )
    except ValueError:  # a port or a bracketed host that is none
        good = False
    if not good:
        raise ValueError(f"wants {right}; user and password are percent-encoded")
    return parts


def api_base(value: object) -> str:
    """An http or https address, without the slash at its end."""
    right = "an address like https://api.weixin.qq.com"
    parts = _split(value, ("https", "http"), right)
    if parts.query or parts.fragment:
        raise ValueError(f"wants {right}, without ? or #")
    return parts.geturl().rstrip("/")


def database_url(value: object) -> str:
    """``sqlite:///x`` and ``sqlite:////x`` as ``sqlite:////x``; a mysql URL as given."""
    url = word(value)
    if url.startswith("sqlite:///") and url.strip("/") != "sqlite:":
        return sqlite_url(Path("/" + url.removeprefix("sqlite:///").lstrip("/")))
    _split(url, ("mysql",), mysql_url.RIGHT)
    mysql_url.parse(url)
    return url


def store_url(value: object) -> str:
    """A database URL, or the bare word ``sqlite`` for the file in state_dir."""
    return "sqlite" if value == "sqlite" else database_url(value)


def in_full(url: str, state_dir: Path) -> str:
    """A store's URL, the bare word too."""
    return sqlite_url(state_dir / "fanoutd.db") if url == "sqlite" else url


def sqlite_url(file: Path) -> str:
    """The URL of an absolute path."""
    return f"sqlite:///{file}"


def sqlite_path(url: str) -> Path | None:
    """The file of a normalised URL; None for another database."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def has_password(url: str) -> bool:
    """Whether the URL gives a password away."""
    return _PASSWORD.match(url) is not None


def masked(url: str) -> str:
    """The URL with ``***`` for its password."""
    return _PASSWORD.sub(r"\1:***@", url)


def token(value: object) -> str | dict[str, Any]:
    """``"stable"``, ``"classic"``, or the table of a query, whose keys are read by the caller."""
    # The value is not repeated: somebody may have put a real access token here.
    if value in ("stable", "classic") or isinstance(value, dict):
        return value
    raise ValueError('wants "stable", "classic" or { database = "mysql://…", query = "SELECT …" }')


def subtable(value: object) -> dict[str, Any]:
    """A table, whose keys are read by the caller."""
    if not isinstance(value, dict):
        raise _wants("a table", value)
    return value
