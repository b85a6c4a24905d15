"""The dispatcher's loop: the master's messages, each handed to a small pool of threads."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import nullcontext
from typing import Any

from fanoutd import identity
from fanoutd.child import Child
from fanoutd.config import sqlite_path
from fanoutd.dispatcher import commands, forecast, recurring
from fanoutd.dispatcher.alarms import Alarms
from fanoutd.dispatcher.announcer import Announcer
from fanoutd.dispatcher.channel import Channel
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.durability import Durability
from fanoutd.dispatcher.errands import Errands
from fanoutd.dispatcher.explain import explain
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.parts import Parts
from fanoutd.dispatcher.plan_queue import PlanQueue
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.queries import Queries, RpcError, deliveries, known
from fanoutd.dispatcher.receipts import Receipts
from fanoutd.dispatcher.recovery import recover, take_over
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.repair_orders import JOURNALS_KEPT, RepairOrders
from fanoutd.dispatcher.shared_work import Means, SharedWork
from fanoutd.dispatcher.subscribers import Subscribers
from fanoutd.dispatcher.templates import Templates
from fanoutd.dispatcher.threads import Threads
from fanoutd.dispatcher.token_answers import TokenAnswers
from fanoutd.dispatcher.trust import Trust
from fanoutd.journal import expire
from fanoutd.log import follow as follow_log
from fanoutd.process import die_with_parent
from fanoutd.spool import Spool
from fanoutd.store import Database, StoreAway, again_if_busy, campaigns, rounds, shards
from fanoutd.store.campaigns import DISTRUSTED, Campaign
from fanoutd.times import wall_ms
from fanoutd.worker.tallies import forget

log = logging.getLogger("fanoutd.dispatcher")

#: Whoever asked has been told long ago that there is no answer, in seconds: with a store that is away the questions
#: that wait would each take their time, and those behind them theirs.
_STALE = 6.0
_HALTS = ("campaign.pause", "campaign.cancel")
_ORDERS = (*_HALTS, "campaign.resume", "campaign.retry", "campaign.repair")

#: Jobs that one node does for all; the others are done everywhere.
_ONCE_FOR_ALL = ("token_check", "quota_check", "errands", "recurring")
_NOT_THE_LEADER = "not the leader"

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
        home = Home(child.config, child.node, self._spool)
        self._channel = Channel(child.sock)
        self._say = self._channel.say
        self._threads = Threads(self._config.store_url)
        self._db = self._threads.db
        self._announcer = Announcer(self._journals, self._say)
        # What the store says of a campaign, and what the workers are told of it, change together.
        self._ordering = threading.Lock()
        self._halting: dict[int, dict[str, Any]] = {}  # asks whose answer waits for the workers
        planner = Planner(self._config, self._spool, self._node, self._announcer.work)
        self._cluster = Cluster(
            self._node, identity.of(state_dir).secret, self._db, lambda: self._config.workers.count
        )
        self._refresher = Refresher(self._config, self._token, Alarms(self._token_alarm).set, self._cluster.hold)
        self._trust = Trust(home, child.master_pid, self._cluster, self._threads, self._say, self._refresher.begin)
        self._repairs = RepairOrders(home, planner, self._db)
        self._token_answers = TokenAnswers(self._config, self._refresher)
        self._templates = Templates(self._config.accounts, self._refresher.check)
        self._queries = Queries()
        self._receipts = Receipts()
        self._subscribers = Subscribers(self._config, self._refresher, self._cluster.hold)
        self._outbox = Errands(self._config, self._db, self._threads.promise, lambda: self._cluster.leads)
        self._parts = Parts(self._config, self._node)
        self._limits = Limits(self._config, self._announcer.announce, lambda: self._cluster.leads, self._parts.rate)
        self._cluster.each_beat(self._parts.beat)
        self._cluster.each_beat(self._refresher.follow)
        self._cluster.each_beat(self._outbox.each_beat)
        self._plan_queue = PlanQueue(home, self._threads, planner, self._templates, self._limits)
        self._shared = SharedWork(
            self._node, state_dir, self._spool,
            Means(self._say, self._announcer.wake, self._plan_queue.look_at, self._ordering),
        )  # fmt: skip
        self._cluster.each_beat(self._shared.beat)
        #: What is answered without a campaign at hand: the method's params and the thread's connection in.
        self._questions: dict[str, Callable[[Database, dict[str, Any]], Any]] = {
            "daemon.status": lambda db, _params: self._status(db),
            "campaign.list": self._queries.list,
            "delivery.explain": self._explain,
            "subscriber.event": self._event,
            "subscriber.reply": self._subscribers.reply,
            "subscriber.import": self._subscribers.take_in,
            "subscriber.list": self._subscribers.list,
            "subscriber.get": self._subscribers.get,
            "subscriber.forget": self._subscribers.forget,
            "subscriber.opt_out": self._subscribers.opt_out,
            "subscriber.opt_in": self._subscribers.opt_in,
            "subscriber.sync": self._subscribers.sync,
            "token.get": self._token_answers.get,
            "token.refresh": self._token_answers.refresh,
            "campaign.plan": lambda db, params: forecast.answer(db, self._config, self._spool, self._node, params),
            "recurring.list": lambda db, _params: recurring.catalogue(
                db, self._spool, self._config, self._node, wall_ms()
            ),
            "recurring.remove": lambda db, params: recurring.remove(
                db, self._spool, self._config, self._node, params["recurring"]
            ),
        }
        #: The scheduled jobs, by the name that the clock gives them.
        self._errands: dict[str, Callable[[], None]] = {
            "token_check": self._check_tokens,
            "rescue_sweep": lambda: self._threads.desk.submit(self._sweep).result(),
            "spool_sweep": self._sweep_spool,
            "quota_check": lambda: self._limits.check(self._db()),
            "errands": lambda: self._outbox.work(self._db()),
            "recurring": self._plan_queue.submit_recurring,
        }
        self._durability = Durability(state_dir, child.config.store_url)

    def run(self) -> int:
        """Until the master says stop or is gone. Nothing here needs a farewell: all can be taken up again."""
        die_with_parent(signal.SIGTERM)  # by its default action: nothing here needs a farewell
        self._say({"t": "ready"})
        while True:
            readable = self._channel.wait(self._plan_queue.until_due())
            self._plan_queue.look_at_due()
            if not readable:
                continue
            messages = self._channel.hear()
            if messages is None or any(m["t"] == "quit" for m in messages):
                return 0
            if stops := [m for m in messages if m["t"] == "stop"]:
                self._threads.promise(self._threads.desk.submit(self._trust.leave))
                self._threads.keep_promises(_LAST_WORDS)
                if any(m.get("last") for m in stops):
                    wait([self._threads.jobs.submit_with_db(self._parts.leave)], _LAST_WORDS)
                    self._cluster.leave(_LAST_WORDS)
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
            self._threads.desk.submit(self._start)
        elif kind == "logs":
            follow_log(message)
        elif kind == "ask" and message["method"] == "daemon.status" and (why := self._trust.why_not_yet):
            self._say({"t": "answer", "n": message["n"], "result": self._status_without_store(why)})
        elif kind == "ask" and message["method"] == "subscriber.sync":  # minutes: whoever stops does not wait for it
            self._threads.syncs.submit(self._answer, message)
        elif kind == "ask":
            asks = self._threads.asks
            own = {"token.refresh": self._threads.tokens, "campaign.plan": self._threads.forecasts}
            pool = own.get(message["method"], asks)
            came = time.monotonic() if pool is asks else math.inf
            self._threads.promise(pool.submit(self._answer, {**message, "came": came}))
        elif kind == "halted":
            self._halted(message["n"])
        elif kind == "spool":
            self._threads.desk.submit(self._plan_queue.take_in, message["campaign"])
        elif kind == "job":
            self._threads.promise(self._threads.jobs.submit(self._job, message))
        elif kind == "dead":
            self._threads.desk.submit(self._recover)
        elif kind == "token_refused":
            self._threads.tokens.submit(self._token_refused, message)

    def _token(self, account: str) -> None:
        self._say({"t": "token", "account": account})
        self._announcer.announce(self._db())

    def _start(self) -> None:
        self._trust.establish()
        self._trust.advance(self._db())
        for account in self._config.accounts:
            self._token_alarm(account)
        self._limits.start(self._db())
        self._sweep()

    def _sweep(self) -> None:
        """Take up whatever somebody left: dead workers, files, plans, campaigns at their end."""
        db = self._db()
        self._trust.check(db)
        self._recover()
        for campaign in self._spool.pending():
            self._plan_queue.take_in(campaign)
        if db.shared:
            self._repairs.take_part(db)
        others = []
        for each in campaigns.in_states(db, "planning", "scheduled", "running"):
            if each.planned:
                with db.transaction():
                    campaigns.finish(db, each.id)
            elif each.node == self._node:
                self._plan_queue.add(each)
            else:
                others.append(each)
        if others and db.shared:
            for each in self._shared.inherit(db, others, self._cluster.leads):
                self._plan_queue.add(each)
        self._threads.jobs.submit_with_db(self._limits.sweep)
        self._announcer.announce(db)
        self._receipts.settle(db)
        self._durability.look(db)
        self._threads.store_trouble = None

    def _recover(self) -> None:
        recover(self._db(), self._journals, self._node, self._at_any_risk)
        take_over(self._db(), self._node)
        self._announcer.announce(self._db())

    def _at_any_risk(self, account: str) -> bool:
        """Whether the account wants custom messages repeated whose answer was never seen."""
        found = self._config.accounts.get(account)
        return found is not None and found.on_unknown == "resend"

    # ---- jobs and tokens

    def _job(self, message: dict[str, Any]) -> None:
        error = said = None
        try:
            self._trust.wait()
            if message["name"] in _ONCE_FOR_ALL and not self._cluster.leads:
                said = _NOT_THE_LEADER
            else:
                again_if_busy(self._errands[message["name"]])
        except RpcError as e:
            error = e.message
        except StoreAway as e:
            error = str(e)
        except Exception as e:
            log.exception("job %s failed", message["name"])
            error = type(e).__name__
        self._say({"t": "job", "n": message["n"], "error": error, "said": said})

    def _check_tokens(self) -> None:
        for account in self._config.accounts:
            self._refresher.check(self._db(), account)

    def _sweep_spool(self) -> None:
        self._spool.expire_keys(self._config.schedule.retention)
        self._spool.uploads.expire()
        rounds.tidy(self._db())
        if not any(each.cause in DISTRUSTED for each in campaigns.in_states(self._db(), "paused")):
            expire(self._journals, JOURNALS_KEPT)

    def _token_alarm(self, account: str) -> None:
        try:
            self._threads.tokens.submit(lambda: self._refresher.check(self._db(), account))
        except RuntimeError:
            pass  # the process is about to end

    def _token_refused(self, message: dict[str, Any]) -> None:
        self._trust.given.wait()
        if message["account"] in self._config.accounts:
            reason, token = message.get("reason"), message.get("token_refused", True)
            self._refresher.refused(self._db(), message["account"], message["token"], reason, token)

    # ---- questions

    def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": message["n"]}
        try:
            self._trust.wait()
            if time.monotonic() - message.get("came", math.inf) > _STALE:
                raise StoreAway("the store is slow to answer")
            with self._ordering if message["method"] in _ORDERS else nullcontext():
                answer["result"] = again_if_busy(lambda: self._ask(message["method"], message["params"]))
                if message["method"] in _HALTS:
                    self._halt(answer)
                    return
        except RpcError as e:
            answer["error"] = {"code": e.code, "message": e.message, "data": e.data}
        except StoreAway as e:
            if message["method"] == "daemon.status":
                answer["result"] = self._status_without_store(str(e))
            else:
                answer["error"] = {"code": -32005, "message": f"{e}; try again", "data": None}
        except Exception:
            log.exception("%s failed", message["method"])
            answer["error"] = {"code": -32603, "message": "internal error; the daemon's log says more", "data": None}
        self._say(answer)

    def _halt(self, answer: dict[str, Any]) -> None:
        """The store says that the campaign does not run; the answer goes out when every worker knows it too."""
        self._halting[answer["n"]] = answer
        self._say({"t": "halt", "n": answer["n"], "campaign": answer["result"]["campaign"]})

    def _halted(self, number: int) -> None:
        answer = self._halting.pop(number, None)
        if answer is not None and sqlite_path(self._config.store_url) is None:
            self._threads.promise(self._threads.obeying.submit(self._answer_obeyed, answer))
        elif answer is not None:
            self._say(answer)

    def _answer_obeyed(self, answer: dict[str, Any]) -> None:
        """This node's workers have stopped, and the other nodes' are given the time to."""
        try:
            self._shared.until_obeyed(self._db(), answer["result"]["campaign"])
        finally:
            self._say(answer)

    def _ask(self, method: str, params: dict[str, Any]) -> Any:
        db = self._db()
        if method in self._questions:
            return self._questions[method](db, params)
        campaign = str(params.get("campaign"))
        found = campaigns.get(db, campaign) or self._just_accepted(db, campaign) or known(db, campaign)
        if method == "campaign.deliveries":
            return deliveries(db, found, params)
        if method == "campaign.get":
            return self._queries.get(db, found)
        return {"campaign": found.id, "state": self._order(db, method, found, params)}

    def _event(self, db: Database, params: dict[str, Any]) -> Any:
        return (self._receipts.take if params["event"] == "finish" else self._subscribers.event)(db, params)

    def _explain(self, db: Database, params: dict[str, Any]) -> Any:
        return {"events": explain(db, self._journals, self._node, params["openid"], params["campaign"])}

    def _order(self, db: Database, method: str, campaign: Campaign, params: dict[str, Any]) -> str:
        """What an operator wants of a campaign; its state after it."""
        if method == "campaign.pause":
            return commands.pause(db, campaign)
        if method == "campaign.cancel":
            return commands.cancel(db, campaign)
        if method == "campaign.resolve":
            return commands.settle(db, campaign, params["as"], params["openids"])
        self._say({"t": "unhalt", "campaign": campaign.id})  # before the store says that it runs
        forget(self._config.daemon.state_dir, campaign.id)
        # Its message may be configured again since it came in.
        campaign = bring_in(db, self._spool, self._config, self._node, campaign.id) or campaign
        if method == "campaign.resume":
            self._templates.pass_over(campaign.id)
            state = commands.resume(db, campaign)
        elif method == "campaign.retry":
            state = commands.retry(db, campaign, params["failed"], params["unknown"])
        else:
            state = self._threads.desk.result(self._repairs.carry_out, campaign)
        self._shared.ordered(db, campaign.id)
        self._go_on(db, campaign.id)
        return state

    def _go_on(self, db: Database, campaign: str) -> None:
        found = campaigns.get(db, campaign)
        if found:
            self._plan_queue.plan_own(found)
        self._announcer.announce(db)

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
            "store": {
                "kind": db.kind, "ok": self._threads.store_trouble is None, "latency_ms": round(latency, 2),
                "error": self._threads.store_trouble,
            },
            "accounts": [self._account(db, name) for name in self._config.accounts],
            "shards": {"pending": waiting, "leased": leased},
            "nodes": self._cluster.view(db),
            "promise": self._durability.promise(),
        }

    def _status_without_store(self, why: str) -> dict[str, Any]:
        kind = "sqlite" if sqlite_path(self._config.store_url) else "mysql"
        return {
            "store": {"kind": kind, "ok": False, "latency_ms": None, "error": why},
            "accounts": [], "shards": {"pending": None, "leased": None}, "nodes": [],
            "promise": self._durability.promise(),
        }  # fmt: skip

    def _account(self, db: Database, name: str) -> dict[str, Any]:
        token = self._refresher.shown(db, name)
        return {
            "name": name,
            "token": {key: token[key] for key in ("ok", "expires_in", "source", "error")},
            "rate": self._limits.rate(name),
            "part": self._limits.part(name),
            "quota": self._limits.quota(db, name),
        }
