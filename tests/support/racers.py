"""Processes that do something to one store at the same moment, each with a connection of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import closing
from threading import Thread
from typing import Any, NoReturn

from fanoutd.store import Database, again_if_busy, open_store
from support import mariadb
from support.bench import wait_for

Step = Callable[[Database], Any]

#: Seconds until a racer that waits for others gives up.
_PATIENCE = 30.0


def race(url: str, *steps: Step) -> list[Any]:
    """What each gives, in their order. They are connected first, and then let go together. Fails as one of them."""
    start = multiprocessing.get_context("fork").Barrier(len(steps))
    racers = []
    for step in steps:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _run(url, step, start, writing)
        os.close(writing)
        racers.append((pid, reading))
    said = []
    for pid, reading in racers:
        with open(reading, "rb") as pipe:
            said.append(pipe.read())
        os.waitpid(pid, 0)
    results = [pickle.loads(each) if each else (False, "it died") for each in said]
    wrong = [words for went_well, words in results if not went_well]
    assert not wrong, "\n".join(wrong)
    return [result for _, result in results]


def _run(url: str, step: Step, start: Any, writing: int) -> NoReturn:
    said: tuple[bool, Any] = (False, "it ended without a word")
    try:
        with closing(open_store(url)) as db:
            start.wait(_PATIENCE)
            said = (True, step(db))
    except BaseException:
        said = (False, traceback.format_exc())
    finally:
        with open(writing, "wb") as pipe:
            pickle.dump(said, pipe)
        os._exit(0)  # whatever the parent has to tidy up is the parent's


def before(db: Database, statement: str | tuple[str, ...], url: str, step: Step) -> Other:
    """Have another connection do ``step`` when ``db`` is about to run what begins with ``statement`` for the first
    time: it has ended, or waits for a lock of ours, when that is run."""
    other = Other(url, step)

    def watch(run: Callable[..., Any]) -> Callable[..., Any]:
        def watched(sql: str, *args: Any) -> Any:
            if sql.startswith(statement) and other.ident is None:
                other.start()
                wait_for(lambda: not other.is_alive() or _waits(), "the other one to end or to wait")
            return run(sql, *args)

        return watched

    for name in {"execute", "rows", "later"} & set(dir(db)):
        setattr(db, name, watch(getattr(db, name)))
    return other


class Other(Thread):
    """Does ``step`` with a connection of its own; ``result`` is what it gave."""

    def __init__(self, url: str, step: Step) -> None:
        super().__init__()
        self._url, self._step = url, step
        self.result: Any = None

    def run(self) -> None:
        with closing(open_store(self._url)) as db:
            self.result = again_if_busy(lambda: self._step(db))


def _waits() -> bool:
    """Whether somebody waits for another's lock on this process's server."""
    return mariadb.server().say("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1] != "0"
