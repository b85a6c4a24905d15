"""The configuration as frozen objects: checked, complete, never partial.

Durations are seconds, sizes are bytes, paths are absolute. What may hold a secret is kept out of
every repr.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, overload
from urllib.parse import quote

from fanoutd.config import smtp_url
from fanoutd.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Daemon:
    """[daemon]: where the master lives and who may talk to it.

    ``drop`` is where clients leave what they cannot submit.
    """

    state_dir: Path
    socket: Path
    socket_mode: int
    socket_group: str | None
    allow_users: tuple[str, ...]
    admin_users: tuple[str, ...]
    pidfile: Path
    user: str | None
    log_file: Path | None
    log_format: str
    max_request: int
    drop: Path


@dataclass(frozen=True, slots=True)
class Workers:
    """[workers]: how many, and how hard they work. ``max_messages`` 0 means never recycled."""

    count: int
    concurrency: int
    graceful_timeout: float
    hang_timeout: float
    max_memory: int
    max_messages: int


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """An access token that another system keeps in a database."""

    database: str = field(repr=False)
    query: str
    params: frozenset[str]


@dataclass(frozen=True, slots=True)
class Account:
    """[account.NAME]: one official account. ``api_base`` ends without a slash, ``rate`` is calls a second.

    ``daily_limit`` are the calls a day that the operator allows, by channel, where fewer than WeChat does.
    ``app_secret`` is None only where the token comes from a TokenQuery.
    """

    name: str
    app_id: str
    app_secret: str | None = field(repr=False)
    api_base: str = field(repr=False)
    token: str | TokenQuery
    rate: float
    connect_timeout: float
    keepalive: float
    timeout: float
    quiet_hours: tuple[str, str] | None
    daily_limit: Mapping[str, int]
    timezone: str
    on_unknown: str
    max_failures: float
    opt_out_reply: str
    opt_in_reply: str


@dataclass(frozen=True, slots=True)
class OnFinish:
    """What is done when a campaign has ended: ``statement`` on ``database``, ``command`` (empty: none), or both."""

    database: str | None = field(repr=False)
    statement: str | None
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """[message.NAME]: a kind of message.

    ``bodies[channel]`` is WeChat's body less touser, as nested plain dicts, for each of ``channels``;
    ``placeholders`` are all names that these bodies use, built-in ones too.
    """

    name: str
    channels: tuple[str, ...]
    too_long: Literal["cut", "fail"]
    variables: tuple[str, ...]
    bodies: Mapping[str, Mapping[str, Any]]
    placeholders: frozenset[str]
    on_finish: OnFinish | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """[audience.NAME]: either a ``query`` that yields openid, or a ``source``.

    ``database`` None is the store; ``params`` are the ``%(name)s`` of ``query``; ``exclude`` names another audience.
    """

    name: str
    database: str | None = field(repr=False)
    query: str | None
    source: str | None
    on_opt_out: str | None
    on_opt_in: str | None
    on_gone: str | None
    exclude: str | None
    params: frozenset[str]


#: Statements on the operator's side that a person's word or WeChat's may call for.
HOOKS = ("on_opt_out", "on_opt_in", "on_gone")


def hooks(audiences: Iterable[Audience]) -> frozenset[str]:
    """Those that some audience has."""
    return frozenset(hook for each in audiences for hook in HOOKS if getattr(each, hook) is not None)


@dataclass(frozen=True, slots=True)
class Window:
    """[windows]: how many custom messages an action of a person allows, 0 for any number, ``within`` how long."""

    messages: int
    within: float


#: Characters of a user of a mail server that nobody has chosen as a name. Shorter ones may be any word of the log.
_KEY = 12


@dataclass(frozen=True, slots=True)
class Mail:
    """[mail]: ``sender`` is the key ``from``; ``reports``: of which campaigns that have ended there is a mail."""

    smtp: str = field(repr=False)
    sender: str
    to: tuple[str, ...]
    reports: str = "all"

    @property
    def relay(self) -> smtp_url.Relay:
        """Where it is handed in."""
        return smtp_url.parse(self.smtp)

    def secrets(self) -> tuple[str, ...]:
        """The password, as it is, as it stands in the URL, and as it goes over the wire together with the user; and a
        user that is a key rather than a word or an address of ours."""
        relay = self.relay
        if relay.user is None:
            return ()
        plain = f"\0{relay.user}\0{relay.password}"
        wire = (base64.b64encode(each.encode()).decode() for each in (plain, relay.password))
        users = [each for each in (relay.user,) if len(each) >= _KEY and each not in " ".join((self.sender, *self.to))]
        return tuple(dict.fromkeys((relay.password, quote(relay.password, safe=""), *wire, *users)))


@dataclass(frozen=True, slots=True)
class Metrics:
    """[metrics]: the address that Prometheus scrapes."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Health:
    """[health]: beyond which a condition is broken: seconds, bytes, shares of 1; ``restarts`` is deaths in ten minutes.

    ``off`` names the conditions that are not looked at.
    """

    api_errors: float
    api_latency: float
    clock_off: float
    disk_left: int
    memory_left: int
    off: tuple[str, ...]
    quota_left: float
    record_lag: float
    restarts: int
    spool_age: float
    store_latency: float
    stuck: float
    token_left: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """[schedule]: ``digest`` and ``sync`` are crontab lines, empty for off, in ``timezone``."""

    health_check: float
    token_check: float
    digest: str
    sync: str
    timezone: str
    retention: float


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file; ``text`` is what it was read from.

    ``store_url`` is ``sqlite:////abs/path`` or the mysql URL as given.

    ``warnings`` are lines for the log and for `config check`; the configuration is good all the same.
    """

    path: Path
    text: bytes = field(repr=False)
    daemon: Daemon
    workers: Workers
    store_url: str = field(repr=False)
    accounts: Mapping[str, Account]
    messages: Mapping[str, Message]
    audiences: Mapping[str, Audience]
    windows: Mapping[str, Window]
    mail: Mail | None
    metrics: Metrics | None
    health: Health
    schedule: Schedule
    warnings: tuple[str, ...]

    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in a log."""
        known = [account.app_secret for account in self.accounts.values() if account.app_secret]
        return (*known, *(self.mail.secrets() if self.mail else ()))

    @overload
    def pick(self, kind: Literal["account"], name: str | None) -> Account: ...
    @overload
    def pick(self, kind: Literal["message"], name: str | None) -> Message: ...
    @overload
    def pick(self, kind: Literal["audience"], name: str | None) -> Audience: ...

    def pick(self, kind: str, name: str | None) -> Account | Message | Audience:
        """The one of this name; for None the only one, or the one called ``default``.

        Raises BadInput in one line that says what there is.
        """
        tables: dict[str, Mapping[str, Account | Message | Audience]] = {
            "account": self.accounts, "message": self.messages, "audience": self.audiences,
        }
        return _pick(kind, tables[kind], name)


def _pick(kind: str, table: Mapping[str, T], name: str | None) -> T:
    known = ", ".join(sorted(table)) or f"none; add [{kind}.default] to the configuration"
    if name is not None:
        if name in table:
            return table[name]
        raise BadInput(f"no {kind} {name!r} is configured; there is: {known}")
    if len(table) == 1:
        return next(iter(table.values()))
    if "default" in table:
        return table["default"]
    raise BadInput(f"which {kind}? there is no default one; there is: {known}")
