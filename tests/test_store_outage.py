"""A store that nobody can reach in the middle of a campaign, over the whole installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mariadb import server
from support.outage import WORKERS, go_through
from support.wire import Wire


@pytest.mark.quiet
def test_the_master_does_not_notice_and_everything_goes_out_afterwards(tmp_path: Path) -> None:
    """`scripts/outage` does it for minutes, and with a store that is silent."""
    seen = go_through(tmp_path, server(), Wire.refuse, 2.0)
    assert seen.ping_p99 < 0.05
    assert seen.submit_longest < 1
    assert seen.sent_after <= WORKERS * 2 * 64
    assert seen.said["state"] == "degraded"
    assert seen.refusal.startswith("store mysql://127.0.0.1:") and seen.refusal.endswith("(111); try again")
    assert seen.audit.good
    assert seen.later == 5
