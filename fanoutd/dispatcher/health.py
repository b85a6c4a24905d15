"""The job ``health_check``: look at every condition, judge it, and tell of what has changed.

It must work while the store is away, hangs or is slow: the store and the API are asked in threads of their own, which
may be late. What only the store knows of the whole cluster is judged by the node that leads, and remembered there, so
that another one goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

from fanoutd.board import Board
from fanoutd.config import Config
from fanoutd.dispatcher import measure, measure_api, measure_store
from fanoutd.dispatcher.cluster import Cluster
from fanoutd.dispatcher.facts import Facts
from fanoutd.dispatcher.inquiry import Answer, Inquiry
from fanoutd.dispatcher.measure_api import Probe
from fanoutd.dispatcher.measure_store import Said
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.remembered import File, Memory, Tell
from fanoutd.dispatcher.trust import Trust
from fanoutd.figures import Figures
from fanoutd.health.conditions import CONDITIONS, Key
from fanoutd.health.judge import Finding, Seen
from fanoutd.spool import Spool
from fanoutd.store import Database, StoreAway, again_if_busy, open_store
from fanoutd.times import iso, wall_ms

log = logging.getLogger(__name__)

#: Seconds for an answer of store or API, which has to be there before the next look.
_PATIENCE = (1.5, 5.0)

#: Seconds for which the cluster's turn is waited for: it goes on by itself, and this node's own must not be late.
_SHORTLY = 0.5

#: After the store was away other nodes' signs of life are older than they should be, for so many seconds.
_SETTLED = 20.0


class Health:
    """``look`` runs in one thread, ``view`` may be asked for by any. ``tell``: where mail goes, None without any.

    ``figures`` are what the node's workers have counted.
    """

    def __init__(
        self, config: Config, node: str, facts: Facts, board: Board, spool: Spool, trust: Trust, cluster: Cluster,
        refresher: Refresher, figures: Callable[[], Figures], tell: Tell | None,
    ) -> None:  # fmt: skip
        self._config, self._node, self._facts, self._board, self._spool = config, node, facts, board, spool
        self._trust, self._cluster, self._refresher, self._tell = trust, cluster, refresher, tell
        low, high = _PATIENCE
        self._patience = min(high, max(low, config.schedule.health_check))
        self._file = File(config.daemon.state_dir)
        self._memory = self._file.read()
        self._unsaved: str | None = None
        self._deaths = _deaths(self._memory)
        self._clock = measure.Clock()
        self._recent = measure_api.Recent(figures)
        self._store = Inquiry(self._ask_store, "health store")
        self._cluster_turn = Inquiry(self._judge_cluster, "health cluster")
        self._apis = {
            account.api_base: Inquiry[Probe](partial(measure_api.probe, account), "health api")
            for account in config.accounts.values()
        }
        #: Why the store was of no use at the last look, None if it was.
        self.store_trouble: str | None = None
        self._store_well_since: float | None = None
        self._shared_view: Mapping[Key, Seen] = {}
        self._shared_known = False
        self._view = self._local_view(looked=False)

    def view(self) -> list[dict[str, Any]]:
        """The status's ``conditions``: [{name, account, state, since, words}], the worst first. Before the first look
        only what was broken when this node last looked."""
        return self._view

    def look(self) -> None:
        """One look at everything."""
        self._store.ask()
        for api in self._apis.values():
            api.ask()
        facts = self._facts.ask()
        store = self._store.answer(self._patience)
        probes = {base: api.answer(self._patience) for base, api in self._apis.items()}
        at = wall_ms()
        findings = [*self._of_store(store), *self._of_apis(store.value, probes), *self._of_node(facts, store.value, at)]
        findings.append(self._of_clock(store.value, probes))
        self._judge_local(self._watched(findings), at)
        if store.value is not None and store.value.memory is not None:
            self._follow_cluster(store.value.memory)
        self._view = self._local_view(looked=True)

    # ---- what is found

    def _ask_store(self) -> Said:
        """In a thread of its own, on a connection of its own: whether one can be had is a part of the answer."""
        submissions: list[str] = []
        with suppress(OSError):  # no descriptor left, say: that is not the store's
            submissions = self._spool.pending()
        with closing(open_store(self._config.store_url)) as db:
            return again_if_busy(
                lambda: measure_store.ask(db, self._node, self._trust.given.is_set(), submissions)
            )

    def _of_store(self, answer: Answer[Said]) -> list[Finding]:
        why = self._trust.why_not_yet
        if answer.error is not None:
            known = isinstance(answer.error, StoreAway)
            why = str(answer.error) if known else type(answer.error).__name__
            if not known:
                log.warning("the store could not be looked at", exc_info=answer.error)
        found = measure_store.reachable(why, answer.late)
        self.store_trouble = found.words or None
        if found.bad:
            self._store_well_since = None
        elif self._store_well_since is None:
            self._store_well_since = time.monotonic()
        return [found, measure_store.slow(answer.value, self._config.health.store_latency)]

    def _of_apis(self, said: Said | None, probes: Mapping[str, Answer[Probe]]) -> list[Finding]:
        findings, recent = list[Finding](), Figures()
        with suppress(OSError):
            recent = self._recent.look()
        waits = said.waits if said is not None and self._cluster.leads else {}
        for name, account in self._config.accounts.items():
            answer = probes[account.api_base]
            findings += [
                measure_api.reachable(account, answer, waits.get(name)),
                measure_api.errors(name, recent, self._config.health.api_errors),
                measure_api.slow(name, recent, answer, self._config.health.api_latency),
            ]
        return findings

    def _of_node(self, facts: dict[str, Any] | None, said: Said | None, at: int) -> list[Finding]:
        """What the master knows, and what this machine shows; a master that says nothing now says it next time."""
        health, late = self._config.health, self._board.late()
        findings = [measure.disk(self._config), self._of_spool(said)]
        if facts is None:
            return findings + [Finding(Key(name), None) for name in ("workers", "memory", "records_late", "reload")]
        rows = facts["workers"]
        self._deaths.look(facts["started_at"], rows, at)
        return [
            *findings, measure.workers(self._deaths, rows, health.restarts), measure.memory(rows, self._config),
            measure.records_late(late, rows, health.record_lag), measure.reload(facts["reload"]),
        ]  # fmt: skip

    def _of_spool(self, said: Said | None) -> Finding:
        if said is None or said.memory is None:
            return Finding(Key("spool"), None)
        try:
            ages = self._spool.ages(time.time())
        except OSError:
            return Finding(Key("spool"), None)
        return measure.spool(ages, said.unknown, self._config.health.spool_age)

    def _of_clock(self, said: Said | None, probes: Mapping[str, Answer[Probe]]) -> Finding:
        others = {"the store's": None if said is None else said.ahead}
        for account in self._config.accounts.values():
            value = probes[account.api_base].value
            others[f"the API's of account {account.name}"] = None if value is None else value.ahead
        return self._clock.look(others, self._config.health.clock_off)

    def _watched(self, findings: list[Finding]) -> list[Finding]:
        return [each for each in findings if each.key.name not in self._config.health.off]

    # ---- what is made of it

    def _judge_local(self, findings: list[Finding], at: int) -> None:
        memory = self._memory
        memory.look(self._node, findings, at, self._tell)
        memory.more = {"began": self._deaths.began, "counts": self._deaths.counts, "deaths": self._deaths.deaths}
        memory.speak(self._tell or _nobody, self._save)

    def _save(self, memory: Memory) -> None:
        """What cannot be written is told all the same: a full disk is news. This process knows that it was told."""
        try:
            self._file.write(memory)
            self._unsaved = None
        except OSError as e:
            if self._unsaved != e.strerror:
                log.warning("%s: %s; the next dispatcher may tell again what was told", e.filename, e.strerror)
            self._unsaved = e.strerror

    def _follow_cluster(self, document: dict[str, Any]) -> None:
        """What is the whole cluster's: judged here if this node leads, else as the one that does has left it."""
        if self._cluster.leads:
            self._cluster_turn.ask()
            done = self._cluster_turn.answer(_SHORTLY)
            if done.error is not None and not isinstance(done.error, StoreAway):
                log.warning("the cluster's health could not be looked at", exc_info=done.error)
            if done.value is not None:
                self._shared_view = done.value.seen
        else:
            self._shared_view = Memory.decode(document).seen

    def _judge_cluster(self) -> Memory:
        """In a thread of its own. Raises StoreAway."""
        with closing(open_store(self._config.store_url)) as db:
            memory = Memory.decode(measure_store.read_memory(db))
            progress: dict[str, list[int]] = memory.more.setdefault("progress", {})
            well = self._store_well_since
            steady = well is not None and time.monotonic() - well > _SETTLED
            findings = self._watched(
                measure_store.cluster(db, self._config, self._refresher, self._node, progress, steady)
            )
            memory.look(self._node, findings, wall_ms(), self._tell)
            memory.speak(self._tell or _nobody, lambda m: _keep(db, m))
            return memory

    # ---- what is shown

    def _local_view(self, looked: bool) -> list[dict[str, Any]]:
        seen = {**self._memory.seen, **self._shared_view}
        shown = sorted(((key, each) for key, each in seen.items() if looked or each.broken), key=lambda x: x[0].rank)
        return [_shown(key, each) for key, each in shown]


def _shown(key: Key, seen: Seen) -> dict[str, Any]:
    state = "broken" if seen.broken else "unknown" if seen.unknown else "ok"
    words = None
    if seen.broken:
        broken = key.say(CONDITIONS[key.name].broken)
        words = f"{broken}: {seen.words}" if seen.words else broken
    return {"name": key.name, "account": key.account, "state": state, "since": iso(seen.since), "words": words}


def _keep(db: Database, memory: Memory) -> None:
    again_if_busy(lambda: measure_store.write_memory(db, memory.encode()))


def _deaths(memory: Memory) -> measure.Deaths:
    """As the dispatcher before us knew them."""
    more = memory.more
    try:
        return measure.Deaths(str(more["began"]), dict(more["counts"]), [(int(at), str(n)) for at, n in more["deaths"]])
    except (KeyError, TypeError, ValueError):
        return measure.Deaths()


def _nobody(_event: object) -> None:
    """There is no mail."""
