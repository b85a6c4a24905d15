"""What the store says when health asks: whether it writes, how fast, and what only it knows of the whole cluster."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.health.conditions import Key
from fanoutd.health.judge import Finding
from fanoutd.outcome import channel_name
from fanoutd.store import Database, campaigns, counters, meta, nodes, quotas
from fanoutd.store.database import holes
from fanoutd.times import clock, iso, local_ms, span, wall_ms

log = logging.getLogger(__name__)

#: In fanout_meta: what the cluster's health remembers; and a node's own row, which shows that the store writes.
MEMORY, _PROBE = "health", "health of "

#: A node that died is looked for so long, in milliseconds.
MISSED_MS = 7 * 86_400_000

#: Characters that MySQL's TEXT has room for; JSON is ASCII.
_ROOM = 60_000

#: Running campaigns that are watched at a time: the oldest.
_WATCHED = 200

#: Submissions that are looked up at a time: the oldest.
_LOOKED_UP = 200


@dataclass(slots=True)
class Said:
    """``seconds`` that a small transaction took; ``ahead``: seconds by which this machine's clock is ahead of the
    store's, None where it is the same one. The rest is empty before the store may be trusted."""

    seconds: float = 0.0
    ahead: float | None = None
    unknown: set[str] = field(default_factory=set)
    """Of the submissions that were asked about, those that the store does not have."""
    waits: dict[str, str] = field(default_factory=dict)
    """By account, why its running campaigns wait for the API."""
    memory: dict[str, Any] | None = None
    """The cluster's, None before the store may be trusted."""


def ask(db: Database, node: str, trusted: bool, submissions: Sequence[str]) -> Said:
    """Raises StoreAway."""
    began = time.monotonic()
    before = local_ms()
    shown = db.now_ms()
    said = Said(time.monotonic() - began, ((before + local_ms()) // 2 - shown) / 1000 if db.shared else None)
    if not trusted:
        return said
    began = time.monotonic()
    with db.transaction():  # a store that only reads is of no use
        meta.write(db, _PROBE + node, str(shown))
    said.seconds = time.monotonic() - began
    said.unknown = _unknown(db, submissions[:_LOOKED_UP])
    said.waits = dict(db.rows("SELECT account, reason FROM fanout_campaign WHERE state = 'running' AND cause = 'api'"))
    said.memory = read_memory(db)
    return said


def _unknown(db: Database, submissions: Sequence[str]) -> set[str]:
    if not submissions:
        return set()
    known = set()
    for table in ("fanout_campaign", "fanout_recurring"):
        sql = f"SELECT id FROM {table} WHERE id IN ({holes(len(submissions))})"
        known |= {row[0] for row in db.rows(sql, *submissions)}
    return set(submissions) - known


def read_memory(db: Database) -> dict[str, Any]:
    try:
        document = json.loads(meta.read(db, MEMORY) or "{}")
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {}


def write_memory(db: Database, document: Mapping[str, Any]) -> None:
    text = json.dumps(document)
    if len(text) > _ROOM:  # what was seen counts more than what is just being told
        text = json.dumps({**document, "untold": []})
    with db.transaction():
        meta.write(db, MEMORY, text)


def reachable(why_not: str | None, late: float | None) -> Finding:
    """``why_not``: what it said instead of an answer; ``late``: seconds for which it has said nothing."""
    words = why_not or ("" if late is None else f"it has given no answer for {late:.0f} s")
    return Finding(Key("store"), bool(words), words)


def slow(said: Said | None, most: float) -> Finding:
    if said is None:
        return Finding(Key("store_slow"), None)
    words = f"a small transaction took {said.seconds:.1f} s" if said.seconds > most else ""
    return Finding(Key("store_slow"), bool(words), words)


# ---- what the node that leads judges for all


def cluster(
    db: Database, config: Config, refresher: Refresher, node: str, progress: dict[str, list[int]], steady: bool
) -> list[Finding]:
    """``progress``: by campaign how many people had ended, and since when; it is brought up to date. ``steady``: the
    store has been there long enough for nodes to be heard of. Raises StoreAway."""
    at = wall_ms()
    findings = [_stuck(db, config, progress, at)]
    for name, account in config.accounts.items():
        findings.append(token(name, refresher.shown(db, name), config.health.token_left))
        findings.append(quota(name, quotas.known(db, name, at), config.health.quota_left, account.timezone))
    for each in nodes.living(db, MISSED_MS):
        if each.node != node:
            silent = each.age_ms > nodes.LIVING_MS
            words = f"it has not been heard of for {span(each.age_ms)}, and did not say that it stops"
            findings.append(Finding(Key("node", each.node), silent if steady or not silent else None,
                                    words if silent else ""))  # fmt: skip
    return findings


def _stuck(db: Database, config: Config, progress: dict[str, list[int]], at: int) -> Finding:
    """Campaigns that get nowhere without a reason, or because their audience cannot be read, which nobody else tells.
    Other reasons have conditions of their own, or are as wanted."""
    active = campaigns.in_states(db, "planning", "running")
    running = [each for each in active if each.state == "running" or each.cause == "audience"][:_WATCHED]
    stuck = []
    for each in running:
        counts = counters.counts(db, each.id)
        ended, since = progress.get(each.id, [-1, at])
        held = each.cause == "audience"
        moves = ended != counts.total - counts.pending or (
            not held and (not counts.pending or each.reason is not None)
        )  # fmt: skip
        progress[each.id] = [counts.total - counts.pending, at if moves or since > at else since]
        account = config.accounts.get(each.account)
        patience = max(config.health.stuck, 3 / account.rate if account else 0)
        if at - progress[each.id][1] > patience * 1000:
            what = f"it waits for its audience: {each.reason}" if held else f"{counts.pending:,} people wait"
            stuck.append(f"{each.id}: {what}, and for {span(at - progress[each.id][1])} nobody was reached")
    for gone in progress.keys() - {each.id for each in running}:
        del progress[gone]
    more = f", and {len(stuck) - 5} more campaigns" if len(stuck) > 5 else ""
    return Finding(Key("shards"), bool(stuck), "; ".join(stuck[:5]) + more)


def token(name: str, shown: Mapping[str, Any], least: float) -> Finding:
    """``shown``: as ``token.get`` answers."""
    key, left, error = Key("token", name), shown["expires_in"], shown["error"]
    if not shown["ok"]:
        if error is None and shown["token"] is None:
            return Finding(key, None)  # nobody has asked for one yet
        return Finding(key, True, error or "it has ended, and no other one has come")
    if left is not None and left < least:
        why = f": {error}" if error else ""
        return Finding(key, True, f"it ends in {span(left * 1000)}, and no other one has come{why}")
    return Finding(key, False)


def quota(name: str, known: Mapping[int, quotas.Quota], least: float, timezone: str) -> Finding:
    parts = []
    at = wall_ms()
    for channel, each in known.items():
        what = channel_name(channel)
        if each.rest_until is not None and each.rest_until > at:
            parts.append(f"{what}: WeChat takes no more calls until {clock(each.rest_until, timezone)} ({timezone})")
        elif each.spent and each.limit:
            parts.append(f"{what}: all of today's {each.limit:,} calls are made, until "
                         f"{iso(quotas.reopening(name, channel, at))}")  # fmt: skip
        elif each.limit and each.left is not None and each.left < least * each.limit:
            parts.append(f"{what}: {each.left:,} of today's {each.limit:,} calls are left")
    return Finding(Key("quota", name), bool(parts), "; ".join(parts))
