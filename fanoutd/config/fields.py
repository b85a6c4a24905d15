"""The keys of every table: one row each, with its parser and its default; and how a table is read."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fanoutd.config import addresses, mysql_url, smtp_url
from fanoutd.config import values as v
from fanoutd.errors import BadConfig

#: The default of a key that must be given.
REQUIRED: Any = object()

#: Each is a process with connections of its own.
MOST_WORKERS = 1000

#: Names of accounts, messages and audiences; an account's is part of an environment variable too.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Field:
    """How one key is parsed, and its value when it is absent."""

    parse: v.Parser
    default: Any = REQUIRED


Fields = Mapping[str, Field]

DAEMON: Fields = {
    "state_dir": Field(v.path, Path("state")),
    "socket": Field(v.path, None),
    "socket_mode": Field(v.mode, 0o660),
    "socket_group": Field(v.word, None),
    "allow_users": Field(v.words, ()),
    "admin_users": Field(v.words, ()),
    "pidfile": Field(v.path, None),
    "user": Field(v.word, None),
    "log_file": Field(v.path, None),
    "log_format": Field(v.choice("text", "json"), "text"),
    "max_request": Field(v.size, 1 << 20),
    "drop": Field(v.path, None),
}
WORKERS: Fields = {
    "count": Field(v.whole(1, MOST_WORKERS), 4),
    "concurrency": Field(v.whole(1, 10_000), 64),
    "graceful_timeout": Field(v.duration, 30.0),
    "hang_timeout": Field(v.duration, 60.0),
    "max_memory": Field(v.size, 256 << 20),
    "max_messages": Field(v.whole(0, 10**12), 0),
}
STORE: Fields = {
    "url": Field(v.store_url, "sqlite"),
}
ACCOUNT: Fields = {
    "app_id": Field(v.word),
    "app_secret_file": Field(v.path, None),
    "app_secret": Field(v.word, None),
    "api_base": Field(v.api_base, "https://api.weixin.qq.com"),
    "token": Field(v.token, "stable"),
    "rate": Field(v.number(0.001, 1_000_000), 100.0),
    "connect_timeout": Field(v.duration, 3.0),
    "keepalive": Field(v.duration, 5.0),
    "timeout": Field(v.duration, 10.0),
    "quiet_hours": Field(v.quiet_hours, None),
    "daily_limit": Field(v.daily_limit, MappingProxyType({})),
    "timezone": Field(v.timezone, "Asia/Shanghai"),
    "on_unknown": Field(v.choice("hold", "resend"), "hold"),
    "max_failures": Field(v.number(0, 1), 0.2),
    "opt_out_reply": Field(v.reply, "已取消接收信息。回复1重新接收。"),
    "opt_in_reply": Field(v.reply, "已重新接收信息。回复0取消接收。"),
}
TOKEN_QUERY: Fields = {
    "database": Field(v.database_url),
    "query": Field(v.text),
}
MESSAGE: Fields = {  # and a table for each channel
    "channels": Field(v.words, None),
    "too_long": Field(v.choice("cut", "fail"), "cut"),
    "variables": Field(v.words, ()),
    "on_finish": Field(v.subtable, None),
}
ON_FINISH: Fields = {
    "database": Field(v.database_url, None),
    "statement": Field(v.text, None),
    "command": Field(v.words, ()),
}
AUDIENCE: Fields = {
    "database": Field(v.database_url, None),
    "query": Field(v.text, None),
    "source": Field(v.choice("subscribers"), None),
    "on_opt_out": Field(v.text, None),
    "on_opt_in": Field(v.text, None),
    "on_gone": Field(v.text, None),
    "exclude": Field(v.word, None),
}
#: WeChat's own table since June 2023 (its pages disagree on `pay`).
WINDOWS: Fields = {
    "message": Field(v.window, (5, 48 * 3600.0)),
    "menu": Field(v.window, (3, 60.0)),
    "subscribe": Field(v.window, (3, 60.0)),
    "scan": Field(v.window, (3, 60.0)),
    "pay": Field(v.window, (0, 48 * 3600.0)),
}
MAIL: Fields = {
    "smtp": Field(smtp_url.smtp_url),
    "from": Field(addresses.address),
    "to": Field(addresses.addresses),
    "reports": Field(v.choice("all", "problems", "off"), "all"),
}
METRICS: Fields = {
    "listen": Field(v.listen),
}
#: What health looks at, by name: `off` leaves some of it out (fanoutd.health.conditions has what each means).
CONDITIONS = (
    "store", "api", "token", "shards", "workers", "disk", "memory", "quota", "node", "api_errors", "store_slow",
    "records_late", "api_slow", "spool", "clock", "reload",
)  # fmt: skip
#: Health: beyond which a condition is broken.
HEALTH: Fields = {
    "api_errors": Field(v.number(0, 1), 0.2),
    "api_latency": Field(v.duration, 3.0),
    "clock_off": Field(v.duration, 5.0),
    "disk_left": Field(v.size, 256 << 20),
    "memory_left": Field(v.size, 64 << 20),
    "off": Field(v.some_of(*CONDITIONS), ()),
    "quota_left": Field(v.number(0, 1), 0.1),
    "record_lag": Field(v.duration, 30.0),
    "restarts": Field(v.whole(1, 1_000_000), 5),
    "spool_age": Field(v.duration, 120.0),
    "store_latency": Field(v.duration, 1.0),
    "stuck": Field(v.duration, 300.0),
    "token_left": Field(v.duration, 180.0),  # WeChat renews a token 300 s before its end, and we ask 290 s before it
}
SCHEDULE: Fields = {
    "health_check": Field(v.duration, 60.0),
    "token_check": Field(v.duration, 60.0),
    "digest": Field(v.crontab, "0 9 * * *"),
    "sync": Field(v.crontab, ""),
    "timezone": Field(v.timezone, None),
    "retention": Field(v.duration, 90 * 86400.0),
}

#: Tables that stand once in the file, and those that stand once a name.
SINGLE: Mapping[str, Fields] = {
    "daemon": DAEMON, "workers": WORKERS, "store": STORE, "mail": MAIL, "metrics": METRICS,
    "health": HEALTH, "schedule": SCHEDULE, "windows": WINDOWS,
}
NAMED: Mapping[str, Fields] = {"account": ACCOUNT, "message": MESSAGE, "audience": AUDIENCE}


@dataclass(frozen=True, slots=True)
class Place:
    """A table of a file, for errors: ``FILE: [TABLE] KEY: words``."""

    file: Path
    table: str = ""

    def sub(self, key: str) -> Place:
        """The table under this one."""
        return Place(self.file, f"{self.table}.{_shown(key)}" if self.table else _shown(key))

    def error(self, key: str, words: object) -> BadConfig:
        """The error to raise."""
        table = f"[{self.table}] " if self.table else ""
        return BadConfig(f"{self.file}: {table}{_shown(key)}: {words}")

    def unknown(self, key: str, known: Iterable[str], what: str = "key") -> BadConfig:
        """The error for a name that nobody knows, with the nearest that somebody does."""
        return self.error(key, f"unknown {what}; {_hint(key, sorted(known))}")


def _hint(key: str, known: list[str]) -> str:
    homes = [name for name, keys in SINGLE.items() if key in keys]
    homes += [f"{name}.NAME" for name, keys in NAMED.items() if key in keys]
    if homes:
        return f"it belongs under [{homes[0]}]"
    near = difflib.get_close_matches(key, known, 1)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}"


def _shown(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def table(raw: object, place: Place) -> dict[str, Any]:
    """The raw value, if it is a table. Raises BadConfig."""
    if not isinstance(raw, dict):
        raise BadConfig(f"{place.file}: [{place.table}]: wants a table with keys of its own")
    return raw


def named(raw: object, place: Place) -> dict[str, Any]:
    """The tables of ``[account.NAME]`` and the like, with their names checked. Raises BadConfig."""
    tables = table(raw, place)
    for name, each in tables.items():
        if not isinstance(each, dict):
            raise place.error(name, f"wants a table of its own, like [{place.table}.main]")
        if not _NAME.fullmatch(name):
            raise place.error(name, "wants a name of up to 64 letters, digits, - and _")
    return tables


def read(raw: object, fields: Fields, place: Place) -> dict[str, Any]:
    """The table's values, parsed, with defaults for what is absent. Raises BadConfig."""
    given = table(raw, place)
    for key in given:
        if key not in fields:
            raise place.unknown(key, fields)
    return {key: _value(given, key, field, place) for key, field in fields.items()}


#: Kinds of value that may name files, inside a URL: how such a path is made whole.
_BELOW: Mapping[v.Parser, Callable[[str, Path], str]] = {
    v.database_url: mysql_url.below, v.store_url: mysql_url.below, smtp_url.smtp_url: smtp_url.below,
}  # fmt: skip


def _value(given: Mapping[str, Any], key: str, field: Field, place: Place) -> Any:
    if key not in given:
        if field.default is REQUIRED:
            raise place.error(key, "is missing and has no default")
        return field.default
    try:
        value = field.parse(given[key])
        below = _BELOW.get(field.parse)
        return below(value, place.file.parent) if below else value
    except ValueError as e:
        raise place.error(key, e) from None
