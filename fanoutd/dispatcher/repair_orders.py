"""Which campaigns this node repairs: those that its operator orders, and its part in those ordered on other nodes.

``repair`` reads the journals and mends the store.
"""

from __future__ import annotations

from collections.abc import Callable

from fanoutd import identity
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.queries import RpcError, known
from fanoutd.dispatcher.repair import repair
from fanoutd.errors import FanoutdError
from fanoutd.store import Database, nodes, plan_owners, repairs
from fanoutd.store.campaigns import DISTRUSTED, Campaign
from fanoutd.store.history import OURSELVES, By
from fanoutd.times import wall_ms

#: For how long settled journals are kept, in seconds: as long as a backup of the store may be old and repaired.
JOURNALS_KEPT = 172_800.0


class RepairOrders:
    """At the desk, where recovery runs too. ``connect`` gives the calling thread's connection."""

    def __init__(self, home: Home, planner: Planner, connect: Callable[[], Database]) -> None:
        self._home, self._planner, self._connect = home, planner, connect

    def carry_out(self, campaign: Campaign, by: By = OURSELVES) -> str:
        """The operator's order; the campaign's state after it. Raises RpcError, StoreAway."""
        db = self._connect()
        if campaign.state not in ("paused", "cancelled") or campaign.cause not in DISTRUSTED:
            words = f"campaign {campaign.id} needs no repair; it is {campaign.state}"
            raise RpcError(-32003, words, "campaign")
        if not campaign.definition:
            words = f"campaign {campaign.id} asks for what is not configured; put it back, reload, and repair it then"
            raise RpcError(-32003, words, "campaign")
        if not campaign.planned and campaign.state == "paused":
            self._plan(db, campaign)
        repair(db, self._home.journals, self._home.node, campaign, self._may_have_sent(db), by)
        return known(db, campaign.id).state

    def take_part(self, db: Database) -> None:
        """In what was ordered on another node; it cannot read our journals. Raises RpcError, StoreAway."""
        for each in repairs.in_repair(db):
            heard = repairs.heard(db, each.id)
            if heard and self._home.node not in heard.nodes and each.cause in DISTRUSTED:
                self.carry_out(each)

    def _may_have_sent(self, db: Database) -> set[str]:
        """Nodes that may have journals of what an earlier store does not know."""
        if not db.shared:
            return set()
        return nodes.heard_of(db, int(JOURNALS_KEPT * 1000)) - {identity.of(self._home.state_dir).was or ""}

    def _plan(self, db: Database, campaign: Campaign) -> None:
        """Who is in it must be known before the journals can say who was sent to."""
        if campaign.send_at is not None and campaign.send_at > wall_ms():
            return  # nobody can have been sent to
        with db.transaction():
            plan_owners.take_in_hand(db, campaign.id, self._home.node)
        try:
            self._planner.complete(db, self._planner.begin(db, campaign), ("paused",))
        except FanoutdError as e:
            raise RpcError(-32005, f"campaign {campaign.id} cannot be planned to its end: {e}", "campaign") from None
