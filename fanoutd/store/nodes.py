"""The nodes of a shared store: who they are, and when each was last heard of, by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.errors import FanoutdError
from fanoutd.store.database import Database

#: A node that was heard of so lately is at work, as far as anybody can tell; milliseconds.
LIVING_MS = 15_000

#: One that died is shown for so long, in milliseconds: somebody should see that it did.
SHOWN_MS = 600_000


class NameTaken(FanoutdError):
    """The name is another machine's: leases under it would be shared."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Node:
    """``age_ms``: how long ago it was heard of, by the database's clock; ``joined_at`` is the database's too."""

    node: str
    version: str
    workers: int
    joined_at: int
    age_ms: int


def join(db: Database, node: str, secret: str, boot: str, version: str) -> None:
    """Be one of the store's nodes from here on; inside a transaction. Raises NameTaken.

    ``boot`` is the kernel's id of the boot that we are in: of two machines that were started from one disk's image,
    which have the secret too, the second is kept out.
    """
    row = db.one(
        f"SELECT secret, boot, gone, {db.NOW_MS} - heartbeat FROM fanout_node WHERE node = %s{db.LOCK}", node
    )
    if row is None:  # of two that come at once one is undone, and finds the other's row when it is repeated
        db.execute(
            f"INSERT INTO fanout_node (node, secret, boot, version, joined_at, heartbeat) "
            f"VALUES (%s, %s, %s, %s, {db.NOW_MS}, {db.NOW_MS})",
            node, secret, boot, version,
        )  # fmt: skip
        return
    if row[0] != secret:
        raise NameTaken(f"node {node!r} of the store {db.place} has another secret")
    if row[1] != boot and not row[2] and row[3] < LIVING_MS:
        raise NameTaken(
            f"node {node!r} of the store {db.place} was heard of {max(0, row[3]) // 1000} s ago from another machine, "
            f"or before this one was booted: whether it still runs shows in {LIVING_MS // 1000} s"
        )
    db.execute(
        f"UPDATE fanout_node SET boot = %s, version = %s, joined_at = {db.NOW_MS}, heartbeat = {db.NOW_MS}, gone = 0 "
        "WHERE node = %s",
        boot, version, node,
    )  # fmt: skip


def beat(db: Database, node: str, secret: str, boot: str, workers: int) -> bool:
    """Be heard of; False when the store does not know the node, or knows another one by its name. One statement, in no
    transaction."""
    return db.execute(
        f"UPDATE fanout_node SET heartbeat = {db.NOW_MS}, workers = %s, gone = 0 "
        "WHERE node = %s AND secret = %s AND boot = %s",
        workers, node, secret, boot,
    ) == 1  # fmt: skip


def leave(db: Database, node: str, secret: str) -> None:
    """It stopped in order: nobody waits for it. One statement."""
    db.execute("UPDATE fanout_node SET gone = 1 WHERE node = %s AND secret = %s", node, secret)


def heard_of(db: Database, within_ms: int) -> set[str]:
    """The names of those that were at work so lately, whether they are still there or not."""
    rows = db.rows(f"SELECT node FROM fanout_node WHERE heartbeat > {db.NOW_MS} - %s", within_ms)
    return {row[0] for row in rows}


def living(db: Database, within_ms: int = LIVING_MS) -> list[Node]:
    """Those that were heard of so lately and did not leave, by name."""
    rows = db.rows(
        f"SELECT node, version, workers, joined_at, {db.NOW_MS} - heartbeat FROM fanout_node "
        f"WHERE gone = 0 AND heartbeat > {db.NOW_MS} - %s ORDER BY node",
        within_ms,
    )  # fmt: skip
    return [Node(node, version, workers, joined_at, max(0, age)) for node, version, workers, joined_at, age in rows]


def away(db: Database, since: int) -> list[str]:
    """Nodes that are not heard of and did not leave in order, and that were there at ``since`` (the database's clock)
    or after it, by name."""
    rows = db.rows(
        f"SELECT node FROM fanout_node WHERE gone = 0 AND heartbeat >= %s AND heartbeat <= {db.NOW_MS} - %s "
        "ORDER BY node",
        since, LIVING_MS,
    )  # fmt: skip
    return [row[0] for row in rows]
