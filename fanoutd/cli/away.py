"""``fanoutd send`` without a daemon: ``--spool`` keeps the submission, ``--alert`` mails."""

from __future__ import annotations

from typing import Any, NoReturn

from fanoutd.away import keep, post
from fanoutd.away.alert import PATIENCE, alert
from fanoutd.cli.common import say
from fanoutd.config import Config
from fanoutd.errors import BadInput, FanoutdError, NotPermitted, Unreachable


def kept(config: Config, params: dict[str, Any], why: Unreachable, told: bool) -> dict[str, Any]:
    """The answer that the daemon would give, and ``spooled``. ``told``: somebody wants a mail even without [mail].

    Raises FanoutdError when it is not kept either.
    """
    try:
        found = keep.keep(config, params)
    except BadInput:
        raise  # the daemon would refuse it too
    except FanoutdError as e:
        _mail(config, f"{why}; {e}", False, told)
        if isinstance(e, NotPermitted):
            raise
        raise Unreachable(f"{why}; {e}") from None
    _mail(config, str(why), True, told)
    say(f"{why}. The submission is kept in {found.where}, and goes out when the daemon is back")
    return {"campaign": found.campaign, "duplicate": found.duplicate, "spooled": True}


def lost(config: Config, why: Unreachable, told: bool) -> NoReturn:
    """Mail that nothing is kept, if somebody wants that, and raise ``why``."""
    if told:
        _mail(config, str(why), False, told)
    raise why


def _mail(config: Config, why: str, safe: bool, told: bool) -> None:
    """A mail that cannot be sent changes nothing about what is kept."""
    mail = config.mail
    if mail is None:
        if told:
            say("warning: nothing is mailed: there is no [mail] in the configuration")
        return
    state_dir = config.daemon.state_dir
    try:
        alert(state_dir, why, safe, lambda event: post.post(config, mail, post.node_of(state_dir), event, PATIENCE))
    except (OSError, FanoutdError) as e:
        say(f"warning: {' '.join(str(e).split())}")
