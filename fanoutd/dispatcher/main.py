"""The dispatcher: its parts put together, its loop, which hands each message of the master to a thread, its sweep."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import wait
from typing import Any

from fanoutd import identity
from fanoutd.child import Child
from fanoutd.config import sqlite_path
from fanoutd.dispatcher.alarms import Alarms
from fanoutd.dispatcher.announcer import Announcer
from fanoutd.dispatcher.answers import Answers
from fanoutd.dispatcher.campaign_mails import CampaignMails
from fanoutd.dispatcher.channel import Channel
from fanoutd.dispatcher.chores import Chores
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.digest import Digests
from fanoutd.dispatcher.drop_box import DropBox
from fanoutd.dispatcher.durability import Durability
from fanoutd.dispatcher.errands import Errands
from fanoutd.dispatcher.facts import Facts
from fanoutd.dispatcher.health import Health
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.jobs import Jobs
from fanoutd.dispatcher.limits import Limits
from fanoutd.dispatcher.metering import Metering
from fanoutd.dispatcher.orders import Orders
from fanoutd.dispatcher.parts import Parts
from fanoutd.dispatcher.plan_queue import PlanQueue
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.questions import Questions
from fanoutd.dispatcher.receipts import Receipts
from fanoutd.dispatcher.recovery import recover, take_over
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.refusals import Refusals
from fanoutd.dispatcher.repair_orders import RepairOrders
from fanoutd.dispatcher.restarts import Restarts
from fanoutd.dispatcher.retention import Retention
from fanoutd.dispatcher.scheduled_sync import ScheduledSync
from fanoutd.dispatcher.scrape import Scrape
from fanoutd.dispatcher.shared_work import Means, SharedWork
from fanoutd.dispatcher.status import Status
from fanoutd.dispatcher.subscribers import Subscribers
from fanoutd.dispatcher.templates import Templates
from fanoutd.dispatcher.threads import Threads, each_by_itself
from fanoutd.dispatcher.token_answers import TokenAnswers
from fanoutd.dispatcher.trust import Trust
from fanoutd.figures_file import Meter, folder_of, read_all
from fanoutd.log import follow as follow_log
from fanoutd.mail.postman import Postman
from fanoutd.process import die_with_parent
from fanoutd.spool import Spool
from fanoutd.store import campaigns, finishing, history, shard_leases

#: Seconds for questions and jobs in hand after "stop"; the next dispatcher gets the rest.
_LAST_WORDS = 1.0


def run(child: Child) -> int:
    return Dispatcher(child).run()


class Dispatcher:
    """The parts, put together for one configuration; what they do stands in their modules."""

    def __init__(self, child: Child) -> None:
        config, node, state_dir = child.config, child.node, child.config.daemon.state_dir
        self._child, self._config, self._node = child, config, node
        history.speak_for(node)
        self._spool = spool = Spool(state_dir / "spool")
        self._home = home = Home(config, node, spool)
        for folder in (home.journals, state_dir / "rate"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._channel = Channel(child.sock)
        self._say = say = self._channel.say
        self._facts = Facts(say)
        self._postman = Postman(config, node)
        self._refusals = Refusals(self._postman.tell)
        self._threads = threads = Threads(config.store_url)
        self._db = threads.db
        self._announcer = announcer = Announcer(home.journals, say)
        self._cluster = cluster = Cluster(node, identity.of(state_dir).secret, threads.db, lambda: config.workers.count)
        self._meter = meter = Meter(folder_of(state_dir), "dispatcher")
        # Tokens, rate, quota.
        self._refresher = refresher = Refresher(config, self._renewed, Alarms(self._token_alarm).set, cluster.hold)
        self._limited = False  # what this configuration says of quota and rate is in force
        self._parts = parts = Parts(config, node)
        self._limits = limits = Limits(config, announcer.announce, lambda: cluster.leads, parts.rate)
        # What happens to campaigns.
        planner = Planner(config, spool, node, announcer.work, meter.ended)
        templates = Templates(config.accounts, refresher.check)
        self._trust = trust = Trust(home, child.master_pid, cluster, threads, say, refresher.begin)
        self._repairs = repairs = RepairOrders(home, planner, threads.db)
        self._plan_queue = plan_queue = PlanQueue(home, threads, planner, templates, limits)
        # What the store says of a campaign, and what the workers are told of it, change together.
        ordering = threading.Lock()
        means = Means(say, announcer.wake, plan_queue.look_at, ordering)
        self._shared = shared = SharedWork(node, state_dir, spool, means)
        self._receipts = Receipts(meter.ended)
        mails = CampaignMails(config, self._postman.tell)
        errands = Errands(config, threads.db, threads.promise, lambda: cluster.leads, mails)
        # Refused as the master refuses one whose client has hung up.
        self._drop_box = DropBox(config, spool, lambda one: self._refusals.take({"refusals": [one], "more": 0}))
        for each_beat in (parts.beat, refresher.follow, errands.each_beat, shared.beat):
            cluster.each_beat(each_beat)
        # What the master asks and orders.
        self._durability = Durability(state_dir, config.store_url)
        health = Health(
            config, node, self._facts, child.board, spool, trust, cluster, refresher,
            lambda: read_all(folder_of(state_dir)), self._postman.tell if config.mail else None,
        )  # fmt: skip
        status = Status(config, threads, cluster, refresher, limits, self._durability, self._postman.standing, health)
        subscribers = Subscribers(config, refresher, cluster.hold)
        questions = Questions(home, status, self._receipts, subscribers, TokenAnswers(config, refresher))
        orders = Orders(home, say, announcer, templates, plan_queue, repairs, threads.desk, shared, meter.ended)
        obeyed = shared.until_obeyed if sqlite_path(config.store_url) is None else None
        self._restarts = restarts = Restarts(state_dir / "restarts")
        self._metering = metering = Metering(config, self._facts, threads, trust, status, limits, restarts)
        self._answers = Answers(
            say, threads, trust, status, questions, orders, ordering, obeyed, metering.text, self._postman
        )  # fmt: skip
        old = Retention(config.schedule.retention, threads.db, lambda: cluster.leads)
        digests = Digests(config, node, threads.db, status.of, self._facts.ask, old.kept, self._postman.tell)
        sync = ScheduledSync(config, threads, subscribers.sync)
        chores = Chores(config, node, threads.db, say, {"digest": digests.send, "sync": sync.work})
        self._jobs = Jobs(
            home, say, threads, trust, cluster, refresher, limits, errands, plan_queue, self._sweep, health.look,
            chores, old,
        )  # fmt: skip

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
                began = time.monotonic()
                self._refusals.leave(messages)
                self._postman.leave()
                self._threads.promise(self._threads.desk.submit(self._trust.leave))
                self._threads.keep_promises(_LAST_WORDS)
                if any(m.get("last") for m in stops):
                    wait([self._threads.jobs.submit_with_db(self._parts.leave)], _LAST_WORDS)
                    self._cluster.leave(_LAST_WORDS)
                self._postman.join(max(0.0, _LAST_WORDS - (time.monotonic() - began)))
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
            self._postman.start()
            self._threads.desk.submit(self._start)
            self._threads.upkeep.submit(self._jobs.look_for_missed)
            if self._config.metrics:
                Scrape(self._config.metrics, self._metering.text).start()
        elif kind == "facts":
            self._facts.told(message)
        elif kind == "refusals":
            self._refusals.take(message)
        elif kind == "logs":
            follow_log(message)
        elif kind == "ask":
            self._answers.ask(message)
        elif kind == "halted":
            self._answers.halted(message["n"])
        elif kind == "spool":
            self._threads.desk.submit(self._plan_queue.take_in, message["campaign"])
        elif kind == "job":
            self._threads.promise(self._jobs.pool(message).submit(self._jobs.do, message))
        elif kind == "dead":
            self._threads.desk.submit(self._unpark)
            self._threads.desk.submit(self._recover)
            self._threads.metrics.submit(self._count_restarts)
        elif kind == "token_refused":
            self._threads.tokens.submit(self._token_refused, message)

    def _start(self) -> None:
        self._trust.establish()
        self._trust.advance(self._db())
        for account in self._config.accounts:
            self._token_alarm(account)
        self._sweep()

    def _sweep(self) -> None:
        """Take up whatever somebody left: dead workers, files, plans, campaigns at their end."""
        db = self._db()
        if not self._limited:  # a store that goes away just now would leave the limits of an earlier configuration
            self._limits.start(db)
            self._limited = True
        self._trust.check(db)
        self._recover()
        self._drop_box.empty()
        each_by_itself(self._plan_queue.take_in, self._spool.pending())
        if db.shared:
            self._repairs.take_part(db)
        others = []
        for each in campaigns.in_states(db, "planning", "scheduled", "running"):
            if each.planned:
                with db.transaction():
                    finishing.finish(db, each.id)
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
        self._threads.store_trouble.back()

    def _unpark(self) -> None:
        """A worker of the generation before may have parked shards by its limits, quiet hours say, after they were
        looked at anew."""
        with self._db().transaction():
            for account in self._config.accounts:
                shard_leases.unpark(self._db(), account)

    def _recover(self) -> None:
        recover(self._db(), self._home.journals, self._node, self._at_any_risk, self._meter.ended)
        take_over(self._db(), self._node, self._meter.ended)
        self._announcer.announce(self._db())

    def _count_restarts(self) -> None:
        self._restarts.count(self._facts.ask())

    def _at_any_risk(self, account: str) -> bool:
        """Whether the account wants custom messages repeated whose answer was never seen."""
        found = self._config.accounts.get(account)
        return found is not None and found.on_unknown == "resend"

    def _renewed(self, account: str) -> None:
        self._say({"t": "token", "account": account})
        self._announcer.announce(self._db())

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
