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
from fanoutd.dispatcher.epoch import WENT_BACK, Epoch
from fanoutd.dispatcher.errands import Errands
from fanoutd.dispatcher.explain import explain
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.parts import Parts
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.queries import Queries, RpcError, deliveries, known
from fanoutd.dispatcher.receipts import Receipts
from fanoutd.dispatcher.recovery import recover, take_over
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.repair import repair
from fanoutd.dispatcher.shared_work import Means, SharedWork
from fanoutd.dispatcher.subscribers import Subscribers
from fanoutd.dispatcher.templates import Templates
from fanoutd.dispatcher.tenure import Tenure
from fanoutd.dispatcher.threads import Threads
from fanoutd.dispatcher.token_answers import TokenAnswers
from fanoutd.errors import BadConfig, FanoutdError
from fanoutd.journal import discredit, expire
from fanoutd.log import follow as follow_log
from fanoutd.process import die_with_parent
from fanoutd.spool import Spool
from fanoutd.store import Database, StoreAway, again_if_busy, campaigns, nodes, rounds, shards
from fanoutd.store.campaigns import DISTRUSTED, Campaign
from fanoutd.store.nodes import NameTaken
from fanoutd.store.schema import migrate
from fanoutd.times import wall_ms
from fanoutd.worker.tallies import forget

log = logging.getLogger("fanoutd.dispatcher")

COPIED = (
    "the state directory is a copy, or came back from a backup; if its original still runs it sends to these people; "
    "when it does not: `fanoutd campaign repair` takes from the journals what was sent, and lets the campaign go on"
)

