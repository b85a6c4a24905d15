"""What the commands share: the configuration, the connection, and errors as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from fanoutd import client
from fanoutd.client import Client
from fanoutd.config import Config, find, load
from fanoutd.errors import BadInput, FanoutdError, NotNow, NotPermitted, Unreachable

_BY_ERROR: tuple[tuple[type[client.ClientError], type[FanoutdError]], ...] = (
    (client.NotPermitted, NotPermitted),
    (client.WrongState, NotNow),
    (client.TryAgain, Unreachable),
    (client.ClientError, BadInput),
)


@dataclass(slots=True)
class Settings:
    """The options that stand before every command."""

    config: str | None = None
    debug: bool = False

    def load(self) -> Config:
        """The configuration; what has no effect yet is said on stderr."""
        return load(find(self.config, os.environ), os.environ)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


class Group(click.Group):
    """Errors as one line on stderr and an exit code; a traceback only with --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FanoutdError as e:
            if ctx.params.get("debug"):
                raise
            say(f"fanoutd: {' '.join(str(e).split())}")
            ctx.exit(e.exit_code)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)


def say(text: str) -> None:
    """A line for people, never data."""
    click.echo(text, err=True)


@contextmanager
def connected(config: Config, timeout: float = 10.0) -> Iterator[Client]:
    """A connection to the daemon of this configuration, its refusals as our own errors."""
    try:
        with Client(config.daemon.socket, timeout) as connection:
            yield connection
    except client.Unreachable as e:
        raise Unreachable(f"{e}; start it with `fanoutd serve`") from None
    except client.ClientError as e:
        raise next(ours for theirs, ours in _BY_ERROR if isinstance(e, theirs))(str(e)) from None
    except PermissionError:
        raise NotPermitted(f"{config.daemon.socket}: you may not use this socket; see allow_users") from None
