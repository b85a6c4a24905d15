"""Several daemons on one MariaDB: who they are, who leads, what is done once for all of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fanoutd import identity, journal, times
from fanoutd.client import TryAgain
from fanoutd.config import load
from fanoutd.dispatcher import cluster as clusters
from fanoutd.dispatcher.cluster import HOLD_MS, MARGIN_MS, TERM_MS, Cluster
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.repair import repair
from fanoutd.store import Database, campaigns, clock, counters, leases, nodes, open_store, outbox, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.testimony import read
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.mariadb import server
from support.sandbox import SandboxProcess
from support.token_gate import TokenGate

FINISHED = """max_failures = 1
[message.supply.on_finish]
command = ["/bin/sh", "-c", "echo {{campaign}} >> {folder}/finished"]
"""

Make = Callable[..., Daemon]


@pytest.fixture
def url() -> str:
    return server().database()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path / "ledger.jsonl", latency="20ms") as made:
        yield made


@pytest.fixture
def node(tmp_path: Path, url: str, sandbox: SandboxProcess) -> Iterator[Make]:
    """A further node on the store, in a folder of its own."""
    made: list[Daemon] = []

    def make(name: str, followers: int = 0, **how: Any) -> Daemon:
        (tmp_path / name).mkdir(exist_ok=True)
        kind = type("Configured", (Daemon,), {"ACCOUNT": FINISHED.format(folder=tmp_path)})
        made.append(kind(tmp_path / name, followers, sandbox=sandbox, store=url, workers=1, **how))
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.process.terminate()
    for each in made:
        each.close()


def name_of(d: Daemon) -> str:
    name: str = d.call("daemon.status")["node"]
    return name


def seen(d: Daemon) -> dict[str, dict[str, Any]]:
    return {each["node"]: each for each in d.call("daemon.status")["nodes"]}


def leader(d: Daemon) -> str | None:
    return next((name for name, each in seen(d).items() if each["leads"]), None)


def job(d: Daemon, name: str) -> str | None:
    result: str | None = next(each["result"] for each in d.call("daemon.status")["jobs"] if each["name"] == name)
    return result


def fetches(sandbox: SandboxProcess) -> int:
    return sum(sandbox.stats()["token_fetches"].values())


def submit(d: Daemon, **more: Any) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", **more)["campaign"]
    return campaign


def test_three_nodes_know_each_other_and_one_of_them_does_what_is_done_once(
    node: Make, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    began = [node(f"n{i}", 300, wait=False, concurrency=4) for i in range(3)]
    for each in began:
        wait_for(each.ready, "an answer to ping")
    daemons = {name_of(each): each for each in began}
    host = os.uname().nodename
    assert len(daemons) == 3 and all(name.startswith(f"{host}-") for name in daemons)
    for each in began:
        wait_for(lambda each=each: set(seen(each)) == set(daemons), "all to be seen by all", 10)
    wait_for(lambda: leader(began[0]), "one to lead", 10)
    assert len({leader(each) for each in began}) == 1

    # A token for all of them, and after it was revoked another one.
    mine = [submit(each) for each in began]
    wait_for(lambda: len(sandbox.ledger_rows()) > 100, "people to be sent to")
    assert fetches(sandbox) == 1
    sandbox.control("revoke")
    for each, campaign in zip(began, mine, strict=True):
        each.until(campaign)
    assert fetches(sandbox) == 2
    assert began[0].accepted() == {follower(i): 3 for i in range(300)}

    # What is to be done at their ends is done by one, once.
    wait_for(lambda: (tmp_path / "finished").exists() and len((tmp_path / "finished").read_text().split()) == 3, "ends")
    assert sorted((tmp_path / "finished").read_text().split()) == sorted(mine)
    first = daemons.pop(str(leader(began[0])))
    for each in began:
        each.call("daemon.reload")
    after = {wait_for(lambda each=each: leader(each), "one to lead after reloads") for each in began}
    assert after == {name_of(first)}, "whoever reloads does not leave"
    others = list(daemons.values())
    wait_for(lambda: [job(each, "errands") for each in others] == ["not the leader"] * 2, "the others to say so")
    assert job(first, "errands") == "ok"
    wait_for(lambda: all(job(each, "rescue_sweep") == "ok" for each in (first, *others)), "what all do")

    # One that stands still is followed by another, and knows it when it goes on.
    still = first.dispatcher()
    os.kill(still, signal.SIGSTOP)
    second = daemons.pop(str(wait_for(lambda: leader(others[0]) in daemons and leader(others[0]), "another leader")))
    (third,) = daemons.values()
    assert seen(second)[name_of(first)]["heartbeat_age"] > 5
    os.kill(still, signal.SIGCONT)
    wait_for(lambda: job(first, "errands") == "not the leader", "the first one to see that it leads no more")
    assert leader(second) == name_of(second)

    # One that dies is followed by another, and is missed for a while; one that stops is not waited for.
    died, dead = time.monotonic(), name_of(second)
    second.kill_all()
    wait_for(lambda: leader(third) not in (None, dead), "another leader")
    assert time.monotonic() - died < 20
    assert seen(third)[dead]["heartbeat_age"] > 5
    stops, stays = (first, third) if leader(third) == name_of(first) else (third, first)
    gone = name_of(stops)
    stops.close()
    wait_for(lambda: leader(stays) == name_of(stays), "the last one to lead", 4)
    assert set(seen(stays)) == {name_of(stays), dead} and gone != dead
    assert len((tmp_path / "finished").read_text().split()) == 3


def test_a_node_whose_name_another_machine_has_gets_nothing_until_it_takes_a_new_one(
    node: Make, tmp_path: Path, sandbox: SandboxProcess
) -> None:
    for name in ("n1", "n2"):  # as directories that have been on SQLite
        state = tmp_path / name / "state"
        state.mkdir(parents=True)
        identity.of(state)
    first, second = node("n1", 3), node("n2", 3)
    plain = os.uname().nodename
    assert wait_for(lambda: list(seen(first)) == [plain], "the first one to have the name")
    campaign = submit(second)
    with pytest.raises(TryAgain, match=f"node '{plain}' .*has another secret.* remove .*/n2/state/node") as refused:
        second.call("campaign.get", campaign=campaign)
    assert "a p@ss" not in str(refused.value)
    assert second.call("daemon.status")["state"] == "degraded"
    assert sandbox.ledger_rows() == [] and first.campaigns() == []
    second.close()
    (tmp_path / "n2" / "state" / "node").unlink()
    second.serve()
    assert second.until(campaign)["counts"]["sent_custom"] == 3
    assert set(seen(first)) == {plain, name_of(second)} and name_of(second).startswith(f"{plain}-")


def test_a_copied_directory_is_another_node_and_nobody_waits_or_is_sent_to_twice(
    node: Make, tmp_path: Path, sandbox: SandboxProcess
) -> None:
    original = node("n1", 600, concurrency=8)
    campaign = submit(original)
    listed = original.call(
        "campaign.submit", content="x", phone="1", openids=["oLISTED0001"], send_at="2099-01-01T00:00:00+08:00"
    )["campaign"]
    wait_for(lambda: len(sandbox.ledger_rows()) > 100, "people to be sent to")
    copied = tmp_path / "copy"
    shutil.copytree(original.folder, copied, ignore=shutil.ignore_patterns("*.sock", "lock", "*.pid", "node.new"))
    journals = copied / "state" / "journals"
    theirs = {path.name: path.stat().st_ino for path in journal.in_use(journals)}
    assert theirs
    copy = object.__new__(Daemon)
    copy.__dict__.update(original.__dict__)
    copy.folder, copy.socket, copy.config = copied, copied / "state" / "fanoutd.sock", copied / "fanoutd.toml"
    copy.config.write_text(original.config.read_text().replace(str(original.folder), str(copied)))
    copy.serve()
    try:
        assert original.until(campaign)["counts"]["sent_custom"] == 600
        assert wait_for(lambda: len(seen(copy)) == 2, "both to be seen") and name_of(copy) != name_of(original)
        assert copy.call("campaign.get", campaign=listed)["state"] == "scheduled"
        # The copy's own workers, if they had a part in it, have journals too.
        wait_for(lambda: not theirs.items() & {(path.name, path.stat().st_ino) for path in journal.in_use(journals)},
                 "the copied journals to be read", 20)  # fmt: skip
        assert "is a copy of node" in (copied / "fanoutd.log").read_text()
        assert not identity.of(copied / "state").copied
        original.call("campaign.cancel", campaign=listed)
        wait_for(lambda: copy.call("daemon.status")["spool"]["files"] == 0, "the copied list to go", 10)
        assert original.accepted() == {follower(i): 1 for i in range(600)}
    finally:
        copy.process.terminate()
        copy.process.wait(15)


def test_a_node_whose_clock_is_an_hour_ahead_goes_by_the_stores(
    node: Make, tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.set_options(token_life="30m")
    (tmp_path / "ahead").mkdir()
    (tmp_path / "ahead" / "sitecustomize.py").write_text(
        "import time\n_time, _ns = time.time, time.time_ns\n"
        "time.time = lambda: _time() + 3600\ntime.time_ns = lambda: _ns() + 3600 * 10**9\n"
    )
    right = node("n1", 20)
    right.until(submit(right))
    ahead = node("n2", 20, environ={"PYTHONPATH": str(tmp_path / "ahead")})
    wait_for(lambda: len(seen(right)) == 2, "both to be seen", 10)
    due = times.local_ms() + 3_000
    campaign = submit(ahead, send_at=times.iso(due))
    found = ahead.until(campaign)
    assert times.parse_when(found["started_at"]) >= due and found["counts"]["sent_custom"] == 20
    assert abs(times.parse_when(found["created_at"]) - (due - 3_000)) < 3_000
    assert fetches(sandbox) == 1
    for each in (right, ahead):
        assert 1_500 < each.call("daemon.status")["accounts"][0]["token"]["expires_in"] <= 1_800
    assert "3600 s ahead of" in (ahead.folder / "fanoutd.log").read_text()
    assert right.campaigns()[0]["id"] == campaign, "the newest does not come first"


# ---- the parts


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(open_store(url)) as made:
        migrate(made)
        yield made
    times.follow(None)
    clock._read_at = None


def connected(url: str) -> Callable[[], Database]:
    return lambda: open_store(url)


def test_a_leader_stops_by_its_own_clock_before_another_can_begin(
    db: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (Cluster(name, f"secret of {name}", connected(url)) for name in "ab")
    for each in (a, b):
        each.join(db)
        assert not each.knows(0)  # nobody says yet that another one leads
        each._beat(db)
        assert each.knows(0)
    assert a.leads and not b.leads
    began = clusters.uptime_ms()
    monkeypatch.setattr(clusters, "uptime_ms", lambda: began + TERM_MS - MARGIN_MS)
    assert not a.leads, "it acts for longer than it may"
    b._beat(db)
    assert not b.leads, "its lease has not ended in the store"
    db.execute(f"UPDATE fanout_lease SET until = {db.NOW_MS} - 1")
    b._beat(db)
    a._beat(db)
    assert b.leads and not a.leads
    b._leave(db)
    a._beat(db)
    assert a.leads and [each.node for each in nodes.living(db)] == ["a"]


def test_what_has_a_name_is_done_by_one_at_a_time_and_blocks_nobody_for_ever(db: Database, url: str) -> None:
    a, b = (Cluster(name, f"secret of {name}", connected(url)) for name in "ab")
    with a.hold(db, "token x") as mine:
        assert mine
        for other in (a, b):
            with other.hold(db, "token x") as theirs:
                assert not theirs
        with b.hold(db, "token y") as another:
            assert another
    with b.hold(db, "token x") as mine:
        assert mine
        token = b._held["token x"]
        left = db.rows(f"SELECT until - {db.NOW_MS} FROM fanout_lease WHERE name = 'token x'")[0][0]
        assert 0 < left <= HOLD_MS
        db.execute("UPDATE fanout_lease SET until = 0")  # as if it had died, and time had passed
        with a.hold(db, "token x", 1.0) as mine:
            assert mine and a._held["token x"] > token
            assert not leases.renew(db, "token x", "b", token, HOLD_MS)


def test_of_two_that_are_one_disks_image_the_second_is_kept_out_while_the_first_is_heard_of(db: Database) -> None:
    def join(boot: str, secret: str = "s") -> None:
        with db.transaction():
            nodes.join(db, "n", secret, boot, "1")

    join("boot 1")
    join("boot 1")
    with pytest.raises(nodes.NameTaken, match="another machine, or before this one was booted"):
        join("boot 2")
    with pytest.raises(nodes.NameTaken, match="another secret"):
        join("boot 1", "t")
    assert nodes.beat(db, "n", "s", "boot 1", 4) and not nodes.beat(db, "n", "s", "boot 2", 4)
    db.execute("UPDATE fanout_node SET heartbeat = heartbeat - %s", nodes.LIVING_MS)
    join("boot 2")
    assert not nodes.beat(db, "n", "s", "boot 1", 4), "one that stood still goes on under a name that is another's now"
    nodes.leave(db, "n", "s")
    join("boot 3")
    with pytest.raises(nodes.NameTaken, match="another secret"):
        join("boot 3", "t")


def test_an_errand_is_taken_once_however_many_think_that_they_lead(db: Database) -> None:
    with db.transaction():
        outbox.add(db, "on_finish", {"campaign": "c"})
    (one,), (same,) = outbox.due(db), outbox.due(db)
    assert outbox.take(db, one, 60_000) and not outbox.take(db, same, 60_000)
    assert outbox.due(db) == []
    db.execute("UPDATE fanout_outbox SET due = due - 60001")  # who had it is dead
    (again,) = outbox.due(db)
    assert outbox.take(db, again, 60_000) and not outbox.take(db, one, 60_000)


def test_a_copied_journal_is_believed_in_what_it_tells_and_not_in_what_it_leaves_out(tmp_path: Path) -> None:
    for records in (0, 1, 7):
        folder = tmp_path / str(records)
        folder.mkdir()
        written = journal.Journal(folder, "w1")
        for position in range(records):
            written.lease(5, 9, "c")
            written.answer((5, position, 9), 1, journal.tag("o"), 0, 77)
        assert read(written.path.read_bytes()).reliable
        journal.discredit(folder)
        said = read(written.path.read_bytes())
        assert not said.reliable and len(said.calls) == records
        assert all(call.msgid == 77 for calls in said.calls.values() for call in calls)


TOKENS = """
[store]
url = "{store}"
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
api_base = "{url}"
[message.supply]
channels = ["custom"]
[message.supply.custom]
msgtype = "text"
text.content = "{{content}}"
"""


class Nodes:
    """Refreshers of three nodes on one store, and the endpoint that they ask."""

    def __init__(self, folder: Path, url: str, db: Database, gate: TokenGate) -> None:
        self.db, self.gate = db, gate
        (folder / "fanoutd.toml").write_text(TOKENS.format(store=url, url=gate.url))
        (folder / "fanoutd.toml").chmod(0o600)
        self.config = load(folder / "fanoutd.toml", {})
        self.told: list[str] = []
        self.refreshers = [self.start(name) for name in "abc"]
        row = Campaign("c-1", "main", "supply", None, None, None, "running", None, None, 1, None, 1, None, True, "n",
                       "list", {})  # fmt: skip
        with db.transaction():
            campaigns.insert(db, row)

    def start(self, name: str) -> Refresher:
        made = Refresher(self.config, lambda _account: self.told.append(name), hold=Cluster(
            name, name, lambda: pytest.fail("no beat here")).hold)  # fmt: skip
        made.begin(self.db)
        return made

    def fingerprint(self) -> str:
        token = tokens.load(self.db, "main")
        return token.fingerprint if token else ""

    def all_refused(self, reason: str | None = None) -> int:
        """Workers of all three were refused with the token that there is; how many calls that makes."""
        before, refused = len(self.gate.asked), self.fingerprint()

        def on(refresher: Refresher) -> None:
            with closing(open_store(self.config.store_url)) as db:
                refresher.refused(db, "main", refused, reason)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(on, self.refreshers))
        return len(self.gate.asked) - before

    def state(self) -> str:
        found = campaigns.get(self.db, "c-1")
        assert found is not None
        return found.state


@pytest.fixture
def three(tmp_path: Path, url: str, db: Database) -> Iterator[Nodes]:
    gate = TokenGate()
    gate.answers = [good("T-1")]
    made = Nodes(tmp_path, url, db, gate)
    made.refreshers[0].check(db, "main")
    assert len(gate.asked) == 1 and made.told == ["a"]
    yield made
    gate.close()


def good(text: str) -> dict[str, Any]:
    return {"access_token": text, "expires_in": 7200}


def test_a_token_is_fetched_as_often_for_three_nodes_as_for_one(three: Nodes) -> None:
    a, b, c = three.refreshers
    for each in (b, c, b, c):
        each.check(three.db, "main")
        each.follow(three.db)
    assert len(three.gate.asked) == 1 and three.told == ["a", "b", "c"], "each is told of it, once"
    three.gate.answers = [good("T-2")]
    three.told.clear()
    assert three.all_refused() == 1
    assert sorted(three.told) == ["a", "b", "c"], "whoever was refused is told of the new one at once"
    three.gate.answers = [good("T-3")]
    assert three.all_refused() == 0, "it was fetched for a refusal less than 30 s ago"
    three.told.clear()
    a.refresh(three.db, "main")
    for each in (b, c):
        each.follow(three.db)
    assert three.told == ["a", "b", "c"] and len(three.gate.asked) == 3


def test_an_account_that_is_refused_is_in_trouble_on_all_nodes_and_well_again_on_all(three: Nodes) -> None:
    a, b, c = three.refreshers
    three.gate.answers = [{"errcode": 40125, "errmsg": "invalid appsecret"}]
    assert three.all_refused() == 1 and three.state() == "paused"
    for each in (b, c):
        each.check(three.db, "main")  # as who begins to lead does
        each.follow(three.db)
        assert "40125" in each.shown(three.db, "main")["error"] and not each.shown(three.db, "main")["ok"]
    assert len(three.gate.asked) == 2
    three.gate.answers = [good("T-2")]
    three.start("d").check(three.db, "main")  # a dispatcher with the right secret
    assert three.state() == "running"
    a.follow(three.db)
    assert a.shown(three.db, "main")["ok"] and a.shown(three.db, "main")["error"] is None


def test_a_node_that_died_in_a_fetch_keeps_the_others_waiting_for_seconds(three: Nodes) -> None:
    three.gate.answers = [good("T-2")]
    name = f"token {tokens.fingerprint('main')}"
    assert leases.take(three.db, name, "dead", 1_000)
    began = time.monotonic()
    three.refreshers[1].check(three.db, "main")
    three.refreshers[1].refused(three.db, "main", three.fingerprint())
    assert 0.5 < time.monotonic() - began < 5 and len(three.gate.asked) == 2


def test_a_lease_that_no_journal_mentions_is_in_doubt_when_its_campaign_is_repaired(tmp_path: Path) -> None:
    """The original of a copied directory went on after it was copied, and is gone now."""
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as db:
        migrate(db)
        row = Campaign("c-1", "main", "supply", None, None, None, "paused", "copy", "a copy", 1, None, 1, None, True,
                       "gone", "list", {"channels": ["custom"]})  # fmt: skip
        with db.transaction():
            campaigns.insert(db, row)
            db.execute("INSERT INTO fanout_shard (id, campaign, idx, size, next, token, owner, pending, errors) "
                       "VALUES (1, 'c-1', 0, 4, 2, 3, 'gone/w1', 4, '{}')")  # fmt: skip
            db.insert_many("INSERT INTO fanout_delivery (shard, pos, openid) VALUES (%s, %s, %s)",
                           [(1, position, f"oPERSON{position}") for position in range(4)])  # fmt: skip
        (tmp_path / "journals").mkdir()
        repair(db, tmp_path / "journals", "copy", row)
        counts = counters.counts(db, "c-1")
        found = campaigns.get(db, "c-1")
        assert (counts.unknown, counts.pending) == (2, 2) and found is not None and found.state == "running"


def test_a_store_of_one_machine_pays_nothing(tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as db:
        migrate(db)
        alone = Cluster("n", "s", lambda: pytest.fail("a connection"))
        alone.join(db)
        alone.begin()
        with alone.hold(db, "token") as mine:
            assert mine and alone.leads and alone._thread is None
        alone.leave(1.0)
        assert [each["node"] for each in alone.view(db)] == ["n"]
        assert db.rows("SELECT * FROM fanout_node") == db.rows("SELECT * FROM fanout_lease") == []


def test_a_name_of_a_shared_store_is_new_and_its_secret_is_kept(tmp_path: Path) -> None:
    first = identity.of(tmp_path, shared=True)
    assert first.node.startswith(f"{os.uname().nodename[:50]}-") and len(first.secret) == 32
    assert identity.of(tmp_path, shared=True).secret == identity.of(tmp_path).secret == first.secret
    assert first.secret not in repr(first)
    file = identity.file_of(tmp_path)
    said = json.loads(file.read_text())
    file.write_text(json.dumps({key: said[key] for key in said if key != "secret"}))  # of an older version
    renewed = identity.of(tmp_path)
    assert renewed.node == first.node and len(renewed.secret) == 32 and renewed.secret != first.secret
    assert identity.of(tmp_path).secret == renewed.secret and file.stat().st_mode & 0o777 == 0o600
