"""The metrics as Prometheus reads them: one table of families over a view of the node, and the text made of it.

Imported when somebody asks for metrics, and not before: prometheus_client costs a megabyte. Names and labels are a
promise (``docs/protocol.md``); none bears an openid, a campaign or a secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fanoutd.figures import BUCKETS, Figures

#: Always there, 0 too: an alert on a state that has not been yet must see it come.
WORKER_STATES = ("booting", "idle", "busy", "draining", "dead", "backoff")
DAEMON_STATES = ("starting", "running", "degraded", "stopping")
CAMPAIGN_STATES = ("scheduled", "planning", "running", "paused", "done", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the store says: ``seconds`` it took, shards as in the status, campaigns by state; ``accounts`` and ``nodes``
    as in the status too."""

    seconds: float
    shards: Mapping[str, int]
    campaigns: Mapping[str, int]
    accounts: Iterable[Mapping[str, Any]]
    nodes: Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class View:
    """One look at the node. What could not be asked in time is None, and then has no samples."""

    version: str
    figures: Figures
    restarts: int
    facts: Mapping[str, Any] | None
    """As ``Facts.ask`` gives them."""
    store: StoreView | None
    rates: Mapping[str, float]
    """By account."""
    resident: Mapping[str, int]
    """Bytes by role."""
    mail_waiting: int | None


def text(view: View) -> str:
    """In the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(view))
    return generate_latest(registry).decode()


class _Collector:
    def __init__(self, view: View) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        view = self._view
        yield from _deliveries(view.figures)
        yield _counter("worker_restarts", "Workers that were started again after a death, on this node.", view.restarts)
        if view.facts is not None:
            yield from _of_master(view.facts)
        yield from _of_store(view.store)
        yield _gauge("rate_limit", "Calls a second that the account may make now, on all nodes together.", ["account"],
                     (((name,), rate) for name, rate in view.rates.items()))  # fmt: skip
        yield _gauge("process_resident_memory_bytes", "Resident memory of this node's processes, shared pages counted "
                     "in each.", ["role"], (((role,), size) for role, size in view.resident.items()))  # fmt: skip
        if view.mail_waiting is not None:
            yield _gauge("mail_waiting", "Events that wait to be mailed by this node.", [], [((), view.mail_waiting)])
        yield _gauge("build_info", "1, labelled with the program's version.", ["version"], [((view.version,), 1)])


def _deliveries(figures: Figures) -> Iterator[Metric]:
    deliveries = CounterMetricFamily(
        "fanoutd_deliveries", "Deliveries that came into a final state, by this node. errcode is that of WeChat's last "
        "answer: 0 for sent, render for what was refused here. An unknown one that is settled later counts again.",
        labels=["account", "channel", "state", "errcode"],
    )  # fmt: skip
    for labels, count in sorted(figures.deliveries.items()):
        deliveries.add_metric(labels, count)
    yield deliveries
    requests = CounterMetricFamily(
        "fanoutd_requests", "Calls to send that ended, by this node; result is WeChat's errcode, or not_sent, timeout, "
        "lost or unreadable without one.", labels=["account", "channel", "result"],
    )  # fmt: skip
    for result, count in sorted(figures.requests.items()):
        requests.add_metric(result, count)
    yield requests
    latency = HistogramMetricFamily(
        "fanoutd_request_duration_seconds", "How long calls to send took, of those that left this node.",
        labels=["account", "channel"],
    )  # fmt: skip
    for channel, histogram in sorted(figures.latency.items()):
        total, buckets = 0, []
        for edge, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((edge, total))
        latency.add_metric(channel, buckets, histogram.seconds)
    yield latency


def _of_master(facts: Mapping[str, Any]) -> Iterator[Metric]:
    states = Counter(row["state"] for row in facts["workers"] if row["role"] == "worker")
    yield _gauge("workers", "Workers of this node by state.", ["state"],
                 (((state,), states[state]) for state in WORKER_STATES))  # fmt: skip
    yield _gauge("state", "1 for the state that this node's daemon is in.", ["state"],
                 (((state,), facts["state"] == state) for state in DAEMON_STATES))  # fmt: skip
    yield _gauge("start_time_seconds", "When this node's daemon was started, in seconds since 1970.", [],
                 [((), _seconds(facts["started_at"]))])  # fmt: skip
    spool = facts["spool"]
    yield _gauge("spool_files", "Submissions in this node's spool: not in the store yet, or with a list of people that "
                 "is not planned yet.", [], [((), spool["files"])])
    yield _gauge("spool_oldest_seconds", "Age of the oldest of them, 0 without any.", [],
                 [((), spool["oldest_seconds"] or 0 if spool["files"] is not None else None)])  # fmt: skip
    yield _gauge("job_last_run_timestamp_seconds", "When this node's job last ended, in seconds since 1970.", ["job"],
                 (((job["name"],), _seconds(job["last"])) for job in facts["jobs"]))  # fmt: skip
    lengths = {job["name"]: job.get("duration_ms") for job in facts["jobs"]}
    yield _gauge("job_duration_seconds", "How long its last run took.", ["job"],
                 (((name,), None if ms is None else ms / 1000) for name, ms in lengths.items()))  # fmt: skip


def _of_store(store: StoreView | None) -> Iterator[Metric]:
    yield _gauge("store_up", "1 when this node can use the store.", [], [((), store is not None)])
    if store is None:
        return
    yield _gauge("store_latency_seconds", "How long the store took to answer one question.", [], [((), store.seconds)])
    yield _gauge("token_expires_in_seconds", "Until the account's access token ends; 0 without a good one.",
                 ["account"], (((each["name"],), _left(each["token"])) for each in store.accounts))  # fmt: skip
    yield _gauge("quota_remaining", "Calls that are left today, as far as known, of the store: alike on all nodes.",
                 ["account", "channel"],
                 (((each["name"], channel), quota["left"])
                  for each in store.accounts for channel, quota in (each["quota"] or {}).items()))  # fmt: skip
    yield _gauge("shards", "Shards of running campaigns that wait (pending) or are in a worker's hands (leased), of "
                 "the store: alike on all nodes.", ["state"],
                 (((state,), store.shards[state]) for state in ("pending", "leased")))  # fmt: skip
    yield _gauge("campaigns", "Campaigns by state, of the store: alike on all nodes.", ["state"],
                 (((state,), store.campaigns.get(state, 0)) for state in CAMPAIGN_STATES))  # fmt: skip
    yield _gauge("nodes", "Nodes that are alive at the store.", [], [((), len(list(store.nodes)))])


def _left(token: Mapping[str, Any]) -> float | None:
    return token["expires_in"] if token["ok"] else 0


def _seconds(iso: str | None) -> float | None:
    return None if iso is None else datetime.fromisoformat(iso).timestamp()


Samples = Iterable[tuple[tuple[str, ...], float | None]]


def _gauge(name: str, words: str, labels: list[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"fanoutd_{name}", words, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"fanoutd_{name}", words, value=value)
