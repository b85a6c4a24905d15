"""The dispatcher's loop: the master's messages, each handed to a small pool of threads.

Imports, plans and recovery run one after the other in their own thread; questions, jobs and
tokens have theirs, so that none starves another. Every thread has its own connection to the store.
"""

from __future__ import annotations

import heapq
import logging
import select
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from fanoutd.child import Child
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.queries import Queries, RpcError, deliveries, known
from fanoutd.dispatcher.recovery import recover
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.lines import LineBuffer, encode
from fanoutd.log import follow as follow_log
from fanoutd.process import die_with_parent
from fanoutd.spool import Spool
from fanoutd.store import Database, StoreAway, campaigns, open_store, shards, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.times import wall_ms

log = logging.getLogger("fanoutd.dispatcher")

#: Pause before the store is tried again, in seconds.
_STORE_RETRY = 1.0
#: Seconds for questions and jobs in hand after "stop"; the next dispatcher gets the rest.
_LAST_WORDS = 1.0


def run(child: Child) -> int:
    return Dispatcher(child).run()


class Dispatcher:
    def __init__(self, child: Child) -> None:
        self._child, self._config, self._node = child, child.config, child.node
        state_dir = child.config.daemon.state_dir
        self._spool = Spool(state_dir / "spool")
        self._journals = state_dir / "journals"
        for folder in (self._journals, state_dir / "rate"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._saying = threading.Lock()
        self._local = threading.local()
        self._migrated = threading.Event()
        self._planning: set[str] = set()
        self._open: set[Future[None]] = set()
        self._later: list[tuple[int, str]] = []  # when campaigns are due, in milliseconds
        self._planner = Planner(self._config, self._spool, self._work)
        self._refresher = Refresher(self._config, self._token)
        self._queries = Queries()
        self._desk = ThreadPoolExecutor(1, "desk")
        self._plans = ThreadPoolExecutor(2, "plan")
        self._asks = ThreadPoolExecutor(2, "ask")
        self._jobs = ThreadPoolExecutor(3, "job")

    def run(self) -> int:
        """Until the master says stop or is gone. Nothing here needs a farewell: all can be taken up again."""
        die_with_parent(signal.SIGTERM)  # by its default action: nothing here needs a farewell
        self._say({"t": "ready"})
        lines = LineBuffer()
        while True:
            readable, _, _ = select.select([self._child.sock], [], [], self._until_due())
            self._plan_due()
            if not readable:
                continue
            data = _receive(self._child)
            messages = lines.messages(data)
            if not data or any(m["t"] == "quit" for m in messages):
                return 0
            if any(m["t"] == "stop" for m in messages):
                wait(self._open, _LAST_WORDS)
                return 0
            self._beat()
            for message in messages:
                self._obey(message)

    def _beat(self) -> None:
        """A sign of life, after which the master can see that this loop does not hang."""
        at = time.monotonic()
        self._child.board.write(self._child.row, campaign=None, sent=0, failed=0, rate=0.0, heartbeat=at)

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "go":  # there are never two dispatchers at work: this one's turn begins here
            self._desk.submit(self._guarded, self._start)
        elif kind == "logs":
            follow_log(message)
        elif kind == "ask":
            self._promise(self._asks.submit(self._guarded, self._answer, message))
        elif kind == "spool":
            self._desk.submit(self._guarded, self._import, message["campaign"])
        elif kind == "job":
            self._promise(self._jobs.submit(self._guarded, self._job, message))
        elif kind == "dead":
            self._desk.submit(self._guarded, self._recover)
        elif kind == "token_refused":
            self._jobs.submit(self._guarded, self._token_refused, message["account"], message["token"])

    def _promise(self, given: Future[None]) -> None:
        """Somebody waits for it: what is begun when we are told to stop is finished, if it does not take long."""
        self._open.add(given)
        given.add_done_callback(self._open.discard)

    def _guarded(self, step: Callable[..., None], *args: Any) -> None:
        """A thread's outermost frame: trouble is logged, the sweeps take up what was left."""
        try:
            step(*args)
        except StoreAway as e:
            log.warning("%s", e)
        except Exception:
            log.exception("%s failed", step.__name__)

    def _say(self, message: dict[str, Any]) -> None:
        with self._saying:
            try:
                self._child.sock.sendall(encode(message))
            except OSError:
                pass  # the master is gone: the loop sees the end of file

    def _work(self, count: int) -> None:
        self._say({"t": "work", "shards": count})

    def _token(self, account: str) -> None:
        self._say({"t": "token", "account": account})
        self._announce(self._db())

    def _db(self) -> Database:
        """This thread's connection."""
        if not hasattr(self._local, "db"):
            self._local.db = open_store(self._config.store_url)
        db: Database = self._local.db
        return db

    # ---- imports, plans, recovery: one thread, one after the other

    def _start(self) -> None:
        while not self._migrated.is_set():
            try:
                migrate(self._db())
                self._migrated.set()
            except StoreAway as e:
                log.warning("%s", e)
                time.sleep(_STORE_RETRY)
        self._sweep()

    def _sweep(self) -> None:
        """Take up whatever somebody left: dead workers, files, plans, campaigns at their end."""
        db = self._db()
        self._recover()
        for campaign in self._spool.pending():
            self._import(campaign)
        for each in campaigns.in_states(db, "planning", "scheduled", "running"):
            if not each.planned and each.node == self._node:
                self._schedule(each)
            elif each.planned:
                with db.transaction():
                    campaigns.finish(db, each.id)
        self._announce(db)

    def _announce(self, db: Database) -> None:
        waiting, _ = shards.totals(db)
        if waiting:
            self._work(waiting)

    def _recover(self) -> None:
        recover(self._db(), self._journals, self._node)
        self._announce(self._db())

    def _import(self, campaign: str) -> None:
        found = bring_in(self._db(), self._spool, self._config, self._node, campaign)
        if found and not found.planned and found.state in ("planning", "scheduled", "running"):
            self._schedule(found)

    def _schedule(self, campaign: Campaign) -> None:
        if campaign.state == "scheduled" and (campaign.send_at or 0) > wall_ms():
            heapq.heappush(self._later, (campaign.send_at or 0, campaign.id))
        elif campaign.id not in self._planning:
            self._planning.add(campaign.id)
            self._plans.submit(self._guarded, self._plan, campaign)

    def _plan(self, campaign: Campaign) -> None:
        try:
            self._planner.plan(self._db(), campaign)
        finally:
            self._planning.discard(campaign.id)

    def _until_due(self) -> float | None:
        return max(0.0, (self._later[0][0] - wall_ms()) / 1000) if self._later else None

    def _plan_due(self) -> None:
        while self._later and self._later[0][0] <= wall_ms():
            _, campaign = heapq.heappop(self._later)
            self._desk.submit(self._guarded, self._due, campaign)

    def _due(self, campaign: str) -> None:
        found = campaigns.get(self._db(), campaign)
        if found and found.state == "scheduled":
            self._schedule(found)

    # ---- jobs and tokens

    def _job(self, message: dict[str, Any]) -> None:
        error = None
        try:
            self._migrated.wait()
            self._run_job(message["name"])
        except StoreAway as e:
            error = str(e)
        except Exception as e:
            log.exception("job %s failed", message["name"])
            error = type(e).__name__
        self._say({"t": "job", "n": message["n"], "error": error})

    def _run_job(self, name: str) -> None:
        if name == "token_check":
            for account in self._config.accounts:
                self._refresher.check(self._db(), account)
        elif name == "rescue_sweep":
            self._desk.submit(self._guarded, self._sweep).result()
        elif name == "spool_sweep":
            self._spool.expire_keys(self._config.schedule.retention)

    def _token_refused(self, account: str, fingerprint: str) -> None:
        self._migrated.wait()
        self._refresher.refused(self._db(), account, fingerprint)

    # ---- questions

    def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": message["n"]}
        try:
            self._migrated.wait()
            answer["result"] = self._ask(message["method"], message["params"])
        except RpcError as e:
            answer["error"] = {"code": e.code, "message": e.message, "data": e.data}
        except StoreAway as e:
            answer["error"] = {"code": -32005, "message": f"{e}; try again", "data": None}
        except Exception:
            log.exception("%s failed", message["method"])
            answer["error"] = {"code": -32603, "message": "internal error; the daemon's log says more", "data": None}
        self._say(answer)

    def _ask(self, method: str, params: dict[str, Any]) -> Any:
        db = self._db()
        if method == "daemon.status":
            return self._status(db)
        if method == "campaign.list":
            return self._queries.list(db, params)
        campaign = str(params.get("campaign"))
        found = campaigns.get(db, campaign) or self._just_accepted(db, campaign) or known(db, campaign)
        if method == "campaign.deliveries":
            return deliveries(db, found, params)
        return self._queries.get(db, found)

    def _just_accepted(self, db: Database, campaign: str) -> Campaign | None:
        """Found from the moment of the answer: it may still lie in the spool."""
        try:
            return bring_in(db, self._spool, self._config, self._node, campaign)
        except ValueError:  # no campaign's id looks like this
            return None

    def _status(self, db: Database) -> dict[str, Any]:
        started = time.monotonic()
        waiting, leased = shards.totals(db)
        latency = (time.monotonic() - started) * 1000
        return {
            "store": {"kind": db.kind, "ok": True, "latency_ms": round(latency, 2)},
            "accounts": [self._account(db, name) for name in self._config.accounts],
            "shards": {"pending": waiting, "leased": leased},
            "nodes": [{"node": self._node, "heartbeat_age": 0.0}],
            "promise": "exact",
        }

    def _account(self, db: Database, name: str) -> dict[str, Any]:
        token = tokens.load(db, name)
        left = (token.expires_at - wall_ms()) / 1000 if token else None
        error = self._refresher.errors.get(name)
        good = left is not None and left > 0 and error is None
        return {
            "name": name,
            "token": {"ok": good, "expires_in": left and round(left), "source": "stable", "error": error},
            "rate": self._config.accounts[name].rate,
            "quota": None,
        }


def _receive(child: Child) -> bytes:
    try:
        return child.sock.recv(1 << 16)
    except ConnectionResetError:
        return b""