#: Pause before the store is tried again, in seconds.
_STORE_RETRY = 1.0
#: Whoever asked has been told long ago that there is no answer, in seconds: with a store that is away the questions
#: that wait would each take their time, and those behind them theirs.
_STALE = 6.0
#: For how long settled journals are kept, in seconds: as long as a backup of the store may be old and repaired.
JOURNALS_KEPT = 172_800.0
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
        self._channel = Channel(child.sock)
        self._say = self._channel.say
        self._threads = Threads(self._config.store_url)
        self._db = self._threads.db
        self._announcer = Announcer(self._journals, self._say)
        # What the store says of a campaign, and what the workers are told of it, change together.
        self._ordering = threading.Lock()
        self._trusted = threading.Event()
        self._planning: set[str] = set()
        self._halting: dict[int, dict[str, Any]] = {}  # asks whose answer waits for the workers
        self._later: dict[str, int] = {}  # when campaigns are due, in milliseconds since 1970
        self._planner = Planner(self._config, self._spool, self._node, self._announcer.work)
        self._cluster = Cluster(
            self._node, identity.of(state_dir).secret, self._db, lambda: self._config.workers.count
        )
        self._refresher = Refresher(self._config, self._token, Alarms(self._token_alarm).set, self._cluster.hold)
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
        self._shared = SharedWork(
            self._node, state_dir, self._spool, Means(self._say, self._announcer.wake, self._resumed, self._ordering)
        )
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
            "recurring": self._submit_recurring,
        }
        self._refused: str | None = None  # why this node may not use its store
        self._durability = Durability(state_dir, child.config.store_url)
        self._epoch = Epoch(state_dir, self._node, child.config.store_url)

    def run(self) -> int:
        """Until the master says stop or is gone. Nothing here needs a farewell: all can be taken up again."""
        die_with_parent(signal.SIGTERM)  # by its default action: nothing here needs a farewell
        self._say({"t": "ready"})
        while True:
            readable = self._channel.wait(self._until_due())
            self._plan_due()
            if not readable:
                continue
            messages = self._channel.hear()
            if messages is None or any(m["t"] == "quit" for m in messages):
                return 0
            if stops := [m for m in messages if m["t"] == "stop"]:
                self._threads.promise(self._threads.desk.submit(self._last_epoch))
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
        elif kind == "ask" and message["method"] == "daemon.status" and (why := self._why_not_yet()):
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
            self._threads.desk.submit(self._import, message["campaign"])
        elif kind == "job":
            self._threads.promise(self._threads.jobs.submit(self._job, message))
        elif kind == "dead":
            self._threads.desk.submit(self._recover)
        elif kind == "token_refused":
            self._threads.tokens.submit(self._token_refused, message)

    def _token(self, account: str) -> None:
        self._say({"t": "token", "account": account})
        self._announcer.announce(self._db())

    # ---- imports, plans, recovery: one thread, one after the other

    def _start(self) -> None:
        """Nothing else is done, no question answered and nobody sent to, before it is known whether to trust."""
        while not self._trusted.is_set():
            try:
                self._bring_up(self._db())
                self._cluster.join(self._db())
                self._distrust()
                self._refresher.begin(self._db())
                self._trusted.set()
                self._cluster.begin()
            except NameTaken as e:
                file = identity.file_of(self._config.daemon.state_dir)
                self._refuse(f"{e}; if it is another machine, stop this daemon, remove {file} and start it again")
                time.sleep(_STORE_RETRY)
            except BadConfig as e:  # nothing else has its turn until the master has ended us
                self._refuse(str(e))
                self._say({"t": "refused", "error": str(e)})
                time.sleep(_STORE_RETRY)
            except (StoreAway, OSError) as e:
                if str(e) != self._threads.store_trouble:  # once, not every second
                    log.warning("%s; trying again until it is there", e)
                self._threads.store_trouble, self._refused = str(e), None
                time.sleep(_STORE_RETRY)
        self._advance(self._db())
        for account in self._config.accounts:
            self._token_alarm(account)
        self._limits.start(self._db())
        self._sweep()

    def _bring_up(self, db: Database) -> None:
        """Raises BadConfig when the tables are a newer program's, and were before this daemon was started."""
        tenure = Tenure(self._config.daemon.state_dir, self._child.master_pid)
        try:
            migrate(db)
            tenure.begin()
        except BadConfig as e:
            if not tenure.begun:
                raise
            log.warning("%s; this daemon goes on as long as it runs", e)

    def _refuse(self, why: str) -> None:
        """This node may not use its store; whoever asks for something is told, and workers get nothing."""
        if self._refused != why:
            log.error("%s", why)
        self._refused = why

    def _distrust(self) -> None:
        """Stop what an earlier store, or a copied state directory, would send a second time. May be repeated."""
        db = self._db()
        state_dir = self._config.daemon.state_dir
        known = identity.of(state_dir)
        if known.copied and self._cluster.others_live(db) and not self._epoch.journals_know_more(db, self._journals):
            # Its original's leases and lists are the original's, and it would know if the store had been put back.
            log.warning("the state directory is a copy of node %s's; this is node %s", known.was, self._node)
            discredit(self._journals)
            self._epoch.advance(db, anew=True)
            identity.seen_to(state_dir)
        elif known.copied:
            for campaign in self._spool.pending():
                bring_in(db, self._spool, self._config, self._node, campaign)
            self._stop_all(db, "copy", COPIED)
            self._epoch.advance(db, anew=True)  # the node is a new one: its store has no past
            identity.seen_to(state_dir)
        elif self._epoch.went_back(db) or self._epoch.journals_know_more(db, self._journals):
            self._went_back(db)

    def _went_back(self, db: Database) -> None:
        self._stop_all(db, "past", WENT_BACK)
        self._epoch.advance(db, anew=True)

    def _advance(self, db: Database) -> None:
        if not self._epoch.advance(db):
            self._went_back(db)

    def _stop_all(self, db: Database, cause: str, reason: str) -> None:
        stopped = commands.pause_unfinished(db, cause, reason)
        log.error("%s (%d campaigns)", reason, len(stopped))

    def _sweep(self) -> None:
        """Take up whatever somebody left: dead workers, files, plans, campaigns at their end."""
        db = self._db()
        self._check_epoch(db)
        self._recover()
        for campaign in self._spool.pending():
            self._import(campaign)
        if db.shared:
            self._take_part_in_repairs(db)
        others = []
        for each in campaigns.in_states(db, "planning", "scheduled", "running"):
            if each.planned:
                with db.transaction():
                    campaigns.finish(db, each.id)
            elif each.node == self._node:
                self._schedule(each)
            else:
                others.append(each)
        if others and db.shared:
            for each in self._shared.inherit(db, others, self._cluster.leads):
                self._schedule(each)
        self._threads.jobs.submit_with_db(self._limits.sweep)
        self._announcer.announce(db)
        self._receipts.settle(db)
        self._durability.look(db)
        self._threads.store_trouble = None

    def _check_epoch(self, db: Database) -> None:
        """Also a store that is replaced while we run: its connection comes back, and it is another."""
        if self._epoch.went_back(db):
            self._went_back(db)
        elif campaigns.in_states(db, "planning", "running"):
            self._advance(db)

    def _last_epoch(self) -> None:
        """A store that is put back while we are away shows an earlier one."""
        if self._trusted.is_set():
            self._advance(self._db())

    def _repair(self, campaign: Campaign) -> str:
        """On the desk, where recovery runs too. Raises RpcError."""
        db = self._db()
        if campaign.state not in ("paused", "cancelled") or campaign.cause not in DISTRUSTED:
            words = f"campaign {campaign.id} needs no repair; it is {campaign.state}"
            raise RpcError(-32003, words, "campaign")
        if not campaign.definition:
            words = f"campaign {campaign.id} asks for what is not configured; put it back, reload, and repair it then"
            raise RpcError(-32003, words, "campaign")
        if not campaign.planned and campaign.state == "paused":
            self._plan_for_repair(db, campaign)
        repair(db, self._journals, self._node, campaign, self._may_have_sent(db))
        return known(db, campaign.id).state

    def _may_have_sent(self, db: Database) -> set[str]:
        """Nodes that may have journals of what an earlier store does not know."""
        if not db.shared:
            return set()
        return nodes.heard_of(db, int(JOURNALS_KEPT * 1000)) - {identity.of(self._config.daemon.state_dir).was or ""}

    def _take_part_in_repairs(self, db: Database) -> None:
        """Of what was ordered on another node; it cannot read our journals."""
        for each in campaigns.in_repair(db):
            heard = campaigns.heard(db, each.id)
            if heard and self._node not in heard.nodes and each.cause in DISTRUSTED:
                self._repair(each)

    def _plan_for_repair(self, db: Database, campaign: Campaign) -> None:
        """Who is in it must be known before the journals can say who was sent to."""
        if campaign.send_at is not None and campaign.send_at > wall_ms():
            return  # nobody can have been sent to
        with db.transaction():
            campaigns.take_in_hand(db, campaign.id, self._node)
        try:
            self._planner.complete(db, self._planner.begin(db, campaign), ("paused",))
        except FanoutdError as e:
            raise RpcError(-32005, f"campaign {campaign.id} cannot be planned to its end: {e}", "campaign") from None

    def _recover(self) -> None:
        recover(self._db(), self._journals, self._node, self._at_any_risk)
        take_over(self._db(), self._node)
        self._announcer.announce(self._db())

    def _at_any_risk(self, account: str) -> bool:
        """Whether the account wants custom messages repeated whose answer was never seen."""
        found = self._config.accounts.get(account)
        return found is not None and found.on_unknown == "resend"

    def _import(self, campaign: str) -> None:
        found = bring_in(self._db(), self._spool, self._config, self._node, campaign)
        if found:
            self._plan_own(found)

    def _plan_own(self, campaign: Campaign) -> None:
        """Another node's plan is not ours."""
        unplanned = not campaign.planned and campaign.state in ("planning", "scheduled", "running")
        if unplanned and campaign.node == self._node:
            self._schedule(campaign)

    def _schedule(self, campaign: Campaign) -> None:
        if campaign.state == "scheduled" and (campaign.send_at or 0) > wall_ms():
            self._later[campaign.id] = campaign.send_at or 0
        elif campaign.id not in self._planning:
            self._planning.add(campaign.id)
            self._threads.checks.submit(self._check, campaign)

    def _check(self, campaign: Campaign) -> None:
        """Nobody is planned who would be sent what does not fit its template."""
        objected = True
        try:
            objected = campaign.state != "running" and self._templates.stop(self._db(), campaign)
        finally:
            if objected:
                self._planning.discard(campaign.id)
        if not objected:
            plans = self._threads.plans if campaign.origin == "query" else self._threads.lists
            plans.submit(self._plan, campaign)

    def _plan(self, campaign: Campaign) -> None:
        self._threads.jobs.submit_with_db(self._limits.begins, campaign.account)
        try:
            room = forecast.room(self._db(), campaign)
            self._planner.plan(self._db(), campaign)
            forecast.warn(self._db(), campaign.id, room)
        finally:
            self._planning.discard(campaign.id)

    def _until_due(self) -> float | None:
        due = min(list(self._later.values()), default=None)
        return None if due is None else max(0.0, (due - wall_ms()) / 1000)

    def _plan_due(self) -> None:
        at = wall_ms()
        for campaign in [each for each, due in list(self._later.items()) if due <= at]:
            del self._later[campaign]
            self._threads.desk.submit(self._due, campaign)

    def _due(self, campaign: str) -> None:
        found = campaigns.get(self._db(), campaign)
        if found:
            self._plan_own(found)

    def _resumed(self, campaign: str) -> None:
        """It was let go on elsewhere."""
        self._threads.desk.submit(self._due, campaign)

    # ---- jobs and tokens

    def _job(self, message: dict[str, Any]) -> None:
        error = said = None
        try:
            self._wait_for_trust()
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

    def _submit_recurring(self) -> None:
        for campaign in recurring.submit_due(self._db(), self._spool, self._config, self._node, wall_ms()):
            self._threads.desk.submit(self._import, campaign)

    def _token_alarm(self, account: str) -> None:
        try:
            self._threads.tokens.submit(lambda: self._refresher.check(self._db(), account))
        except RuntimeError:
            pass  # the process is about to end

    def _token_refused(self, message: dict[str, Any]) -> None:
        self._trusted.wait()
        if message["account"] in self._config.accounts:
            reason, token = message.get("reason"), message.get("token_refused", True)
            self._refresher.refused(self._db(), message["account"], message["token"], reason, token)

    def _why_not_yet(self) -> str | None:
        """What the daemon waits for before it does anything."""
        return None if self._trusted.is_set() else self._refused or self._threads.store_trouble

    def _wait_for_trust(self) -> None:
        """Raises RpcError when this node may not use its store."""
        while not self._trusted.wait(_STORE_RETRY):
            if self._refused is not None:
                raise RpcError(-32005, self._refused)

    # ---- questions

    def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": message["n"]}
        try:
            self._wait_for_trust()
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
            state = self._threads.desk.result(self._repair, campaign)
        self._shared.ordered(db, campaign.id)
        self._go_on(db, campaign.id)
        return state

    def _go_on(self, db: Database, campaign: str) -> None:
        found = campaigns.get(db, campaign)
        if found:
            self._plan_own(found)
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
