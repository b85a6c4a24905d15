"""Metrics: what is served is what happened, whoever asks and whatever is away; dashboards ask for nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanoutd import metrics
from fanoutd.config import Metrics
from fanoutd.dispatcher import metering, scrape
from fanoutd.dispatcher.metering import Metering
from fanoutd.dispatcher.restarts import Counted, Restarts
from fanoutd.dispatcher.scrape import Scrape
from fanoutd.dispatcher.threads import Threads
from fanoutd.figures import Figures, Histogram
from fanoutd.figures_file import folder_of, read_all
from fanoutd.master.slots import State as WorkerState
from fanoutd.outcome import OPEN, State, channel_name, errcode_word
from fanoutd.store import StoreAway, open_store
from fanoutd.worker.wire import FAILURES
from support.bench import stop_between_writes, wait_for
from support.daemon import Daemon, follower

ETC = Path(__file__).parents[1] / "etc"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """By name and labels; fails for what Prometheus would not read."""
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(text) for each in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"fanoutd_{name}", frozenset(labels.items())))


def full() -> metrics.View:
    """A node of which everything is known."""
    figures = Figures()
    for state in ("sent", "failed", "skipped", "unknown"):
        figures.deliveries["main", "custom", state, "0"] = 3
    figures.requests.update({("main", "custom", each): 2 for each in ("0", *FAILURES)})
    figures.latency["main", "custom"] = Histogram()
    figures.latency["main", "custom"].observe(0.03)
    row = {"role": "worker", "slot": 1, "state": "idle", "restarts": 1, "rss_bytes": 4096, "pid": 1}
    facts = {
        "started_at": "2026-01-02T03:04:05.678Z", "state": "running", "pid": os.getpid(), "workers": [row],
        "spool": {"files": 2, "oldest_seconds": 1.5},
        "jobs": [{"name": "token_check", "next": None, "last": "2026-01-02T03:04:05.678Z", "result": "ok",
                  "duration_ms": 12}, {"name": "quota_check", "next": None, "last": None, "result": None}],
    }  # fmt: skip
    account = {
        "name": "main", "token": {"ok": True, "expires_in": 7000, "source": "stable", "error": None}, "rate": 200.0,
        "quota": {"custom": {"limit": 10, "used": 3, "left": 7}, "template": {"limit": None, "used": 1, "left": None}},
    }  # fmt: skip
    store = metrics.StoreView(0.002, {"pending": 4, "leased": 1}, {"done": 2}, [account], [{"node": "a"}])
    return metrics.View("1.2.3", figures, 7, facts, store, {"main": 200.0}, {"master": 1 << 20}, 0)


# ---- the text


def test_every_metric_has_a_help_a_type_and_a_name_by_the_rules() -> None:
    text = metrics.text(full())
    families = list(text_string_to_metric_families(text))
    assert len(families) >= 20
    for family in families:
        assert re.fullmatch(r"fanoutd_[a-z][a-z0-9_]*[a-z0-9]", family.name) and family.documentation, family.name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|kilobytes|percent)$", family.name)
        assert (family.type == "counter") == (f"# TYPE {family.name}_total counter" in text)
        assert family.type in ("counter", "gauge", "histogram") and not family.name.endswith(f"_{family.type}")
        for each in family.samples:
            assert not set(each.labels) & {"openid", "campaign", "instance", "job_name", "le"} or "le" in each.labels
    found = samples(text)
    assert value(found, "workers", state="busy") == 0 and value(found, "workers", state="idle") == 1
    assert {labels for name, labels in found if name == "fanoutd_workers"} == {
        frozenset({("state", str(each))}) for each in WorkerState
    }
    assert value(found, "quota_remaining", account="main", channel="custom") == 7
    assert value(found, "quota_remaining", account="main", channel="template") is None
    assert value(found, "job_duration_seconds", job="token_check") == 0.012
    assert value(found, "start_time_seconds") == pytest.approx(1767323045.678)
    assert value(found, "request_duration_seconds_bucket", account="main", channel="custom", le="0.05") == 1
    assert value(found, "request_duration_seconds_bucket", account="main", channel="custom", le="0.025") == 0


def test_what_is_away_has_no_samples_and_the_rest_is_there() -> None:
    known = full()
    text = metrics.text(metrics.View(known.version, known.figures, 7, None, None, {}, {}, None))
    found = samples(text)
    assert value(found, "store_up") == 0 and value(found, "worker_restarts_total") == 7
    assert value(found, "deliveries_total", account="main", channel="custom", state="sent", errcode="0") == 3
    assert not any(name in text for name in ("fanoutd_shards", "fanoutd_workers", "fanoutd_mail_waiting"))


def test_an_account_without_a_good_token_has_no_seconds_left() -> None:
    known = full()
    assert known.store is not None
    account = next(iter(known.store.accounts))
    for ok, expires_in, left in ((False, 7000, 0), (False, None, 0), (True, None, None), (True, 5, 5)):
        token = {"ok": ok, "expires_in": expires_in, "source": "stable", "error": None}
        store = metrics.StoreView(0.1, known.store.shards, {}, [{**account, "token": token}], [])
        found = samples(metrics.text(metrics.View("1", known.figures, 0, None, store, {}, {}, None)))
        assert value(found, "token_expires_in_seconds", account="main") == left


# ---- dashboards and rules


def expressions() -> Iterator[tuple[str, str]]:
    for panel in json.loads((ETC / "grafana" / "fanoutd.json").read_text())["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    rules = (ETC / "prometheus" / "fanoutd.rules.yml").read_text()
    yield from re.findall(r"- alert: (\w+)\n(?: +#.*\n)* +expr: (\|\n(?: {10,}.*\n)+|.*\n)", rules)


def test_dashboards_and_rules_ask_for_nothing_that_is_not_served() -> None:
    served: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.text(full())):
        for each in family.samples:
            for label, content in each.labels.items():
                served.setdefault(each.name, {}).setdefault(label, set()).add(content)
            served.setdefault(each.name, {})
    asked, names = set(), 0
    for title, expr in expressions():
        names += 1
        for name, selector in re.findall(r"\b((?:fanoutd_|up\b)\w*)(?:\{([^}]*)\})?", expr):
            if name == "up":
                continue
            assert name in served, (title, name)
            asked.add(name)
            for label, content in re.findall(r'(\w+)=~?"([^"]*)"', selector or ""):
                assert label in ("instance", *served[name]), (title, label)
                if not content.startswith("$"):
                    assert set(content.split("|")) <= served[name][label], (title, content)
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr):
            known = {"instance"} | {label for name in re.findall(r"fanoutd_\w+", expr) for label in served[name]}
            assert {each.strip() for each in labels.split(",") if each.strip()} <= known, (title, labels)
        assert expr.count("(") == expr.count(")") and expr.count("{") == expr.count("}")
    assert names >= 30 and len(asked) >= 14
    dashboard = json.loads((ETC / "grafana" / "fanoutd.json").read_text())
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "node", "account"]
    for each in dashboard["templating"]["list"][1:]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"]).groups()  # type: ignore[union-attr]
        assert name in served and label in ("instance", *served[name])
    taken = Counter(
        (x, y) for at in (each["gridPos"] for each in dashboard["panels"])
        for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    )  # fmt: skip
    assert set(taken.values()) == {1} and max(x for x, _ in taken) < 24


# ---- restarts


def row(slot: int, restarts: int, role: str = "worker") -> dict[str, Any]:
    return {"slot": slot, "restarts": restarts, "role": role}


def test_restarts_never_fall_whatever_becomes_of_slots_and_daemons(tmp_path: Path) -> None:
    def facts(since: str, *rows: dict[str, Any]) -> dict[str, Any]:
        return {"started_at": since, "workers": list(rows)}

    said = [
        (facts("a", row(1, 0), row(2, 3), row(0, 9, "dispatcher")), 3),
        (facts("a", row(1, 1), row(2, 3)), 4),
        (facts("a", row(1, 1)), 4),  # one is scaled away
        (None, 4),
        (facts("a", row(1, 1), row(2, 1)), 5),  # and there again, from 0
        (facts("a", row(1, 1), row(1, 1), row(2, 1)), 5),  # its successor is booting
        (facts("b", row(1, 2)), 7),  # the daemon was started anew
    ]
    for one, total in said:  # a dispatcher each
        assert Restarts(tmp_path / "restarts").count(one) == total
    (tmp_path / "restarts").write_text("{")
    assert Restarts(tmp_path / "restarts").count(facts("b", row(1, 2))) == 2
    assert Counted(3, "b", {"1": 2}).after("b", [row(1, 2)]) == Counted(3, "b", {"1": 2})


# ---- the look at the node


@pytest.mark.parametrize("trouble", ["raises", "hangs"])
def test_while_store_and_master_are_away_what_is_known_is_served_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(metering, "PATIENCE", 0.3)
    forever, threads, given = threading.Event(), Threads("sqlite:///nowhere"), threading.Event()
    given.set()

    def db() -> Any:
        if trouble == "hangs":
            forever.wait(20)
        raise StoreAway("away")

    monkeypatch.setattr(threads, "db", db)
    config = SimpleNamespace(daemon=SimpleNamespace(state_dir=tmp_path), accounts={"main": 1}, mail=object())
    parts: Any = [
        config, SimpleNamespace(ask=lambda patience: time.sleep(patience)), threads, SimpleNamespace(given=given),
        None, SimpleNamespace(rate=lambda _name: 5.0), Restarts(tmp_path / "restarts"),
    ]  # fmt: skip
    each = Metering(*parts)
    try:
        for _ in range(3):
            began = time.monotonic()
            found = samples(each.text())
            assert time.monotonic() - began < 2
            assert (value(found, "store_up"), value(found, "rate_limit", account="main")) == (0, 5)
            assert value(found, "mail_waiting") == 0
    finally:
        forever.set()


# ---- the server


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def get(port: int, path: str = "/metrics", host: str = "127.0.0.1", patience: float = 5.0) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=patience) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def served(port: int, path: str = "/metrics", host: str = "127.0.0.1") -> str | None:
    try:
        status, text = get(port, path, host)
    except OSError:
        return None
    return text if status == 200 else None


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.sendall(request)
        answer = b""
        while data := s.recv(65536):
            answer += data
        return answer


def test_the_server_knows_two_paths_and_no_client_hurts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "PATIENCE", 1.0)
    large, port = "x" * 20_000_000, free_port()
    text = ["fine\n"]
    Scrape(Metrics("127.0.0.1", port), lambda: text[0]).start()
    wait_for(lambda: served(port), "the server")
    assert get(port, "/metrics?x=1") == (200, "fine\n") and "/metrics" in get(port, "/")[1]
    assert get(port, "/other")[0] == get(port, "/metrics/")[0] == 404
    assert raw(port, b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert raw(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    head = raw(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.endswith(b"\r\n\r\n") and b"Content-Length: 5\r\n" in head and b"version=0.0.4" in head
    try:
        assert raw(port, b"GET /" + b"a" * 20_000) == b""
    except ConnectionError:
        pass  # it has not read all of that
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * scrape.MOST)]
    text[0] = large
    for each in crowd[::2]:
        try:
            each.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and its answer is never read
        except OSError:
            pass  # made room for another
    text[0] = "fine\n"
    began = time.monotonic()
    assert get(port) == (200, "fine\n") and time.monotonic() - began < 3
    crowd[-1].settimeout(10)
    assert crowd[-1].recv(1) == b""  # too long silent
    for each in crowd:
        each.close()

    def broken() -> str:
        raise RuntimeError

    other = free_port()
    Scrape(Metrics("localhost", other), broken).start()
    wait_for(lambda: raw(other, b"GET / HTTP/1.0\r\n\r\n") if _open(other) else None, "the other server")
    assert get(other)[0] == 500 and get(other, "/")[0] == 200


def _open(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_an_address_that_somebody_else_has_is_said_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scrape, "SILENT", 0.2)
    monkeypatch.setattr(scrape, "RETRY", 0.02)
    theirs = scrape.bound("127.0.0.1", 0)
    port = theirs.getsockname()[1]
    Scrape(Metrics("127.0.0.1", port), lambda: "fine\n").start()
    wait_for(lambda: caplog.records, "an error")
    time.sleep(0.5)
    theirs.close()
    wait_for(lambda: served(port), "the port")
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert errors == [
        f"[metrics] listen 127.0.0.1:{port}: Address already in use; metrics are not served until it can be had"
    ]


# ---- a whole daemon


class Listening(Daemon):
    def listen(self, port: int) -> None:
        """Have it serve there."""
        self.config.write_text(re.sub(r'listen = ".*"', f'listen = "127.0.0.1:{port}"', self.config.read_text()))
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def daemon(port: int, followers: int, **options: Any) -> Listening:
        class Here(Listening):
            ACCOUNT = f'{Daemon.ACCOUNT}\n[metrics]\nlisten = "127.0.0.1:{port}"'

        made.append(Here(tmp_path, followers, **options))
        return made[-1]

    yield daemon
    for each in made:
        each.close()


def stored(d: Daemon) -> Counter[tuple[str, str, str, str]]:
    """What the store says of those who have ended, with the labels of the metric."""
    db = open_store(f"sqlite:///{d.folder}/state/fanoutd.db")
    with db.closing():
        return Counter({
            ("main", channel_name(channel) or "", State(state).word, errcode_word(errcode) or ""): count
            for state, channel, errcode, count in db.rows(
                "SELECT state, channel, errcode, COUNT(*) FROM fanout_delivery GROUP BY state, channel, errcode"
            ) if state not in OPEN
        })  # fmt: skip


def lasting(text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Names and labels of what is always there: a job begins to be when it has run."""
    return {key for key in samples(text) if not key[0].startswith("fanoutd_job_")}


