"""A dispatcher without a store. A campaign's name says what becomes of a question about it.

``nope`` is not there, ``silence`` is not answered, ``kill-once`` kills the first dispatcher that is
asked; any other one is what the file ``campaign`` in the state directory says, else done.
``campaign.list`` with limit K says that there is work for K.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from fanoutd.child import Child
from support.fake_events import note, say, told

STATUS = {
    "promise": "exact", "store": {"kind": "sqlite", "ok": True, "latency_ms": 0.1}, "accounts": [],
    "shards": {"pending": 0, "leased": 0}, "nodes": [],
}


def run(child: Child) -> int:
    say(child, {"t": "ready"})
    for message in told(child):
        note(child, message)
        if message["t"] == "ask":
            _answer(child, message)
        elif message["t"] == "job":
            say(child, {"t": "job", "n": message["n"], "error": None})
        elif message["t"] in ("stop", "quit"):
            return 0
    note(child, {"t": "end of file"})
    return 0


def _answer(child: Child, ask: dict[str, Any]) -> None:
    campaign, n = ask["params"].get("campaign"), ask["n"]
    if ask["method"] == "daemon.status":
        say(child, {"t": "answer", "n": n, "result": STATUS})
    elif ask["method"] == "campaign.list":
        say(child, {"t": "work", "shards": ask["params"]["limit"]}, {"t": "answer", "n": n, "result": ask["params"]})
    elif campaign == "nope":
        error = {"code": -32002, "message": "no such campaign", "data": {"field": "campaign"}}
        say(child, {"t": "answer", "n": n, "error": error})
    elif campaign == "kill-once" and _first(child):
        os.kill(os.getpid(), signal.SIGKILL)
    elif campaign != "silence":
        say(child, {"t": "answer", "n": n, "result": {"id": campaign, "state": "done", **_file(child)}})


def _first(child: Child) -> bool:
    marker = child.config.daemon.state_dir / "killed-once"
    first = not marker.exists()
    marker.touch()
    return first


def _file(child: Child) -> dict[str, Any]:
    file = child.config.daemon.state_dir / "campaign"
    while file.exists():
        try:
            found: dict[str, Any] = json.loads(file.read_text())
            return found
        except ValueError:  # the test is just writing it
            time.sleep(0.001)
    return {}
