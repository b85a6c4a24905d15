"""Three daemons on one MariaDB: one dies with what it holds, one stands still for a minute. ``scripts/nodes``."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from fanoutd import identity
from fanoutd.store import Database, campaigns, counters, open_store
from support.bench import wait_for
from support.daemon import Daemon
from support.mariadb import server
from support.sandbox import SandboxProcess

#: Seconds from a node's death, or from when it stands still, until others have what it held.
TAKEN_OVER_WITHIN = 60.0

WORKERS, CONCURRENCY = 2, 8


@dataclass
class Cluster:
    folder: Path
    people: int

    def __post_init__(self) -> None:
        self.url = server().database()
        self.sandbox = SandboxProcess(self.folder / "ledger.jsonl", latency="100ms")
        self.nodes = [self._node(name) for name in "abc"]
        for each in self.nodes:
            wait_for(each.ready, "an answer to ping", 40)
        wait_for(lambda: len(self.nodes[0].call("daemon.status")["nodes"]) == 3, "three nodes", 40)
        self.db: Database = open_store(self.url)

    def _node(self, name: str) -> Daemon:
        (self.folder / name).mkdir()
        return Daemon(self.folder / name, followers=self.people, workers=WORKERS, concurrency=CONCURRENCY,
                      sandbox=self.sandbox, store=self.url, wait=False)  # fmt: skip

    def holding(self, node: Daemon) -> int:
        """Shards that its workers hold, as the store says."""
        name = node_name(node)
        return int(self.db.rows("SELECT COUNT(*) FROM fanout_shard WHERE owner LIKE %s", f"{name}/%")[0][0])

    def counts(self, campaign: str) -> counters.Counts:
        return counters.counts(self.db, campaign)

    def close(self) -> None:
        self.db.close()
        for each in self.nodes:
            each.close()
        self.sandbox.close()


def node_name(node: Daemon) -> str:
    return identity.of(node.folder / "state", shared=True).node


def pids(node: Daemon) -> list[int]:
    return [node.process.pid, node.dispatcher(), *(worker["pid"] for worker in node.workers())]


def under_way(cluster: Cluster, node: Daemon) -> str:
    """A campaign that was submitted elsewhere and of which the node holds a part."""
    campaign: str = cluster.nodes[0].call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: cluster.holding(node) and sum(w["sent"] or 0 for w in node.workers()) > 50, "its part of it", 60)
    return campaign


def settled(cluster: Cluster, campaign: str) -> bool:
    """Nobody is unknown any more but who was on the wire, and it is over, again."""
    found = campaigns.get(cluster.db, campaign)
    assert found is not None
    return found.state == "done" and cluster.counts(campaign).unknown <= WORKERS * CONCURRENCY


def taken_over(cluster: Cluster, node: Daemon, since: float) -> None:
    wait_for(lambda: not cluster.holding(node), "a take-over", TAKEN_OVER_WITHIN)
    say(f"taken over {time.monotonic() - since:.0f} s after")


def one_dies(cluster: Cluster) -> None:
    """Killed with -9: what it held is unknown until it comes back; what it was to plan is another's, but for a list."""
    a, b, _ = cluster.nodes
    campaign = under_way(cluster, b)
    due = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    later = b.call("campaign.submit", content="y", phone="1", send_at=due)["campaign"]
    listed = b.call("campaign.submit", content="z", phone="1", send_at=due, openids=["oLIST0000000001"])["campaign"]
    wait_for(lambda: all(campaigns.get(cluster.db, each) for each in (later, listed)), "both in the store")
    b.kill_all()
    since = time.monotonic()
    taken_over(cluster, b, since)
    wait_for(lambda: a.call("campaign.get", campaign=campaign)["state"] == "done", "the end", 60)
    say(f"{cluster.counts(campaign).unknown} unknown while the node is away")
    a.until(later, seconds=90)
    reason = wait_for(lambda: a.call("campaign.get", campaign=listed)["reason"], "a reason", 60)
    assert node_name(b) in reason and "list" in reason, reason
    b.serve()
    b.until(listed, seconds=60)
    wait_for(lambda: settled(cluster, campaign), "its journals' word", 60)
    twice = {openid: count for openid, count in a.accepted().items() if count > 2}
    assert not twice, "somebody was sent one of the two campaigns twice"
    rows = {each: a.rows(each) for each in (campaign, later)}
    assert all(len(found) == cluster.people for found in rows.values())
    sent = sum(row["state"] == "sent" for found in rows.values() for row in found)
    unknown = sum(row["state"] == "unknown" for found in rows.values() for row in found)
    accepted = sum(count for openid, count in a.accepted().items() if not openid.startswith("oLIST"))
    assert sent <= accepted <= sent + unknown and sent + unknown == 2 * cluster.people
    say(f"{sent} sent, {unknown} unknown, {accepted} accepted")


