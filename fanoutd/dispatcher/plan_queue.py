"""Campaigns on their way to a plan: out of the spool, to the time that they are for, through the check, to a planner.

``planner`` makes the plan. Here stands what waits for one, and on which thread it is made.
"""

from __future__ import annotations

from fanoutd.dispatcher import forecast, recurring
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.templates import Templates
from fanoutd.dispatcher.threads import Threads
from fanoutd.store import campaigns
from fanoutd.store.campaigns import Campaign
from fanoutd.times import wall_ms


class PlanQueue:
    """Lost with the process: the sweep of the next dispatcher finds in the store and the spool what was in it."""

    def __init__(self, home: Home, threads: Threads, planner: Planner, templates: Templates, limits: Limits) -> None:
        self._home, self._threads = home, threads
        self._planner, self._templates, self._limits = planner, templates, limits
        self._in_hand: set[str] = set()
        self._later: dict[str, int] = {}  # when campaigns are due, in milliseconds since 1970

    def take_in(self, campaign: str) -> None:
        """From the spool, at the desk. Raises StoreAway."""
        found = self._home.bring_in(self._threads.db(), campaign)
        if found:
            self.plan_own(found)

    def submit_recurring(self) -> None:
        """The campaigns of this moment. Raises StoreAway."""
        home = self._home
        for campaign in recurring.submit_due(self._threads.db(), home.spool, home.config, home.node, wall_ms()):
            self._threads.desk.submit(self.take_in, campaign)

    def look_at(self, campaign: str) -> None:
        """It may be due, or was let go on: plan what is not planned of it. Soon, at the desk."""
        self._threads.desk.submit(self._look_at, campaign)

    def plan_own(self, campaign: Campaign) -> None:
        """Have it planned if it is this node's to plan, and is not planned. Another node's plan is not ours."""
        unplanned = not campaign.planned and campaign.state in ("planning", "scheduled", "running")
        if unplanned and campaign.node == self._home.node:
            self.add(campaign)

    def add(self, campaign: Campaign) -> None:
        """Have it planned when it is due, and checked before. One that is in hand already is not planned twice."""
        if campaign.state == "scheduled" and (campaign.send_at or 0) > wall_ms():
            self._later[campaign.id] = campaign.send_at or 0
        elif campaign.id not in self._in_hand:
            self._in_hand.add(campaign.id)
            self._threads.checks.submit(self._check, campaign)

    def until_due(self) -> float | None:
        """Seconds until the next scheduled campaign is due; None when there is none."""
        due = min(list(self._later.values()), default=None)
        return None if due is None else max(0.0, (due - wall_ms()) / 1000)

    def look_at_due(self) -> None:
        """Take up what is due by now."""
        at = wall_ms()
        for campaign in [each for each, due in list(self._later.items()) if due <= at]:
            del self._later[campaign]
            self.look_at(campaign)

    def _look_at(self, campaign: str) -> None:
        found = campaigns.get(self._threads.db(), campaign)
        if found:
            self.plan_own(found)

    def _check(self, campaign: Campaign) -> None:
        """Nobody is planned who would be sent what does not fit its template."""
        objected = True
        try:
            objected = campaign.state != "running" and self._templates.stop(self._threads.db(), campaign)
        finally:
            if objected:
                self._in_hand.discard(campaign.id)
        if not objected:
            plans = self._threads.plans if campaign.origin == "query" else self._threads.lists
            plans.submit(self._plan, campaign)

    def _plan(self, campaign: Campaign) -> None:
        self._threads.jobs.submit_with_db(self._limits.begins, campaign.account)
        try:
            db = self._threads.db()
            room = forecast.room(db, campaign)
            self._planner.plan(db, campaign)
            forecast.warn(db, campaign.id, room)
        finally:
            self._in_hand.discard(campaign.id)
