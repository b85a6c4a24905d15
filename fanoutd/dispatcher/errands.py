"""The outbox worked off: statements and commands on the operator's side, mails to him, in threads of their own.

An errand is gone once it has succeeded and is tried again after a pause until then. One that was under way
when the dispatcher died is begun anew: it may be done twice, and is never forgotten. On a store of several nodes the
leader does them, and takes each before it runs it: one that led, and has not noticed that another does, takes nothing
that is taken.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from fanoutd.config import Config
from fanoutd.dispatcher import finish, statements
from fanoutd.dispatcher.campaign_mails import CampaignMails
from fanoutd.store import Database, StoreAway, campaigns, counters, notices, outbox
from fanoutd.store.campaigns import FINAL
from fanoutd.store.outbox import Errand
from fanoutd.times import sql_now, wall_ms

log = logging.getLogger(__name__)

#: What somebody says of himself: of two such words of one person the later one holds.
_WORDS = ("on_opt_out", "on_opt_in")
#: Errands by the lane that they run in: those about people one after the other, in the order in which they came.
LANES = {"finish": ("on_finish",), "people": (*_WORDS, "on_gone"), "mails": (notices.MAIL, notices.WATCH)}
_THREADS = {"finish": 2, "people": 1, "mails": 1}
#: For how long one that is taken is nobody else's, in milliseconds; renewed with each beat while it is under way.
_TAKEN_MS = 15_000
#: For an account that has left the configuration.
_TIMEZONE = "Asia/Shanghai"


class Errands:
    """``connect`` gives the calling thread's connection; ``promise`` takes what somebody should wait for; ``leads``
    says whether this node is the one that does them."""

    def __init__(
        self, config: Config, connect: Callable[[], Database], promise: Callable[[Future[None]], None],
        leads: Callable[[], bool] = lambda: True, mails: CampaignMails | None = None,
    ) -> None:
        self._mails = mails or CampaignMails(config, None)
        self._leads = leads
        self._under_way: set[int] = set()
        self._config, self._connect, self._promise = config, connect, promise
        self._lanes = {lane: ThreadPoolExecutor(_THREADS[lane], lane) for lane in LANES}
        self._in_hand: dict[str, set[int]] = {lane: set() for lane in LANES}
        self._lock = threading.Lock()
        self._keeping = threading.Lock()  # of ``_under_way`` alone: the beat waits for no store but its own

    def work(self, db: Database) -> None:
        """Begin what is due and not in hand. Raises StoreAway."""
        for lane in LANES:
            self._fill(db, lane)

    def each_beat(self, db: Database) -> None:
        """Those that take their time stay ours. Raises StoreAway."""
        with self._keeping:
            ids = sorted(self._under_way)
        outbox.keep(db, ids, _TAKEN_MS)

    def _fill(self, db: Database, lane: str) -> None:
        with self._lock:
            for errand in outbox.due(db, names=LANES[lane]):
                if errand.id not in self._in_hand[lane]:
                    self._in_hand[lane].add(errand.id)
                    self._promise(self._lanes[lane].submit(self._do, lane, errand))

    def _do(self, lane: str, errand: Errand) -> None:
        """A thread's outermost frame."""
        settled = False
        try:
            db = self._connect()
            if self._take(db, errand):
                self._attempt(db, errand)
            settled = True
        except StoreAway as e:  # it is due still
            log.warning("%s: %s", _title(errand), e)
        except Exception:
            log.exception("%s", _title(errand))
        with self._lock:
            self._in_hand[lane].discard(errand.id)
            empty = not self._in_hand[lane]
        self._let_go(errand)
        if settled and empty:
            self._go_on(db, lane)

    def _take(self, db: Database, errand: Errand) -> bool:
        if not db.shared:
            return True
        if not (self._leads() and outbox.take(db, errand, _TAKEN_MS)):
            return False
        with self._keeping:
            self._under_way.add(errand.id)
        return True

    def _let_go(self, errand: Errand) -> None:
        with self._keeping:
            self._under_way.discard(errand.id)

    def _go_on(self, db: Database, lane: str) -> None:
        """There may be more than were looked at, or one that came of what was just done."""
        if not self._leads():
            return
        try:
            self._fill(db, lane)
        except StoreAway as e:
            log.warning("%s", e)

    def _attempt(self, db: Database, errand: Errand) -> None:
        try:
            said = self._done(db, errand)
        except (statements.NotRun, finish.CommandFailed) as e:
            pause = outbox.pause(errand) // 1000
            log.warning("%s failed, and is tried again in %d s: %s", _title(errand), pause, e)
            self._let_go(errand)  # a beat would put it off for as long as one that is under way
            with db.transaction():
                outbox.failed(db, errand, str(e))
            return
        if said is not None:
            log.info("%s: %s", _title(errand), said)

    def _done(self, db: Database, errand: Errand) -> str | None:
        """What was done, in words for the log; None when nobody needs to know."""
        if errand.name in LANES["mails"]:
            return self._mails.work(db, errand)
        return _finish(self._config, db, errand) if errand.name == "on_finish" else self._person(db, errand)

    def _person(self, db: Database, errand: Errand) -> str | None:
        if not (errand.name in _WORDS and outbox.superseded(db, errand, _WORDS)):
            _tell(self._config, errand.name, errand.payload["account"], errand.payload["openid"])
        with db.transaction():
            outbox.settled(db, errand, _WORDS if errand.name in _WORDS else (errand.name,))
        return None


def _title(errand: Errand) -> str:
    """As the log names it: without the person."""
    campaign = errand.payload.get("campaign")
    return f"{errand.name} of campaign {campaign}" if campaign else errand.name


def _tell(config: Config, name: str, account: str, openid: str) -> None:
    """Run the statement of every audience that has one: the person may be in any of them."""
    values = {"openid": openid, "account": account, "now": sql_now(wall_ms(), _timezone(config, account))}
    for audience in config.audiences.values():
        statement = getattr(audience, name)
        if statement is not None:
            try:
                statements.run(audience.database or config.store_url, statement, values)
            except statements.NotRun as e:
                raise statements.NotRun(f"[audience.{audience.name}] {name}: {e}") from None


def _finish(config: Config, db: Database, errand: Errand) -> str | None:
    """What the message's kind wants done now that the campaign has ended; in words what was done.

    The command is an errand of its own: one that fails does not have the statement run again.
    """
    campaign = campaigns.get(db, errand.payload["campaign"])
    kind = config.messages.get(campaign.message) if campaign else None
    wanted = kind.on_finish if kind else None
    if campaign is None or wanted is None or campaign.state not in FINAL or campaign.definition.get("test"):
        with db.transaction():
            outbox.settled(db, errand, _WORDS if errand.name in _WORDS else (errand.name,))
        return None
    known = finish.facts(campaign, counters.counts(db, campaign.id), _timezone(config, campaign.account))
    if wanted.statement is None or wanted.database is None or errand.payload.get("command_only"):
        if wanted.command:
            finish.run(wanted.command, known)
        with db.transaction():
            outbox.done(db, errand)
        return "the command ended well" if wanted.command else None
    changed = statements.run(wanted.database, wanted.statement, known)
    with db.transaction():
        outbox.done(db, errand)
        if wanted.command:
            outbox.add(db, errand.name, {**errand.payload, "command_only": True})
    return f"the statement changed {changed} rows"


def _timezone(config: Config, account: str) -> str:
    found = config.accounts.get(account)
    return found.timezone if found else _TIMEZONE

