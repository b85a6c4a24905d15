"""This node's parts of its accounts' rates, where other nodes call for them too: worked out at each beat.

The rules are ``fanoutd.division``'s. What the workers may use is in the bucket (``fanoutd.bucket``): it is lowered
before the store hears of it, and raised after the store has granted it. The rest after 45011 goes the other way: a
worker notes it in its node's bucket, from there it comes into the store, and from the store to all nodes.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from fanoutd.bucket import Bucket, bucket_path, now
from fanoutd.config import Config
from fanoutd.division import CALL, LAST_TERM, TERM, Holder, Share, thousandths, wanted
from fanoutd.pace import HALF, LEAST_HALVED, REST, Pace, restored
from fanoutd.store import Database, StoreBusy, shares
from fanoutd.store.shares import Standing

log = logging.getLogger(__name__)

#: Seconds since a worker last had somebody to call, and since it last could have made many more calls.
_BUSY, _HUNGRY = 2.0, 1.5

#: How long each node in turn has a rate of which not everybody can have a call a second, in milliseconds.
_TURN_MS = 10_000

#: After a lock of another node that did not come, in seconds: its rows are left alone so long, so that beats go on.
_LEFT_ALONE = 5.0

#: Seconds for which the account's lock is waited for: leases are renewed by the same thread.
_PATIENCE = 1

#: A 45011 that all know, heard by several within a second, is one; an older one than this is nobody's news any more.
_SAME_MS, _NEWS = 1000, 300.0

#: Clocks are compared over the network: rests that differ by less are the same, in seconds.
_CLOSE = 0.25


@dataclass(slots=True)
class _Account:
    holder: Holder
    bucket: Bucket
    calls: int
    looked: float
    standing: Standing | None = None
    clock: int = 0
    """The database's time when ``standing`` was read, and ours."""
    read: float = 0.0
    alone_until: float = 0.0