def deliveries(found: Samples) -> Counter[tuple[str, str, str, str]]:
    kinds = ("account", "channel", "state", "errcode")
    return Counter({
        tuple(dict(labels)[kind] for kind in kinds): int(each)  # type: ignore[misc]
        for (name, labels), each in found.items() if name == "fanoutd_deliveries_total"
    })  # fmt: skip


def test_metrics_of_a_campaign_are_what_the_store_says_over_deaths_reloads_and_restarts(
    make: Callable[..., Listening],
) -> None:
    first, second = free_port(), free_port()
    d = make(first, 600, workers=1, concurrency=8, latency="20ms", no_window=0.3, unfollowed=0.1)
    assert not deliveries(samples(wait_for(lambda: served(first), "metrics")))
    for i in range(5):
        d.call("subscriber.opt_out", openid=follower(i))
    silent = [socket.create_connection(("127.0.0.1", first)) for _ in range(50)]

    # A campaign with refusals, people who take nothing, both channels, and a worker that is killed.
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    folder, store = folder_of(d.folder / "state"), f"sqlite:///{d.folder}/state/fanoutd.db"
    wait_for(lambda: read_all(folder).deliveries.total() > 100, "some of them")
    pid = d.workers()[0]["pid"]
    while True:  # who is killed in the microseconds between a commit and its figures has not counted that batch
        stop_between_writes(pid, store)
        if read_all(folder).deliveries == stored(d):
            break
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    counts = d.until(campaign)["counts"]
    text = d.call("daemon.metrics")
    found = samples(text)
    by_state = Counter[str]()
    for (_, _, state, _), count in deliveries(found).items():
        by_state[state] += count
    assert deliveries(found) == stored(d)
    assert by_state == Counter(
        sent=counts["sent_custom"] + counts["sent_template"], failed=counts["failed"], skipped=counts["skipped"],
        unknown=counts["unknown"],
    )  # fmt: skip
    assert counts["skipped"] == 5 and counts["failed"] and counts["sent_template"] and not counts["pending"]
    assert value(found, "worker_restarts_total") == 1
    assert value(found, "campaigns", state="done") == value(found, "store_up") == value(found, "nodes") == 1
    assert 7000 < (value(found, "token_expires_in_seconds", account="main") or 0) <= 7200
    assert value(found, "rate_limit", account="main") == 100_000
    assert value(found, "spool_files") == value(found, "shards", state="pending") == 0
    assert (value(found, "request_duration_seconds_count", account="main", channel="custom") or 0) > 400
    assert campaign not in text and follower(7) not in text
    assert lasting(served(first) or "") == lasting(text) == lasting(d.cli("metrics").stdout)

    # Another port by HUP, and back: the figures stay, the old port is free, the silent ones are gone.
    d.listen(second)
    assert deliveries(samples(wait_for(lambda: served(second), "the new port"))) == deliveries(found)
    wait_for(lambda: not _open(first), "the old port's end")
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: d.call("daemon.status")["generation"] == 3, "the third generation")
    assert value(samples(wait_for(lambda: served(second), "the same port")), "worker_restarts_total") == 1
    for each in silent:
        each.close()

    # And over a restart; the next campaign counts on.
    d.process.terminate()
    d.process.wait(20)
    d.serve()
    found = samples(wait_for(lambda: served(second), "metrics after the restart"))
    assert deliveries(found) == stored(d) and value(found, "worker_restarts_total") == 1
    d.until(d.call("campaign.submit", content="again", phone="1")["campaign"])
    assert deliveries(samples(d.call("daemon.metrics"))) == stored(d)

    # Without [metrics] nobody listens; the socket still tells.
    d.config.write_text(re.sub(r"\[metrics\]\nlisten.*\n", "", d.config.read_text()))
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not _open(second), "the end of the listening")
    assert deliveries(samples(d.call("daemon.metrics"))) == stored(d)
    log = (d.folder / "fanoutd.log").read_text()
    assert "Traceback" not in log and "already in use" not in log
