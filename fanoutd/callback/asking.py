"""A person's 0 or 1, asked at once: the answer goes back in the very answer to WeChat."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanoutd.client import BadRequest, Client, ClientError
from fanoutd.master.loglimit import LogLimit
from fanoutd.master.rpc import INTERNAL_ERROR

_log = logging.getLogger(__name__)

#: Seconds that the daemon has: WeChat waits five in all.
PATIENCE = 2.0
#: Seconds in which a daemon that did not answer is not asked again, so that it does not hold up the web server.
_REST = 5.0


class NotNow(Exception):
    """No answer in time: tell it later, without one."""


class Asker:
    """Used by several threads; each question has a connection of its own."""

    def __init__(self, socket: str | Path) -> None:
        self._socket = socket
        self._rests_until = float("-inf")
        self._refused = LogLimit(_log, 5, 60.0, "the daemon refused %d more replies")

    def ask(self, params: Mapping[str, Any]) -> str | None:
        """The text for the person, None when there is none. Raises NotNow after two seconds at most."""
        if time.monotonic() < self._rests_until:
            raise NotNow
        try:
            with Client(self._socket, timeout=PATIENCE) as client:
                reply = client.call("subscriber.reply", **params)["reply"]
        except BadRequest as e:
            if e.code == INTERNAL_ERROR:
                raise NotNow from None
            self._refused.warning("the daemon refused a reply: %s (%d)", e, e.code)
            return None
        except ClientError:  # not now, or not by this user yet
            raise NotNow from None
        except (OSError, KeyError, TypeError):
            self._rests_until = time.monotonic() + _REST
            raise NotNow from None
        return reply if isinstance(reply, str) and reply.strip() else None
