"""Planning: the audience becomes shards, and the first are sent while the last page is read."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain

from fanoutd import failpoint
from fanoutd.config import Config
from fanoutd.dispatcher.audience import AudienceAway, NotConfigured, Unsupplied, excluded, stream
from fanoutd.figures import Count, uncounted
from fanoutd.outcome import RENDER, Ended, State
from fanoutd.spool import Spool
from fanoutd.store import (
    Database,
    again_if_busy,
    campaigns,
    counters,
    finishing,
    history,
    plan_owners,
    shards,
    subscribers,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

SMALLEST, LARGEST = 50, 2000


def shard_size(planned: int) -> int:
    """People in the next shard: small at first, so that a small campaign keeps every worker busy."""
    return min(LARGEST, max(SMALLEST, planned // 16))


class _Stopped(Exception):
    """The campaign was paused or cancelled meanwhile, or another node has its plan."""


class Planner:
    """``released(shards)`` is called when people may be sent to, ``count`` with whom nobody will send to.

    A plan is one node's. A planner that stood still while another node took its plan over finds that out in each of
    its transactions, by the campaign's row, and adds nobody; no two can have made the same shard in any case.
    """

    def __init__(
        self, config: Config, spool: Spool, node: str, released: Callable[[int], None], count: Count = uncounted
    ) -> None:
        self._config, self._spool, self._node, self._released = config, spool, node, released
        self._count = count

    def plan(self, db: Database, campaign: Campaign) -> None:
        """Plan what is not planned yet. May be cut off anywhere and called again."""
        try:
            self._plan(db, campaign)
        except _Stopped:
            log.info("campaign %s is planned no further here: it was paused, cancelled or taken over", campaign.id)

    def _plan(self, db: Database, campaign: Campaign) -> None:
        campaign = self.begin(db, campaign)
        try:
            self.complete(db, campaign, ("planning", "running"))
        except NotConfigured as e:
            log.error("campaign %s is paused: %s", campaign.id, e)
            with db.transaction():
                state = self._own(db, campaign.id, "planning", "running")
                campaigns.move(db, campaign.id, state, "paused", cause="config", reason=str(e))
        except AudienceAway as e:
            log.warning("campaign %s waits for its audience: %s", campaign.id, e)
            self._wait(db, campaign, str(e))
        except Unsupplied as e:
            with db.transaction():
                self._own(db, campaign.id, "planning", "running")
                campaigns.move(db, campaign.id, "planning", "failed", reason=str(e), finished_at=wall_ms())
            self._spool.remove(campaign.id)

    def begin(self, db: Database, campaign: Campaign) -> Campaign:
        """``now`` of the campaign is fixed here, once, whichever node begins. Raises _Stopped."""
        with db.transaction():
            state = self._own(db, campaign.id, campaign.state, "planning", "running")
            db.execute(
                "UPDATE fanout_campaign SET started_at = COALESCE(started_at, %s) WHERE id = %s",
                wall_ms(), campaign.id,
            )  # fmt: skip
            plan_owners.node_is_there(db, campaign.id)
            if state == "scheduled":
                campaigns.move(db, campaign.id, "scheduled", "planning")
        found = campaigns.get(db, campaign.id)
        if found is None:
            raise _Stopped
        return replace(campaign, started_at=found.started_at)

    def _own(self, db: Database, campaign: str, *states: str, lock: str | None = None) -> str:
        """The campaign's state, one of these, which it keeps until the transaction ends, as its plan stays ours.
        Raises _Stopped."""
        state = plan_owners.still_of(db, campaign, self._node, db.LOCK if lock is None else lock)
        if state not in states:
            raise _Stopped
        return state

    def complete(self, db: Database, campaign: Campaign, states: tuple[str, ...]) -> None:
        """Plan while the campaign is in one of these states. Raises _Stopped, and as ``stream`` does."""
        known = [row[0] for row in db.rows("SELECT idx FROM fanout_shard WHERE campaign = %s", campaign.id)]
        index = max(known, default=-1) + 1
        others = excluded(campaign, self._config)
        already = chain(_already(db, campaign), others) if known else others
        new = unseen(stream(campaign, self._config, self._spool), already)
        planned = 0
        while people := take(new, shard_size(planned)):
            planned += len(people)
            again_if_busy(partial(self._release, db, campaign, index, people, states))
            self._released(1)
            failpoint.reach("mid_plan")
            index += 1
        failpoint.reach("after_plan")
        with db.transaction():
            self._own(db, campaign.id, *states)
            db.execute("UPDATE fanout_campaign SET planned = 1 WHERE id = %s", campaign.id)
            campaigns.move(db, campaign.id, "planning", "running", reason=None)
            plan_owners.explain_plan(db, campaign.id, None)
            history.note(db, campaign.id, "planned", detail=history.people(counters.counts(db, campaign.id).total))
        with db.transaction():
            finishing.finish(db, campaign.id)
        self._spool.remove(campaign.id)

    def _release(
        self, db: Database, campaign: Campaign, index: int, people: list[Planned], states: tuple[str, ...]
    ) -> None:
        with db.transaction():
            self._own(db, campaign.id, *states, lock="")
            people = heeded(db, campaign, people)
            shards.add(db, campaign.id, index, people)
            # Its row is held no longer than it must be, and shared: workers who claim want it too.
            if self._own(db, campaign.id, *states, lock=db.LOCK_SHARED) == "planning":
                campaigns.move(db, campaign.id, "planning", "running", reason=None)
        self._count(campaign.account, _ended(people))

    def _wait(self, db: Database, campaign: Campaign, reason: str) -> None:
        with db.transaction():
            self._own(db, campaign.id, "planning", "running")
            plan_owners.explain_plan(db, campaign.id, reason)


def _already(db: Database, campaign: Campaign) -> Iterator[str]:
    """The openids that an earlier, unfinished plan has put into shards."""
    for (shard,) in db.rows("SELECT id FROM fanout_shard WHERE campaign = %s", campaign.id):
        for (openid,) in db.rows("SELECT openid FROM fanout_delivery WHERE shard = %s", shard):
            yield openid


def unseen(people: Iterable[Planned], already: Iterable[str]) -> Iterator[Planned]:
    """Each openid once. Those seen are kept in a scratch table on disk, so that memory stays flat."""
    scratch = sqlite3.connect("", isolation_level=None)  # private, spills to disk, gone when closed
    try:
        scratch.execute("PRAGMA journal_mode = OFF")
        scratch.execute("CREATE TABLE seen (openid TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID")
        scratch.execute("BEGIN")
        add = "INSERT OR IGNORE INTO seen VALUES (?)"
        scratch.executemany(add, ((openid,) for openid in already))
        for person in people:
            if scratch.execute(add, (person.openid,)).rowcount == 1:
                yield person
    finally:
        scratch.close()


def heeded(db: Database, campaign: Campaign, people: list[Planned]) -> list[Planned]:
    """The same, those who take no messages marked. A test asks nobody's leave."""
    known = {} if campaign.definition.get("test") else subscribers.notable(
        db, campaign.account, [each.openid for each in people]
    )
    if not known:
        return people
    now = db.now_ms()
    barred = {openid for openid, standing in known.items() if not standing.takes(now)}
    return [replace(each, skipped=True) if each.openid in barred else each for each in people]


def _ended(people: list[Planned]) -> Ended:
    """Those to whom nobody will send."""
    states = Counter(each.state for each in people)
    return Counter({
        (state, None, RENDER if state is State.FAILED else None): states[state]
        for state in (State.FAILED, State.SKIPPED) if states[state]
    })  # fmt: skip


def take(people: Iterator[Planned], size: int) -> list[Planned]:
    return [person for _, person in zip(range(size), people, strict=False)]
