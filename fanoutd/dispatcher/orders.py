"""What operators order about a campaign, carried out to its end: the store, the workers, and what goes on after it.

``commands`` and ``repair_orders`` make the changes in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fanoutd.dispatcher import commands
from fanoutd.dispatcher.announcer import Announcer
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.plan_queue import PlanQueue
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.questions import asked_for
from fanoutd.dispatcher.repair_orders import RepairOrders
from fanoutd.dispatcher.shared_work import SharedWork
from fanoutd.dispatcher.templates import Templates
from fanoutd.dispatcher.threads import Pool
from fanoutd.figures import Count
from fanoutd.store import Database, campaigns, history
from fanoutd.store.campaigns import Campaign
from fanoutd.store.history import By
from fanoutd.worker.tallies import forget

log = logging.getLogger(__name__)

#: After these nobody is sent to any more.
HALTS = ("campaign.pause", "campaign.cancel")
#: Those that are carried out one after the other: they change both the store and what workers are told.
ONE_BY_ONE = (*HALTS, "campaign.resume", "campaign.retry", "campaign.repair")


class Orders:
    """``say`` speaks to the master. Repairs are done at the ``desk``. ``count`` is told what operators settle."""

    def __init__(
        self, home: Home, say: Callable[[dict[str, Any]], None], announcer: Announcer, templates: Templates,
        plan_queue: PlanQueue, repairs: RepairOrders, desk: Pool, shared: SharedWork, count: Count,
    ) -> None:  # fmt: skip
        self._home, self._say, self._announcer, self._templates = home, say, announcer, templates
        self._plan_queue, self._repairs, self._desk, self._shared = plan_queue, repairs, desk, shared
        self._count = count

    def carry_out(self, db: Database, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """{campaign, state}, the state after it. Raises RpcError, StoreAway."""
        campaign = asked_for(db, self._home, params)
        by = history.peer(params.get("by"))
        word = method.partition(".")[2]
        try:
            state = self._carry_out(db, method, campaign, params, by)
        except RpcError as e:
            log.info("campaign %s: %s by %s refused: %s", campaign.id, word, by, e.message)
            raise
        log.info("campaign %s: %s by %s; it is %s", campaign.id, word, by, state)
        return {"campaign": campaign.id, "state": state}

    def _carry_out(self, db: Database, method: str, campaign: Campaign, params: dict[str, Any], by: By) -> str:
        if method == "campaign.pause":
            return commands.pause(db, campaign, by)
        if method == "campaign.cancel":
            return commands.cancel(db, campaign, by)
        if method == "campaign.resolve":
            return commands.settle(db, campaign, params["as"], params["openids"], self._count, by)
        self._say({"t": "unhalt", "campaign": campaign.id})  # before the store says that it runs
        forget(self._home.state_dir, campaign.id)
        # Its message may be configured again since it came in.
        campaign = self._home.bring_in(db, campaign.id) or campaign
        if method == "campaign.resume":
            self._templates.pass_over(campaign.id)
            state = commands.resume(db, campaign, by)
        elif method == "campaign.retry":
            state = commands.retry(db, campaign, params["failed"], params["unknown"], by)
        else:
            state = self._desk.result(self._repairs.carry_out, campaign, by)
        self._shared.ordered(db, campaign.id)
        self._go_on(db, campaign.id)
        return state

    def _go_on(self, db: Database, campaign: str) -> None:
        found = campaigns.get(db, campaign)
        if found:
            self._plan_queue.plan_own(found)
        self._announcer.announce(db)
