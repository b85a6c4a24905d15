"""Campaigns that ended long ago; as a program it measures how they are deleted while another one is sent.

``python -m support.old_campaigns sqlite|mariadb``
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from fanoutd.dispatcher.retention import Retention
from fanoutd.outcome import State
from fanoutd.store import Database, campaigns, open_store, shards, summary
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from support import stores
from support.bench import wait_for
from support.daemon import Daemon

DAY_MS = 86_400_000
KEPT = 90 * 86400.0


def add(db: Database, id: str, people: int, days_ago: float = 100, state: str = "done", size: int = 700,
        **columns: Any) -> list[int]:  # fmt: skip
    """A campaign that ended so long ago, everybody sent to; its shards."""
    at = db.now_ms() - int(days_ago * DAY_MS)
    with db.transaction():
        campaigns.insert(db, Campaign(
            id, "main", "supply", None, None, None, state, None, None, at - 1000, None, at - 1000, at, True, "n1",
            "query", {"channels": ["custom"]},
        ))  # fmt: skip
        made = []
        for idx, first in enumerate(range(0, people, size)):
            count = min(size, people - first)
            made.append(shards.add(db, id, idx, [Planned(f"oPERSON{first + i:07d}") for i in range(count)]))
        db.execute("UPDATE fanout_delivery SET state = %s WHERE shard IN "
                   "(SELECT id FROM fanout_shard WHERE campaign = %s)", State.SENT, id)  # fmt: skip
        db.execute("UPDATE fanout_shard SET sent_custom = size, pending = 0 WHERE campaign = %s", id)
        db.execute("INSERT INTO fanout_history (campaign, at, node, action) VALUES (%s, 1, 'n1', 'submit')", id)
        for name, value in columns.items():
            db.execute(f"UPDATE fanout_campaign SET {name} = %s WHERE id = %s", value, id)
    return made


def main(kind: str) -> None:
    """100,000 deliveries go while a campaign of 20,000 runs at 2,000 a second."""
    folder = Path(tempfile.mkdtemp(prefix="fanoutd-retention-"))
    url = stores.url(kind, folder)
    d = Daemon(folder, followers=20_000, rate=2000, store=url, latency="20ms")
    db = open_store(url)
    try:
        wait_for(lambda: db.has_table("fanout_gone"), "the tables")
        add(db, "c-old", 100_000, size=2000)
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        wait_for(lambda: _sent(d, campaign) > 500, "a running campaign", 60)
        before, begun = _sent(d, campaign), time.monotonic()
        thread = threading.Thread(target=_work, args=(url,))
        thread.start()
        steps, answers, last = [], [], before
        while thread.is_alive():
            asked = time.monotonic()
            now = _sent(d, campaign)
            answers.append(time.monotonic() - asked)
            steps.append(now - last)
            last = now
            time.sleep(0.25)
        seconds = time.monotonic() - begun
        print(
            f"{kind}: 100,000 deleted in {seconds:.1f} s; sent meanwhile {(last - before) / seconds:,.0f}/s, in the "
            f"worst quarter of a second {min(steps[1:])}; slowest answer {max(answers) * 1000:.0f} ms"
        )
        print(f"store: {summary.size(db)} (bytes, of them free)")
    finally:
        db.close()
        d.close()


def _sent(d: Daemon, campaign: str) -> int:
    counts = d.call("campaign.get", campaign=campaign)["counts"]
    return sum(count or 0 for state, count in counts.items() if state.startswith("sent_"))


def _work(url: str) -> None:
    store = open_store(url)
    with store.closing():
        print(Retention(KEPT, lambda: store).work())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sqlite")
