"""The followers of all accounts, read by WeChat's list when a crontab says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.threads import Threads
from fanoutd.store import Database

log = logging.getLogger(__name__)

Params = dict[str, Any]


class ScheduledSync:
    """``sync`` is what ``subscriber.sync`` does."""

    def __init__(self, config: Config, threads: Threads, sync: Callable[[Database, Params], Params]) -> None:
        self._config, self._threads, self._sync = config, threads, sync

    def work(self, _planned: int, _before: int) -> str:
        """Each account's, one after the other; in words how many. Raises RpcError when one could not be read.

        Audiences name no account: where one takes the subscribers it takes those of whichever account sends.
        """
        if not any(each.source == "subscribers" for each in self._config.audiences.values()):
            return 'no audience has source = "subscribers"'
        said, failed = [], False
        for account in self._config.accounts:
            try:
                count = self._threads.syncs.result(self._one, account)
                said.append(f"{account}: {count:,} followers" if len(self._config.accounts) > 1 else
                            f"{count:,} followers")  # fmt: skip
            except RpcError as e:
                log.warning("%s", e.message)
                said.append(e.message)
                failed = True
        if failed:
            raise RpcError(-32005, "; ".join(said))
        return "; ".join(said)

    def _one(self, account: str) -> int:
        return int(self._sync(self._threads.db(), {"account": account, "tag": None})["count"])
