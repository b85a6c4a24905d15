"""``send --spool``: the same submission into the same spool, checked as the daemon checks it, while it is away."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanoutd import times
from fanoutd.away import drop
from fanoutd.config import Config
from fanoutd.errors import BadInput, FanoutdError, NotPermitted, Unreachable
from fanoutd.master import privileges, submission
from fanoutd.master.rpc import RpcError
from fanoutd.spool import Spool
from fanoutd.uploads import UnknownUpload

#: Who submits; later we may be somebody else.
_CALLER = os.getuid()
#: A daemon that starts throws half files away: so many times that may hit ours.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """``campaign`` is its id now and when it is sent; ``duplicate``: the key was used before; ``where``: for people."""

    campaign: str
    duplicate: bool
    where: Path


def with_key(params: Mapping[str, Any]) -> dict[str, Any]:
    """A submission that may be made again: what was accepted although no answer came is not accepted twice."""
    return {**params, "key": drop.new_key() if params.get("key") is None else params["key"]}


def keep(config: Config, params: Mapping[str, Any]) -> Kept:
    """Put it where the daemon takes it from when it is back. On return it is on disk. The params have a key.

    Root becomes the daemon's user for it, for good. Raises BadInput for what the daemon would refuse, NotPermitted,
    FanoutdError when the disk does not take it.
    """
    try:
        document = submission.document(params, config, now_ms=times.local_ms(), uid=_CALLER, pid=os.getpid())
    except RpcError as e:
        raise BadInput(e.message) from None
    spool = config.daemon.state_dir / "spool"
    try:
        _become_owner(spool)
        if os.access(spool / "new", os.W_OK | os.X_OK):
            return _spooled(spool, document)
        return _left(config, params, document["campaign"])
    except UnknownUpload as e:
        raise BadInput(str(e)) from None
    except OSError as e:
        raise FanoutdError(f"not kept: {e.filename or spool}: {e.strerror}") from None


def adding(config: Config) -> Callable[[str | None, list[str]], str]:
    """Adds people to an upload as the daemon would, for a list longer than a line. It raises Unreachable."""
    folder = config.daemon.state_dir / "spool"

    def add(upload: str | None, openids: list[str]) -> str:
        try:
            _become_owner(folder)
            return Spool(folder).uploads.add(upload, openids)[0]
        except (OSError, FanoutdError) as e:
            words = f"{folder}: {e.strerror}" if isinstance(e, OSError) else str(e)
            raise Unreachable(f"no daemon, and a list this long is not kept without one: {words}") from None

    return add


def _become_owner(spool: Path) -> None:
    """What root wrote there, the daemon could not read, and root never writes where another may put links."""
    if os.geteuid() != 0:
        return
    try:
        owner = spool.stat().st_uid
    except FileNotFoundError:
        raise FanoutdError(f"not kept: there is no {spool} yet; start the daemon once, which makes it") from None
    if owner:
        try:
            user = pwd.getpwuid(owner)
        except KeyError:
            raise NotPermitted(f"not kept: {spool} is uid {owner}'s, who is no user here") from None
        privileges.become(user, None)


def _spooled(folder: Path, document: dict[str, Any]) -> Kept:
    spool, campaign = Spool(folder), document["campaign"]
    for last in range(_TRIES - 1, -1, -1):
        if spool.knows(campaign):
            return Kept(campaign, True, folder)
        try:
            _accept(spool, document)
            break
        except FileNotFoundError:
            if not last:
                raise
    return Kept(campaign, False, folder)


def _accept(spool: Spool, document: dict[str, Any]) -> None:
    """As the master does. A daemon that starts meanwhile takes a list that has no document yet for a dead one's."""
    upload = document["upload"]
    if upload is None:
        spool.accept(document, keyed=True)
        return
    spool.uploads.bind(upload, document["campaign"])
    spool.accept(document, keyed=True)
    spool.uploads.bind(upload, document["campaign"])
    spool.uploads.drop(upload)


def _left(config: Config, params: Mapping[str, Any], campaign: str) -> Kept:
    folder = config.daemon.drop
    try:
        drop.leave(folder, params)
    except (PermissionError, FileNotFoundError) as e:
        raise NotPermitted(
            f"not kept: {config.daemon.state_dir} is the daemon's alone, and {folder}: {e.strerror}; do it as its user "
            "or as root, or give [daemon] drop a folder for you"
        ) from None
    return Kept(campaign, False, folder)
