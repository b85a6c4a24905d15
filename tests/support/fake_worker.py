"""A worker that sends nothing: it speaks the protocol and writes down what it was told.

FAKE_WORKER says what is wrong with it: ``deaf`` (does not stop), ``unbootable``, ``slow`` (boots in 0.5 s),
``stubborn`` (neither stops nor ends when the master is gone but on SIGKILL).
"""

from __future__ import annotations

import os
import signal
import time

from fanoutd.child import Child
from support.fake_events import note, say, told


def run(child: Child) -> int:
    how = os.environ.get("FAKE_WORKER", "")
    if how == "unbootable":
        return 3
    if how == "slow":
        time.sleep(0.5)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child.board.write(child.row, campaign="c-1", sent=child.slot, failed=0, rate=1.5, heartbeat=time.monotonic())
    say(child, {"t": "ready"})
    for message in told(child):
        note(child, message)
        if message["t"] == "work":
            say(child, {"t": "busy"}, {"t": "idle"})
        if message["t"] in ("stop", "quit") and how != "deaf":
            return 0
    note(child, {"t": "end of file"})
    return 0

