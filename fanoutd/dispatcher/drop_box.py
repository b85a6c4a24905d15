"""From the drop folder into the spool: what clients left while the daemon could not be reached."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fanoutd import times
from fanoutd.away.drop import Drop, Left, NotTaken
from fanoutd.config import Config
from fanoutd.errors import FanoutdError
from fanoutd.master import rpc, submission
from fanoutd.master.intake import allowed_uids
from fanoutd.master.rpc import INVALID_PARAMS, RpcError
from fanoutd.spool import Spool, accept
from fanoutd.uploads import UnknownUpload

_log = logging.getLogger(__name__)

#: Of one look, at most: whoever else waits for the spool has a turn too.
_AT_ONCE = 200


class DropBox:
    """``refused`` is told of each that is not taken: ``{at, pid, uid, error}``, whose client is long gone."""

    def __init__(self, config: Config, spool: Spool, refused: Callable[[dict[str, Any]], None]) -> None:
        self._config, self._spool, self._refused = config, spool, refused
        self._drop = Drop(config.daemon.drop, config.daemon.max_request)
        self._trouble: str | None = None
        #: What cannot be taken away, and was told of: it must not keep the others waiting, nor be told of again.
        self._stuck: set[str] = set()

    def empty(self) -> None:
        """Take up what is there, each once. What the disk does not take now stays for the next time. Never raises."""
        try:
            uids = allowed_uids(self._config.daemon)
            waiting = self._drop.waiting()
            self._stuck.intersection_update(waiting)
            for name in [each for each in waiting if each not in self._stuck][:_AT_ONCE]:
                self._take(name, uids)
            self._trouble = None
        except (OSError, FanoutdError) as e:
            if str(e) != self._trouble:  # not every few seconds
                self._trouble = str(e)
                _log.error("what was left in %s cannot be taken now: %s", self._drop.folder, e)

    def _take(self, name: str, uids: frozenset[int]) -> None:
        """A death before the file is removed has it taken again, which its key makes harmless."""
        try:
            left = self._drop.read(name)
            if left is not None:
                self._look_at(name, left, uids)
        except NotTaken as e:
            self._refuse(name, e.uid, 0, str(e), b"")
            if e.mendable:
                self._stuck.add(name)
                return
        try:
            self._drop.remove(name)
        except OSError as e:
            self._stuck.add(name)
            _log.error("%s cannot be taken away: %s", self._drop.folder / name, e.strerror)

    def _look_at(self, name: str, left: Left, uids: frozenset[int]) -> None:
        if left.uid not in uids:
            raise NotTaken(f"uid {left.uid} may not submit; see allow_users", left.uid)
        pid = 0
        try:
            pid, params = _asked(left.data)
            self._accept(left.uid, pid, params)
        except RpcError as e:
            self._refuse(name, left.uid, pid, e.message, left.data)
        except UnknownUpload as e:
            self._refuse(name, left.uid, pid, str(e), left.data)
        except OSError:
            raise
        except Exception as e:  # one that we stumble over must not keep the others waiting
            _log.exception("what was left as %s failed", name)
            self._refuse(name, left.uid, pid, f"{type(e).__name__}; this is a mistake in fanoutd", left.data)

    def _accept(self, uid: int, pid: int, params: submission.Params) -> None:
        """The spool has it, or had it, when this returns. Raises RpcError, UnknownUpload, OSError."""
        campaign = submission.keyed_id(params, self._config)
        if campaign is None:
            raise RpcError(INVALID_PARAMS, "key is missing: it might have been taken already", "key")
        if not self._spool.knows(campaign):
            document = submission.document(params, self._config, now_ms=times.local_ms(), uid=uid, pid=pid)
            accept(self._spool, document, keyed=True)

    def _refuse(self, name: str, uid: int, pid: int, words: str, data: bytes) -> None:
        """As one whose client has hung up; what it was is kept for people to look at."""
        kept = self._spool.path / "bad" / f"drop-{name}"
        if data:
            _write(kept, data)
            words = f"{words}; it is kept as {kept}"
        _log.error("what uid %d left in %s is not taken: %s", uid, self._drop.folder, words)
        self._refused({"at": times.wall_ms(), "pid": pid, "uid": uid, "error": words})


def _asked(data: bytes) -> tuple[int, submission.Params]:
    """(the pid that left it, 0 if it did not say; the params). Raises RpcError."""
    asked = rpc.parse(data)
    if isinstance(asked, rpc.Bad):
        raise asked.error
    if isinstance(asked, rpc.Bare):
        return 0, submission.from_bare(asked.params)
    if isinstance(asked, rpc.Batch) or asked.method != "campaign.submit" or asked.params.get("dry_run"):
        raise RpcError(rpc.INVALID_REQUEST, "only campaign.submit can be left here, one a file")
    pid = asked.id
    return pid if isinstance(pid, int) and 0 < pid < 1 << 31 else 0, asked.params


def _write(file: Path, data: bytes) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.write(data)