class Parts:
    """``beat`` runs in one thread; ``rate`` may be asked for by any."""

    def __init__(self, config: Config, node: str) -> None:
        self._node = node
        self._accounts: dict[str, _Account] = {}
        self._folder = config.daemon.state_dir
        self._rates = {name: account.rate for name, account in config.accounts.items()}
        self._beating = threading.Lock()
        self._left = False

    def beat(self, db: Database) -> None:
        """Have this node's parts confirmed, changed to what is wanted, and fed to the workers. Raises StoreAway."""
        with self._beating:
            if not self._left:
                self._beat(db)

    def leave(self, db: Database) -> None:
        """The node stops: the other nodes may have its part soon. Raises StoreAway.

        Before the store hears of it the workers' permission is shortened.
        """
        self._left = True
        if not self._accounts or not self._beating.acquire(timeout=1.0):
            return
        try:
            at = now()
            for name, each in self._accounts.items():
                mine = _of(each.standing or Standing(), self._node)
                if mine and self._shorten(each, at):
                    shares.end(db, name, self._node, mine.beat, LAST_TERM)
        finally:
            self._beating.release()

    def rate(self, name: str) -> float | None:
        """Calls a second that all nodes together may make, a rest aside; None: not known yet."""
        account = self._accounts.get(name)
        if account is None or account.standing is None:
            return None
        clock = account.clock / 1000 + now() - account.read
        left = restored(account.standing.halved / 1000, account.standing.rest_until / 1000, clock)
        return account.holder.whole(account.standing.shares) / CALL * left

    def _beat(self, db: Database) -> None:
        if not self._accounts:
            self._begin(db)
        at = now()
        for each in self._accounts.values():
            _look(each, at)
        shares.beat(db, self._node, {name: each.holder.wants for name, each in self._accounts.items()}, TERM)
        clock, found = shares.read(db)
        after = now()
        for name, each in self._accounts.items():
            each.standing, each.clock, each.read = found.get(name, Standing()), clock, after
            each.holder.saw(each.standing.shares, after)
            try:
                self._settle(db, name, each, at)
                self._rest_with_all(db, name, each)
            except StoreBusy as e:
                log.debug("account %s: its rate is not divided anew: %s", name, e)
                each.alone_until = after + _LEFT_ALONE

    def _begin(self, db: Database) -> None:
        shares.begin(db, self._rates)
        for name, rate in self._rates.items():
            bucket = Bucket(bucket_path(self._folder, name), rate, shared=True)
            self._accounts[name] = _Account(Holder(self._node, thousandths(rate)), bucket, bucket.fed().calls, now())

    def _settle(self, db: Database, name: str, account: _Account, at: float) -> None:
        """``at`` is before the store was told that we live: from there on counts what it has said."""
        standing, holder, turn = account.standing or Standing(), account.holder, account.clock // _TURN_MS
        mine = _of(standing, self._node)
        local = min(_part(account), holder.keeps(standing.shares, turn)) if mine else 0
        until = at + TERM if mine else 0.0
        if not account.bucket.feed(local / CALL, until):
            log.warning("account %s: a stopped process holds its bucket; its rate is not divided anew", name)
            return
        began = now()
        if began < account.alone_until or not self._due(standing, holder, local, began, turn):
            return
        db.set_patience(_PATIENCE)
        with db.transaction():
            standing = shares.lock(db, name)
            deed = holder.step(standing.shares, local, began, turn)
            shares.write(db, name, self._node, holder.rate, holder.wants, TERM, deed)
            whole = holder.whole([each for each in standing.shares if each not in deed.gone])
            if whole != standing.rate:  # as after a HUP: what 45011 left was of another rate
                shares.rest(db, name, standing.rest_until, 1000 if standing.rate else standing.halved, whole)
        account.bucket.feed(deed.part / CALL, until or began + TERM)
        for each in deed.gone:
            log.info("account %s: node %s is gone, and its %g calls a second are free", name, each.node,
                     each.part / CALL)  # fmt: skip
        log.debug("account %s: %g of %g calls a second are this node's", name, deed.part / CALL, whole / CALL)

    def _due(self, standing: Standing, holder: Holder, local: int, at: float, turn: int) -> bool:
        return holder.due(standing.shares, local, at, turn) or holder.whole(standing.shares) != standing.rate

    def _rest_with_all(self, db: Database, name: str, account: _Account) -> None:
        """After 45011: what was heard here all others hear, and what was heard there holds here."""
        standing, pace = account.standing or Standing(), account.bucket.pace()
        if standing.rest_until > account.clock + int(REST * 1000) + _SAME_MS:
            return  # the database's clock was set back
        end = account.clock + int((pace.rest - account.read) * 1000)
        if pace.rest > account.read - _NEWS and end > standing.rest_until + _SAME_MS:
            db.set_patience(_PATIENCE)
            with db.transaction():
                there = shares.lock(db, name)
                rest_until, halved = refused(there.rest_until, there.halved, end)
                shares.rest(db, name, rest_until, halved, there.rate)
            standing = account.standing = replace(standing, rest_until=rest_until, halved=halved)
        over = account.read + (standing.rest_until - account.clock) / 1000
        if adopted(pace, over, standing.halved / 1000) != pace:
            account.bucket.adopt(lambda now_there, _at: adopted(now_there, over, standing.halved / 1000))

    def _shorten(self, account: _Account, at: float) -> bool:
        fed = account.bucket.fed()
        return account.bucket.feed(account.bucket.pace().rate, min(fed.until, at + LAST_TERM))


def refused(rest_until: int, halved: int, end: int) -> tuple[int, int]:
    """What is in force for all after a 45011 whose rest ends at ``end``: it halves once, whoever hears it during a
    rest. Milliseconds of one clock; ``halved`` in thousandths."""
    heard = end - int(REST * 1000)
    if heard > rest_until:
        halved = int(1000 * max(LEAST_HALVED, restored(halved / 1000, rest_until / 1000, heard / 1000) * HALF))
    return max(rest_until, end), halved


def adopted(pace: Pace, over: float, halved: float) -> Pace:
    """With a rest that ends for all at ``over``, and what is left of the rate from then on. What was heard here later
    stays; and what differs by no more than a network takes is the same."""
    if pace.rest > over + _SAME_MS / 1000:
        return pace
    same = abs(pace.halved_at - over) <= _CLOSE or halved == 1.0
    if pace.halved == halved and same and pace.rest >= over - _CLOSE:
        return pace
    return replace(pace, rest=max(pace.rest, over), halved=halved, halved_at=over)


def _look(account: _Account, at: float) -> None:
    """What the node could use now, as its workers have noted it."""
    fed, part = account.bucket.fed(), _part(account)
    used = (fed.calls - account.calls) / max(at - account.looked, 0.1) * CALL
    account.calls, account.looked = fed.calls, at
    busy, hungry = at - fed.asked < _BUSY, at - fed.hungry < _HUNGRY
    account.holder.wants = wanted(account.holder.rate, part, used, hungry) if busy else 0


def _part(account: _Account) -> int:
    """What the workers use, in thousandths."""
    return round(account.bucket.pace().rate * CALL)


def _of(standing: Standing, node: str) -> Share | None:
    return next((each for each in standing.shares if each.node == node), None)
