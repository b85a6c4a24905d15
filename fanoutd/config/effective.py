"""The configuration in force, as TOML that could be loaded again: `fanoutd config show`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fanoutd.config.model import (
    Account,
    Audience,
    Config,
    Daemon,
    Health,
    Message,
    OnFinish,
    Schedule,
    TokenQuery,
    Workers,
)
from fanoutd.config.values import masked

_SECRET = "***"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))

Table = dict[str, Any]


def show(config: Config) -> str:
    """TOML text with every default spelt out and every secret as ``***``. Absent keys have no value."""
    return "\n\n".join(_block(name, table) for name, table in _tables(config)) + "\n"


def _tables(config: Config) -> Iterator[tuple[str, Table]]:
    yield "daemon", _daemon(config.daemon)
    yield "workers", _workers(config.workers)
    yield "store", {"url": masked(config.store_url)}
    for account in config.accounts.values():
        yield f"account.{account.name}", _account(account)
    for message in config.messages.values():
        yield from _message(message)
    for audience in config.audiences.values():
        yield f"audience.{audience.name}", _audience(audience)
    yield "windows", {
        name: {"messages": each.messages, "within": _duration(each.within)} for name, each in config.windows.items()
    }
    if config.mail:
        mail = config.mail
        yield "mail", {"smtp": masked(mail.smtp), "from": mail.sender, "to": mail.to, "reports": mail.reports}
    if config.metrics:
        host = config.metrics.host
        host = f"[{host}]" if ":" in host else host
        yield "metrics", {"listen": f"{host}:{config.metrics.port}"}
    yield "health", _health(config.health)
    yield "schedule", _schedule(config.schedule)


def _daemon(daemon: Daemon) -> Table:
    return {
        "state_dir": daemon.state_dir,
        "socket": daemon.socket,
        "socket_mode": f"{daemon.socket_mode:04o}",
        "socket_group": daemon.socket_group,
        "allow_users": daemon.allow_users,
        "admin_users": daemon.admin_users,
        "pidfile": daemon.pidfile,
        "user": daemon.user,
        "log_file": daemon.log_file,
        "log_format": daemon.log_format,
        "max_request": _size(daemon.max_request),
        "drop": daemon.drop,
    }


def _workers(workers: Workers) -> Table:
    return {
        "count": workers.count,
        "concurrency": workers.concurrency,
        "graceful_timeout": _duration(workers.graceful_timeout),
        "hang_timeout": _duration(workers.hang_timeout),
        "max_memory": _size(workers.max_memory),
        "max_messages": workers.max_messages,
    }


def _account(account: Account) -> Table:
    token: Any = account.token
    if isinstance(token, TokenQuery):
        token = {"database": masked(token.database), "query": token.query}
    return {
        "app_id": account.app_id,
        "app_secret": account.app_secret and _SECRET,
        "api_base": masked(account.api_base),
        "token": token,
        "rate": account.rate,
        "connect_timeout": _duration(account.connect_timeout),
        "keepalive": _duration(account.keepalive),
        "timeout": _duration(account.timeout),
        "quiet_hours": account.quiet_hours and "-".join(account.quiet_hours),
        "daily_limit": account.daily_limit or None,
        "timezone": account.timezone,
        "on_unknown": account.on_unknown,
        "max_failures": account.max_failures,
        "opt_out_reply": account.opt_out_reply,
        "opt_in_reply": account.opt_in_reply,
    }


def _message(message: Message) -> Iterator[tuple[str, Table]]:
    name = f"message.{message.name}"
    yield name, {
        "channels": message.channels, "too_long": message.too_long, "variables": message.variables,
        "on_finish": message.on_finish and _on_finish(message.on_finish),
    }
    for channel, body in message.bodies.items():
        yield f"{name}.{channel}", dict(_dotted(body))


def _on_finish(wanted: OnFinish) -> Table:
    table = {
        "database": wanted.database and masked(wanted.database), "statement": wanted.statement,
        "command": wanted.command or None,
    }
    return {key: value for key, value in table.items() if value is not None}


def _audience(audience: Audience) -> Table:
    return {
        "database": audience.database and masked(audience.database),
        "query": audience.query,
        "source": audience.source,
        "on_opt_out": audience.on_opt_out,
        "on_opt_in": audience.on_opt_in,
        "on_gone": audience.on_gone,
        "exclude": audience.exclude,
    }


def _health(health: Health) -> Table:
    return {
        "api_errors": health.api_errors,
        "api_latency": _duration(health.api_latency),
        "clock_off": _duration(health.clock_off),
        "disk_left": _size(health.disk_left),
        "memory_left": _size(health.memory_left),
        "off": health.off,
        "quota_left": health.quota_left,
        "record_lag": _duration(health.record_lag),
        "restarts": health.restarts,
        "spool_age": _duration(health.spool_age),
        "store_latency": _duration(health.store_latency),
        "stuck": _duration(health.stuck),
        "token_left": _duration(health.token_left),
    }


def _schedule(schedule: Schedule) -> Table:
    return {
        "health_check": _duration(schedule.health_check),
        "token_check": _duration(schedule.token_check),
        "digest": schedule.digest,
        "sync": schedule.sync,
        "timezone": schedule.timezone,
        "retention": _duration(schedule.retention),
    }


def _duration(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    for unit, each in _UNITS:
        if milliseconds % (each * 1000) == 0:
            return f"{milliseconds // (each * 1000)}{unit}"
    return f"{milliseconds}ms"


def _size(count: int) -> str:
    unit, each = next((unit, each) for unit, each in _SIZES if count % each == 0)
    return f"{count // each}{unit}"


def _dotted(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A body's tables as dotted keys, the way people write them."""
    for key, value in body.items():
        name = prefix + _key(key)
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{name}.")
        else:
            yield name, value


def _block(name: str, table: Table) -> str:
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    return "\n".join([f"[{name}]", *lines])


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: Any) -> str:
    if isinstance(value, str | Path):
        return _string(str(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value)
