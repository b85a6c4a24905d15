"""The living daemon, as it tells of itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fanoutd.client import Client, ClientError, Unreachable
from fanoutd.config import Config
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.master.lock import is_held
from fanoutd.view.quota import calls_today

_START = "`fanoutd serve`, or `service fanoutd start`"


def daemon(config: Config) -> Iterator[Finding]:
    path = config.daemon.socket
    began = time.perf_counter()
    try:
        with Client(path, timeout=10) as client:
            pid = client.call("daemon.ping")["pid"]
            took = (time.perf_counter() - began) * 1000
            status = client.call("daemon.status")
            paused = client.call("campaign.list", state="paused")["campaigns"]
            newest = client.call("campaign.list", limit=100)["campaigns"]
    except Unreachable:
        if config.daemon.pidfile.exists() and not is_held(config.daemon.pidfile):
            yield fail("daemon", f"it has died: {config.daemon.pidfile} is left, and nobody holds it", _START)
            return
        yield warn("daemon", f"none answers on {path}: tokens, workers and campaigns were not examined", _START)
        return
    except PermissionError:
        yield fail("daemon", f"{path}: you may not use this socket", "run doctor as root or as one of allow_users")
        return
    except ClientError as e:
        yield fail("daemon", f"{path}: {e}", "see the daemon's log")
        return
    yield ok("daemon", f"pid {pid} answers in {took:.1f} ms")
    yield from _well(status)
    yield from _accounts(status)
    yield from _waiting(paused, newest)


def _well(status: dict[str, Any]) -> Iterator[Finding]:
    workers = [each for each in status["workers"] if each["role"] == "worker"]
    alive = sum(each["state"] in ("idle", "busy") for each in workers)
    words = f"{status['state']}: {alive} of {len(workers)} workers, generation {status['generation']}"
    if status["state"] == "running" and alive == len(workers):
        yield ok("daemon", words)
    else:
        trouble = [f"{each}: {status[each]['error']}" for each in ("reload", "upgrade") if status[each]["error"]]
        yield warn("daemon", "; ".join([words, *trouble]), "see `fanoutd status` and the log")
    if not status["store"]["ok"]:
        yield fail("store", "the daemon cannot use it", "see the log; the disk may be full or the file locked")


def _accounts(status: dict[str, Any]) -> Iterator[Finding]:
    for account in status["accounts"] or ():
        token = account["token"]
        if token["ok"]:
            left = "good, its end is not known" if token["expires_in"] is None else f"good for {token['expires_in']} s"
            yield ok(f"token of {account['name']}", f"{left}, from {token['source']}")
        else:
            why = token["error"] or "there is none yet"
            yield fail(f"token of {account['name']}", why, "look at app_id, secret and whitelist in WeChat's console")
        if account["quota"] is not None:
            yield ok(f"quota of {account['name']}", calls_today(account["quota"]))


def _waiting(paused: list[dict[str, Any]], newest: list[dict[str, Any]]) -> Iterator[Finding]:
    for each in paused:
        order = "repair" if "campaign repair" in (each["reason"] or "") else "resume"
        yield warn("campaign", f"{each['id']} is paused: {each['reason']}", f"`fanoutd campaign {order} {each['id']}`")
    for each in newest:
        if each["counts"]["unknown"]:
            yield warn(
                "campaign", f"{each['id']}: of {each['counts']['unknown']} people nobody knows whether they have it",
                f"`fanoutd campaign show {each['id']}` says what can be done",
            )  # fmt: skip
