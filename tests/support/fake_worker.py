"""A worker that sends nothing: it speaks the protocol and writes down what it was told.

FAKE_WORKER says what is wrong with it: ``deaf`` (does not stop), ``unbootable``, ``slow`` (boots in 0.5 s),
``hung`` (the first one, when there is work, says busy and nothing more), ``tired`` (asks to be recycled when there is
work), ``failing`` (raises when there is work). While the state directory has a file ``no-boot`` nobody boots.
"""

from __future__ import annotations

import os
import signal
import time

from fanoutd.child import Child
from fanoutd.process import die_with_parent
from support.fake_events import note, say, told


def run(child: Child, campaign: str = "c-1") -> int:
    """``campaign`` is what it shows on the board."""
    how = os.environ.get("FAKE_WORKER", "")
    if how == "unbootable" or (child.config.daemon.state_dir / "no-boot").exists():
        return 3
    if how == "slow":
        time.sleep(0.5)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGTERM)
    _show(child, campaign)
    say(child, {"t": "ready"})
    for message in told(child):
        note(child, message)
        _show(child, campaign)
        if message["t"] == "work":
            _work(child, how)
        if message["t"] in ("stop", "quit") and how != "deaf":
            return 0
    note(child, {"t": "end of file"})
    return 0


def _show(child: Child, campaign: str) -> None:
    child.board.write(child.row, campaign=campaign, sent=child.slot, failed=0, rate=1.5, heartbeat=time.monotonic())


def _work(child: Child, how: str) -> None:
    say(child, {"t": "busy"})
    if how == "hung" and not (marker := child.config.daemon.state_dir / "hung").exists():
        marker.touch()
        hang_here()
    if how == "failing":
        raise RuntimeError("failing as it was told to")
    if how == "tired":
        say(child, {"t": "recycle", "why": "enough"})
    say(child, {"t": "idle"})


def hang_here() -> None:
    """Its name is what the dump of the stack must show."""
    while True:
        time.sleep(60)
