"""Whether this node may use its store, and the store is the one that it left: known before anything else is done.

What an earlier store, or a copied state directory, would send a second time is stopped here; see ``epoch`` for how it
is found out, and ``repair`` for what makes it go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fanoutd import identity
from fanoutd.dispatcher import commands
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.epoch import WENT_BACK, Epoch
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.tenure import Tenure
from fanoutd.dispatcher.threads import Threads
from fanoutd.errors import BadConfig
from fanoutd.journal import discredit
from fanoutd.store import Database, StoreAway, campaigns
from fanoutd.store.nodes import NameTaken
from fanoutd.store.schema import migrate, refuse_moved

log = logging.getLogger(__name__)

COPIED = (
    "the state directory is a copy, or came back from a backup; if its original still runs it sends to these people; "
    "when it does not: `fanoutd campaign repair` takes from the journals what was sent, and lets the campaign go on"
)

#: Pause before the store is tried again, in seconds.
_STORE_RETRY = 1.0


class Trust:
    """``master``: its pid; ``say`` speaks to it. ``begin(db)`` is called when the store may be trusted, before anybody
    else hears of it."""

    def __init__(
        self, home: Home, master: int, cluster: Cluster, threads: Threads,
        say: Callable[[dict[str, Any]], None], begin: Callable[[Database], None],
    ) -> None:  # fmt: skip
        self._home, self._master, self._cluster, self._threads = home, master, cluster, threads
        self._say, self._begin = say, begin
        self._epoch = Epoch(home.state_dir, home.node, home.config.store_url)
        self._refused: str | None = None  # why this node may not use its store
        #: Set for good when the store may be used.
        self.given = threading.Event()

    def establish(self) -> None:
        """Try until it is given. Nothing else is done, no question answered and nobody sent to before."""
        while not self.given.is_set():
            try:
                db = self._threads.db()
                self._bring_up(db)
                self._cluster.join(db)
                self._distrust(db)
                self._begin(db)
                self.given.set()
                self._cluster.begin()
            except NameTaken as e:
                file = identity.file_of(self._home.state_dir)
                self._refuse(f"{e}; if it is another machine, stop this daemon, remove {file} and start it again")
                time.sleep(_STORE_RETRY)
            except BadConfig as e:  # nothing else has its turn until the master has ended us
                self._refuse(str(e))
                self._say({"t": "refused", "error": str(e)})
                time.sleep(_STORE_RETRY)
            except (StoreAway, OSError) as e:
                self._threads.store_trouble.away(str(e))
                self._refused = None
                time.sleep(_STORE_RETRY)
            except Exception as e:  # whatever it is, a daemon that gave up here would wait for nobody, for ever
                words = f"the store cannot be used: {type(e).__name__}"
                if words != self._threads.store_trouble.words:
                    log.exception("%s; trying again", words)
                self._threads.store_trouble.away(words)
                self._refused = None
                time.sleep(_STORE_RETRY)

    @property
    def why_not_yet(self) -> str | None:
        """What the daemon waits for before it does anything; None also when nobody knows yet."""
        return None if self.given.is_set() else self._refused or self._threads.store_trouble.words

    def wait(self) -> None:
        """Until it is given. Raises RpcError when this node may not use its store."""
        while not self.given.wait(_STORE_RETRY):
            if self._refused is not None:
                raise RpcError(-32005, self._refused)

    def check(self, db: Database) -> None:
        """Also a store that is replaced while we run: its connection comes back, and it is another. Raises StoreAway,
        OSError."""
        if self._epoch.went_back(db):
            self._went_back(db)
        elif campaigns.in_states(db, "planning", "running"):
            self.advance(db)

    def advance(self, db: Database) -> None:
        """An earlier store than the one of this moment is not believed. Raises StoreAway, OSError."""
        if not self._epoch.advance(db):
            self._went_back(db)

    def leave(self) -> None:
        """A store that is put back while we are away shows an earlier one. Raises StoreAway, OSError."""
        if self.given.is_set():
            self.advance(self._threads.db())

    def _bring_up(self, db: Database) -> None:
        """Raises BadConfig when the tables are a newer program's, and were before this daemon was started."""
        tenure = Tenure(self._home.state_dir, self._master)
        try:
            migrate(db)
            refuse_moved(db)
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

    def _distrust(self, db: Database) -> None:
        """Stop what an earlier store, or a copied state directory, would send a second time. May be repeated."""
        journals, state_dir = self._home.journals, self._home.state_dir
        known = identity.of(state_dir)
        if known.copied and self._cluster.others_live(db) and not self._epoch.journals_know_more(db, journals):
            # Its original's leases and lists are the original's, and it would know if the store had been put back.
            log.warning("the state directory is a copy of node %s's; this is node %s", known.was, self._home.node)
            discredit(journals)
            self._epoch.advance(db, anew=True)
            identity.seen_to(state_dir)
        elif known.copied:
            for campaign in self._home.spool.pending():
                self._home.bring_in(db, campaign)
            _stop_all(db, "copy", COPIED)
            self._epoch.advance(db, anew=True)  # the node is a new one: its store has no past
            identity.seen_to(state_dir)
        elif self._epoch.went_back(db) or self._epoch.journals_know_more(db, journals):
            self._went_back(db)

    def _went_back(self, db: Database) -> None:
        _stop_all(db, "past", WENT_BACK)
        self._epoch.advance(db, anew=True)


def _stop_all(db: Database, cause: str, reason: str) -> None:
    stopped = commands.pause_unfinished(db, cause, reason)
    log.error("%s (%d campaigns)", reason, len(stopped))
