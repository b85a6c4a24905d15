"""What the commands share: the configuration, the connection, and errors as one line."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from fanoutd import client
from fanoutd.client import Client
from fanoutd.config import Config, find, for_clients, load
from fanoutd.errors import BadConfig, BadInput, FanoutdError, NotNow, NotPermitted, Unreachable
from fanoutd.plain import plain

_INTERNAL_ERROR = -32603
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

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
        """The configuration. Raises BadConfig."""
        return load(find(self.config, os.environ), os.environ)

    def reach(self) -> Config:
        """The same for whoever only asks a running daemon, which goes on with the one that it has read.

        A file that is being edited, or whose secrets are not for this user, does not keep him from it: a warning says
        so, and what is not about the daemon itself is empty. Raises BadConfig when no daemon is there either.
        """
        try:
            return self.load()
        except BadConfig as e:
            known = self._of_running()
            if known is None:
                raise
            say(f"warning: {goes_on(e)}")
            return known

    def for_clients(self) -> Config:
        """What can be known of a configuration that is bad now. Raises BadConfig."""
        return for_clients(find(self.config, os.environ))

    def _of_running(self) -> Config | None:
        try:
            config = self.for_clients()
            Client(config.daemon.socket).close()
        except (BadConfig, OSError):
            return None
        return config


def goes_on(why: BadConfig) -> str:
    """What it means that the file is bad now."""
    return f"{' '.join(str(why).split())}; the daemon goes on with what it has read"


pass_settings = click.make_pass_decorator(Settings, ensure=True)


class Group(click.Group):
    """Errors as one line on stderr and an exit code; a traceback only with --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except FanoutdError as e:
            _fail(ctx, str(e), e.exit_code)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            unheard()
            ctx.exit(1)
        except Exception as e:
            if sys.excepthook is not sys.__excepthook__:
                raise  # the daemon's: its own hook writes the traceback into the log
            if isinstance(e, OSError) and e.errno in _NO_ROOM:  # what we write ourselves says so itself
                unheard()
                _fail(ctx, f"{e.filename or 'what is printed cannot be written'}: {e.strerror}; make room", 1)
            _fail(ctx, f"{type(e).__name__}: {e}; this is a mistake in fanoutd, --debug shows where", 1)


def unheard() -> None:
    """What is still to be printed goes nowhere: nobody takes it, and Python would complain of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(ctx: click.Context, words: str, code: int) -> NoReturn:
    if ctx.find_root().params.get("debug"):
        traceback.print_exc()
    say(f"fanoutd: {plain(words)}")
    ctx.exit(code)


def say(text: str) -> None:
    """A line for people, never data."""
    click.echo(text, err=True)


@contextmanager
def connected(config: Config, timeout: float = 10.0) -> Iterator[Client]:
    """A connection to the daemon of this configuration, its refusals as our own errors."""
    with reaching(config), Client(config.daemon.socket, timeout) as connection:
        yield connection


@contextmanager
def reaching(config: Config) -> Iterator[None]:
    """What a client meets on the way to the daemon of this configuration, as our own errors."""
    try:
        yield
    except client.Unreachable as e:
        raise Unreachable(f"{e}; start it with `fanoutd serve`") from None
    except client.ClientError as e:
        if e.code == _INTERNAL_ERROR:
            raise FanoutdError(str(e)) from None
        raise next(ours for theirs, ours in _BY_ERROR if isinstance(e, theirs))(str(e)) from None
    except PermissionError:
        raise NotPermitted(f"{config.daemon.socket}: you may not use this socket; see allow_users") from None
