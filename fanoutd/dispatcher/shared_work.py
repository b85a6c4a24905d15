"""One campaign worked on by all nodes: what this node learns of it from the store, and what it tells its workers.

Once a second, in the beat of the cluster: shards that wait wake idle workers, whichever node planned them; a campaign
that somebody stopped elsewhere is stopped here, one that somebody let go on goes on. And in the dispatcher's sweep: a
plan that a dead node left is another's. On a store of one machine nothing of this happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fanoutd.dispatcher.importer import has_list
from fanoutd.spool import Spool
from fanoutd.store import Database, activity, nodes, plan_owners, shard_leases
from fanoutd.store.activity import Active
from fanoutd.store.campaigns import Campaign
from fanoutd.worker.tallies import forget

log = logging.getLogger(__name__)

#: For how long an answer waits for other nodes to stop, in seconds, and how often it looks.
OBEYED_WITHIN, _LOOK_EVERY = 3.0, 0.1

#: A node that was not heard of for so long, in milliseconds, has its plans taken over. Longer than the server keeps the
#: locks of a connection that says nothing (``store.mysql``), so that none of them is in the way.
LOST_AFTER_MS = 30_000

#: A beat waits so long for an order that is being carried out, in seconds; then the next one looks.
_PATIENCE = 0.2

#: Campaigns whose number of resumes is remembered.
_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class Means:
    """What the dispatcher lends: ``say`` speaks to the master, ``work`` tells it of so many shards, ``go_on`` has a
    campaign planned further if its plan is this node's, and ``ordering`` is held while an order is carried out."""

    say: Callable[[dict[str, Any]], None]
    work: Callable[[Database, int], None]
    go_on: Callable[[str], None]
    ordering: threading.Lock


class SharedWork:
    def __init__(self, node: str, state_dir: Path, spool: Spool, means: Means) -> None:
        self._node, self._state_dir, self._spool, self._means = node, state_dir, spool, means
        self._resumes: dict[str, int] = {}  # as this node last saw it
        self._halted: set[str] = set()
        self._numbers = count(-time.monotonic_ns(), -1)  # the master's own are positive

    def beat(self, db: Database) -> None:
        """Raises StoreAway."""
        if not self._means.ordering.acquire(timeout=_PATIENCE):
            return  # what is being ordered here may be what we would read half of
        try:
            found = activity.active(db)
            for each in found:
                self._see(each)
            for campaign in shard_leases.stopped(db, self._node):
                self._halted.add(campaign)
                self._means.say({"t": "halt", "n": next(self._numbers), "campaign": campaign})
        finally:
            self._means.ordering.release()
        waiting = sum(each.waiting for each in found if each.runs)
        if waiting:
            self._means.work(db, waiting)

    def ordered(self, db: Database, campaign: str) -> None:
        """This node's workers know already that it goes on. While ``ordering`` is held."""
        self._remember(campaign, activity.resumes(db, campaign))
        self._halted.discard(campaign)

    def until_obeyed(self, db: Database, campaign: str) -> None:
        """Wait until the workers of all living nodes have let go of it, but not for ever. Raises StoreAway."""
        end = time.monotonic() + OBEYED_WITHIN
        while others := self._holding(db, campaign):
            if time.monotonic() >= end:
                names = ", ".join(sorted(others))
                log.warning("campaign %s: %s may still have some of its requests on the wire", campaign, names)
                return
            time.sleep(_LOOK_EVERY)

    def inherit(self, db: Database, unplanned: Iterable[Campaign], leads: bool) -> Iterator[Campaign]:
        """Those of the unplanned campaigns of dead nodes that are this node's from now on. Raises StoreAway.

        A list lies in its node's spool: who was given the same one under the same key goes on with it, else the
        campaign waits, and says for which node.
        """
        living = {each.node for each in nodes.living(db, LOST_AFTER_MS)}
        for each in unplanned:
            if each.node in living or each.node == self._node:
                if each.cause == "node" and leads:
                    with db.transaction():
                        plan_owners.node_is_there(db, each.id)
            elif self._has_list(each) if each.origin == "list" else leads:
                with db.transaction():
                    ours = plan_owners.inherit(db, each.id, self._node, each.node)
                if ours:
                    log.warning("node %s left campaign %s unplanned: it is planned here", each.node, each.id)
                    yield each
            elif leads and each.cause != "node":
                with db.transaction():
                    plan_owners.wait_for_node(db, each.id, each.node, _only_there(each.node))

    def _see(self, campaign: Active) -> None:
        """What was decided elsewhere: that it goes on."""
        known = self._resumes.get(campaign.id)
        changed = known is not None and known != campaign.resumes
        self._remember(campaign.id, campaign.resumes)
        if changed:
            forget(self._state_dir, campaign.id)
        # A dispatcher before us may have stopped it here.
        before_us = known is None and campaign.resumes > 0
        if changed or (campaign.runs and (campaign.id in self._halted or before_us)):
            self._halted.discard(campaign.id)
            self._means.say({"t": "unhalt", "campaign": campaign.id})
        if changed:
            self._means.go_on(campaign.id)

    def _remember(self, campaign: str, resumes: int) -> None:
        self._resumes[campaign] = resumes
        if len(self._resumes) > _KNOWN:
            del self._resumes[next(iter(self._resumes))]

    def _holding(self, db: Database, campaign: str) -> set[str]:
        """Other living nodes whose workers hold shards of it."""
        others = shard_leases.nodes_with(db, campaign) - {self._node}
        return others & {each.node for each in nodes.living(db)} if others else others

    def _has_list(self, campaign: Campaign) -> bool:
        document = self._spool.read(campaign.id)
        return document is not None and has_list(document)


def _only_there(node: str) -> str:
    return (
        f"its list of openids lies on node {node}, which is not there: start that node again; or cancel the campaign, "
        "and submit it again under another key"
    )
