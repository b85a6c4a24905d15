"""The scheduled jobs, by the name that the clock gives them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fanoutd.dispatcher.chores import Chores
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.errands import Errands
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.plan_queue import PlanQueue
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.repair_orders import JOURNALS_KEPT
from fanoutd.dispatcher.retention import Retention
from fanoutd.dispatcher.threads import Pool, Threads
from fanoutd.dispatcher.trust import Trust
from fanoutd.journal import expire
from fanoutd.store import StoreAway, again_if_busy, campaigns, retention, rounds
from fanoutd.store.campaigns import DISTRUSTED

log = logging.getLogger(__name__)

#: Jobs that one node does for all; the others are done everywhere.
_ONCE_FOR_ALL = ("token_check", "quota_check", "errands", "recurring", "digest", "retention", "sync")
_HEALTH = "health_check"
_NOT_THE_LEADER = "not the leader"
#: Those that may take minutes.
_LONG = ("digest", "retention", "sync")
#: Seconds for the first beat, after which it is known who leads.
_FIRST_BEAT = 3.0


class Jobs:
    """``say`` speaks to the master. ``sweep`` is done at the desk; ``look`` is health's."""

    def __init__(
        self, home: Home, say: Callable[[dict[str, Any]], None], threads: Threads, trust: Trust, cluster: Cluster,
        refresher: Refresher, limits: Limits, errands: Errands, plan_queue: PlanQueue, sweep: Callable[[], None],
        look: Callable[[], None], chores: Chores, old: Retention,
    ) -> None:  # fmt: skip
        self._home, self._say, self._threads, self._trust, self._cluster = home, say, threads, trust, cluster
        self._refresher = refresher
        self._chores, self._submit_recurring = chores, plan_queue.submit_recurring
        self._table: Mapping[str, Callable[[], str | None]] = {
            "token_check": self._check_tokens,
            "rescue_sweep": lambda: threads.desk.submit(sweep).result(),
            "spool_sweep": self._sweep_spool,
            "quota_check": lambda: limits.check(threads.db()),
            "errands": lambda: errands.work(threads.db()),
            "recurring": self._come_again,
            "digest": lambda: chores.do("digest"),
            "sync": lambda: chores.do("sync"),
            "retention": old.work,
            _HEALTH: look,
        }

    def pool(self, message: dict[str, Any]) -> Pool:
        """Where a ``job`` of the master is done."""
        if message["name"] == _HEALTH:
            return self._threads.health
        return self._threads.upkeep if message["name"] in _LONG else self._threads.jobs

    def look_for_missed(self) -> None:
        """What a crontab planned while nobody was there to do it."""
        self._trust.wait()
        if self._cluster.knows(_FIRST_BEAT) and self._cluster.leads:
            self._chores.look()

    def do(self, message: dict[str, Any]) -> None:
        """A ``job`` of the master, whom its end is told, and what went wrong."""
        error = said = None
        try:
            if message["name"] != _HEALTH:  # which tells of a store that is not there yet
                self._trust.wait()
            if message["name"] in _ONCE_FOR_ALL and not (self._cluster.knows(_FIRST_BEAT) and self._cluster.leads):
                said = _NOT_THE_LEADER
            else:
                said = again_if_busy(self._table[message["name"]])
        except RpcError as e:
            error = e.message
        except StoreAway as e:
            error = str(e)
        except Exception as e:
            log.exception("job %s failed", message["name"])
            error = type(e).__name__
        self._say({"t": "job", "n": message["n"], "error": error, "said": said})

    def _check_tokens(self) -> None:
        for account in self._home.config.accounts:
            self._refresher.check(self._threads.db(), account)

    def _come_again(self) -> None:
        self._submit_recurring()
        self._chores.look()

    def _sweep_spool(self) -> None:
        spool, db = self._home.spool, self._threads.db()
        spool.expire_keys(self._home.config.schedule.retention, lambda ids: retention.standing(db, ids))
        spool.uploads.expire()
        rounds.tidy(db)
        if not any(each.cause in DISTRUSTED for each in campaigns.in_states(db, "paused")):
            expire(self._home.journals, JOURNALS_KEPT)