def one_stands_still(cluster: Cluster) -> None:
    """Stopped in the middle of a transaction, with its locks, for longer than its leases; then it wakes."""
    a, _, c = cluster.nodes
    before = sum(a.accepted().values())
    campaign = under_way(cluster, c)
    stopped = pids(c)
    stop_within_a_transaction(cluster, campaign, stopped)
    since = time.monotonic()
    try:
        taken_over(cluster, c, since)
        wait_for(lambda: a.call("campaign.get", campaign=campaign)["state"] == "done", "the end without it", 90)
        away = cluster.counts(campaign).unknown
        say(f"{away} unknown while it stands still")
    finally:
        _signal(stopped, signal.SIGCONT)
    wait_for(lambda: settled(cluster, campaign), "what it says when it wakes", 60)
    counts = cluster.counts(campaign)
    accepted = sum(a.accepted().values()) - before
    assert counts.total == cluster.people and counts.sent_custom + counts.unknown == cluster.people, counts
    assert counts.sent_custom <= accepted <= cluster.people, (counts, accepted)
    say(f"{counts.sent_custom} sent, {counts.unknown} unknown, {accepted} accepted")


def stop_within_a_transaction(cluster: Cluster, campaign: str, processes: Sequence[int]) -> None:
    """SIGSTOP to all of them while one, which has locks of the store, waits for another."""
    with cluster.db.transaction():
        cluster.db.rows("SELECT id FROM fanout_campaign WHERE id = %s FOR UPDATE", campaign)
        wait_for(lambda: _transactions() & _ports(processes), "a claim")
        _signal(processes, signal.SIGSTOP)
    time.sleep(0.2)  # the server's list of transactions is a tenth of a second old
    locks = _transactions() & _ports(processes)
    assert locks, "its transaction was over"
    say(f"stopped in the middle of {len(locks)} transactions")


def _signal(processes: Sequence[int], number: int) -> None:
    for pid in processes:
        os.kill(pid, number)


def _transactions() -> set[int]:
    """The clients' ports of those that hold locks."""
    found = server().say(
        "SELECT p.host FROM information_schema.innodb_trx t JOIN information_schema.processlist p "
        "ON p.id = t.trx_mysql_thread_id WHERE t.trx_rows_locked > 0"
    )
    return {int(host.rpartition(":")[2]) for (host,) in found}


def _ports(processes: Sequence[int]) -> set[int]:
    return {each.laddr.port for pid in processes for each in psutil.Process(pid).net_connections("tcp") if each.laddr}


def say(words: str) -> None:
    print(f"  {words}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=6000)
    people = parser.parse_args(arguments).people
    steps: list[Callable[[Cluster], None]] = [one_dies, one_stands_still]
    with (
        tempfile.TemporaryDirectory(prefix="fanoutd-nodes-") as folder,
        closing(Cluster(Path(folder), people)) as cluster,
    ):
        for step in steps:
            print(step.__doc__, flush=True)
            step(cluster)
    print("all well", flush=True)


if __name__ == "__main__":
    main()
