"""``fanoutd check``: a probe for cron and Nagios. One line and 0, 1, 2 or 3, whatever happens."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from types import FrameType

import click

from fanoutd.away import post
from fanoutd.checking import command
from fanoutd.checking.act import Done, Post, Wish
from fanoutd.checking.act import check as act
from fanoutd.checking.verdict import DOWN, UNKNOWN, Verdict
from fanoutd.cli.common import Settings, goes_on, pass_settings, say, unheard
from fanoutd.config import Config
from fanoutd.errors import BadConfig, FanoutdError
from fanoutd.mail.smtp import Patience

#: A mail server that is slow must not keep the next check waiting.
_SMTP = Patience(connect=5.0, answer=15.0, whole=40.0)
#: Seconds after which it cannot tell: for a look alone, and when something is mailed or started.
_LOOKING, _ACTING = 60, 400


@click.command()
@click.option("--mail", is_flag=True,
              help="Mail when the result changes; what cannot be mailed now is next time.")  # fmt: skip
@click.option("--down-only", is_flag=True,
              help="Of --mail: not that it is degraded, which the daemon mails itself.")  # fmt: skip
@click.option("--restart", metavar="COMMAND",
              help="Run this when it is down and was not stopped; mail that, and when it is back.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Say nothing unless something was started, or is new: for cron.")
@click.option("--timeout", type=click.FloatRange(0.1, 30), default=10.0, metavar="SECONDS",
              help="How long the daemon may take to answer; 10.")  # fmt: skip
@pass_settings
def check(
    settings: Settings, mail: bool, down_only: bool, restart: str | None, quiet: bool, timeout: float
) -> None:
    """Say in one line how the daemon is. Exit 0 healthy, 1 degraded, 2 down, 3 cannot tell."""
    _never_for_ever(_ACTING if mail or restart else _LOOKING)
    try:
        done = _done(settings, mail, down_only, command.words(restart) if restart is not None else (), timeout)
    except (FanoutdError, ValueError) as e:
        done = _cannot_tell(str(e))
    except OSError as e:
        done = _cannot_tell(f"{e.filename or 'the file system'}: {e.strerror}")
    except Exception as e:
        if settings.debug:
            raise
        done = _cannot_tell(f"{type(e).__name__}: {e}; this is a mistake in fanoutd, --debug shows where")
    try:
        if done.news or not quiet:
            for warning in done.warnings:
                say(f"warning: {warning}")
            click.echo(done.verdict.line())
    except OSError:  # nobody hears it, or a disk is full: the exit code is true all the same
        unheard()
    raise click.exceptions.Exit(done.verdict.code)


def _done(settings: Settings, mail: bool, down_only: bool, restart: tuple[str, ...], timeout: float) -> Done:
    """Raises FanoutdError, OSError."""
    try:
        config = settings.load()
    except BadConfig as e:
        return _on_what_it_has_read(settings, e, timeout)
    return act(config.daemon, Wish(mail, restart, timeout, config.workers.graceful_timeout, down_only), _post(config))


def _on_what_it_has_read(settings: Settings, why: BadConfig, timeout: float) -> Done:
    """A file that is being edited, or whose secrets are not for this user: the daemon is looked at all the same.
    Nothing is mailed or started by it, and one that died cannot be started either."""
    try:
        known = settings.for_clients()
    except BadConfig:
        return _cannot_tell(str(why), news=False)
    done = act(known.daemon, Wish(False, (), timeout, known.workers.graceful_timeout), None)
    if done.verdict.code != DOWN:
        return replace(done, warnings=(goes_on(why),))
    if not known.daemon.pidfile.exists():  # as where it is installed and not set up yet: cron need not hear of that
        return _cannot_tell(str(why), news=False)
    return Done(replace(done.verdict, words=f"{done.verdict.words}; and it cannot start: {why}"), news=True)


def _cannot_tell(words: str, news: bool = True) -> Done:
    return Done(Verdict(UNKNOWN, words), news)


def _post(config: Config) -> Post | None:
    """None without ``[mail]``."""
    mail = config.mail
    if mail is None:
        return None
    return lambda event, node: post.post(config, mail, node or post.node_of(config.daemon.state_dir), event, _SMTP)


def _never_for_ever(seconds: int) -> None:
    """A disk that hangs must not have cron start one after the other."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.write(1, f"{_cannot_tell(f'nothing is known after {seconds} s').verdict.line()}\n".encode())
        os._exit(UNKNOWN)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
