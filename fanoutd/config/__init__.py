"""The configuration: one TOML file, read into frozen typed objects."""

from __future__ import annotations

from fanoutd.config.effective import show
from fanoutd.config.fields import MOST_WORKERS
from fanoutd.config.load import find, for_clients, load
from fanoutd.config.model import (
    Account,
    Audience,
    Config,
    Daemon,
    Health,
    Mail,
    Message,
    Metrics,
    OnFinish,
    Schedule,
    TokenQuery,
    Window,
    Workers,
    hooks,
)
from fanoutd.config.starter import STARTER, write_starter
from fanoutd.config.values import sqlite_path

__all__ = [
    "MOST_WORKERS", "STARTER", "Account", "Audience", "Config", "Daemon", "Health", "Mail", "Message", "Metrics",
    "OnFinish", "Schedule", "TokenQuery", "Window", "Workers", "find", "for_clients", "hooks", "load", "show",
    "sqlite_path",
    "write_starter",
]
