"""The clock: APScheduler without a thread, polled by the master's loop.

The executor runs nothing. It queues a job's name for the dispatcher and reports success, error or
death when that is known, so that max_instances, coalesce and misfires mean what APScheduler says.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import BaseScheduler

from fanoutd.chores import LATEST, lines
from fanoutd.config import Config, Schedule
from fanoutd.master.takeover import Document
from fanoutd.master.timing import Crontab, Every

_LONGEST = 2.0  # seconds between two looks at the wall clock, which may be set at any time
_STEP = 60.0  # a wall clock that moved so much more or less than the monotonic one was set


@dataclass(frozen=True, slots=True)
class Due:
    """A job whose time has come, for the dispatcher. ``begun``: when it was handed over, by CLOCK_MONOTONIC."""

    number: int
    name: str
    run_time: datetime
    begun: float = 0.0

    def message(self) -> dict[str, Any]:
        return {"t": "job", "n": self.number, "name": self.name}


@dataclass(frozen=True, slots=True)
class JobView:
    """For the status: times are ISO 8601; ``last`` is when the last run ended, ``duration_ms`` how long it took.
    ``result`` is null (never ran), ``ok`` or other words, ``not the leader`` (another node does it), or what went
    wrong."""

    name: str
    next: str | None
    last: str | None
    result: str | None
    duration_ms: int | None = None


class _Names(BaseExecutor):  # type: ignore[misc]
    """Accepts always: a job that a submit refuses is lost (APScheduler's _process_jobs)."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[Due] = deque()
        self.handed: dict[int, Due] = {}
        self._numbers = count(time.monotonic_ns())  # none is given twice, even by another program in our place

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self.waiting.append(Due(next(self._numbers), job.id, run_times[-1]))

    def finish(self, due: Due, error: str | None, said: str | None) -> None:
        """Give the job's slot back and tell the listeners; ``_run_job_error`` would only log."""
        code = EVENT_JOB_EXECUTED if error is None else EVENT_JOB_ERROR
        failure = None if error is None else RuntimeError(error)
        event = JobExecutionEvent(code, due.name, "default", due.run_time, retval=said, exception=failure)
        self._run_job_success(due.name, [event])


class _Polled(BaseScheduler):  # type: ignore[misc]
    """Has no loop of its own: asked when it wants to be woken."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.due = 0.0

    def _create_lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # one thread

    def wakeup(self) -> None:
        self.due = 0.0

    def shutdown(self, wait: bool = True) -> None:
        super().shutdown(wait)

    def poll(self, now: float) -> None:
        if now >= self.due:
            wait = self._process_jobs()
            self.due = now + min(_LONGEST, _LONGEST if wait is None else wait)


def _named() -> None:
    """Every job's function, in name only: what it does is the dispatcher's."""


#: Seconds between two looks at the spool's old markers, and at what dead workers left.
_SPOOL_SWEEP, _RESCUE_SWEEP = 30.0, 5.0
#: The same for what is to be done on the operator's side, and for campaigns that come again.
_ERRANDS, _RECURRING = 2.0, 10.0

#: Seconds between two questions for what WeChat has counted of the day's calls.
_QUOTA_CHECK = 600.0
#: The same for what is older than it shall be kept; and until the first look after a start.
_RETENTION, _FIRST_RETENTION = 3600.0, 60.0

Timetable = Mapping[str, Every | Crontab]
"""A job's name -> when it runs."""


def intervals_of(schedule: Schedule) -> dict[str, float]:
    """The jobs that there are: name -> seconds between two runs."""
    return {
        "health_check": schedule.health_check, "token_check": schedule.token_check,
        "spool_sweep": _SPOOL_SWEEP, "rescue_sweep": _RESCUE_SWEEP,
        "quota_check": _QUOTA_CHECK, "errands": _ERRANDS, "recurring": _RECURRING,
    }  # fmt: skip


def timetable(config: Config) -> Timetable:
    """The jobs that there are. What a crontab plans the dispatcher asks for again when its time was missed."""
    schedule = config.schedule
    return {
        **{name: Every(seconds) for name, seconds in intervals_of(schedule).items()},
        "retention": Every(_RETENTION, _FIRST_RETENTION),
        **{name: Crontab(line, schedule.timezone, LATEST) for name, line in lines(config).items()},
    }


class Clock:
    """``now`` is CLOCK_MONOTONIC throughout."""

    def __init__(self, timetable: Timetable, now: float) -> None:
        self._names = _Names()
        self._scheduler = _Polled(
            jobstores={"default": MemoryJobStore()}, executors={"default": self._names}, timezone=UTC
        )
        self._scheduler.add_listener(self._ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        self._results: dict[str, tuple[datetime, str, int | None]] = {}
        self._took = 0
        self._offset = time.time() - now
        self._timetable: dict[str, Every | Crontab] = {}
        self._scheduler.start()
        self.change(timetable)

    def change(self, timetable: Timetable) -> None:
        """As a new configuration says. What is as it was keeps its next run and what it has running."""
        for name in self._timetable.keys() - timetable.keys():
            self._scheduler.remove_job(name)
        for name, when in timetable.items():
            if name not in self._timetable:
                self._add(name, when)
            elif when != self._timetable[name]:
                self._scheduler.reschedule_job(name, trigger=when.trigger())
        self._timetable = dict(timetable)

    def _add(self, name: str, when: Every | Crontab) -> None:
        first = {} if when.first is None else {"next_run_time": datetime.now(UTC) + timedelta(seconds=when.first)}
        # A run that waits for a dispatcher grows late, where APScheduler does not look any more: see ``take``.
        self._scheduler.add_job(
            _named, when.trigger(), id=name, name=name, max_instances=1, coalesce=True,
            misfire_grace_time=None if when.grace is None else int(when.grace), **first,
        )  # fmt: skip

    def soon(self, name: str) -> None:
        """Let it become due now, if there is such a job; its further runs stay where they are."""
        if name in self._timetable:
            self._scheduler.get_job(name).modify(next_run_time=datetime.now(UTC))

    def poll(self, now: float) -> None:
        """Let what is due become due. A job that waits or runs is not due a second time."""
        self._follow_steps(now)
        self._scheduler.poll(now)

    def take(self) -> list[Due]:
        """The jobs to hand to the dispatcher. Each must come back through ``finished`` or ``lost``."""
        begun = time.monotonic()
        due = [replace(each, begun=begun) for each in self._names.waiting]
        self._names.waiting.clear()
        self._names.handed.update((each.number, each) for each in due)
        missed = {each.number: words for each in due if (words := self._too_late(each))}
        for number, words in missed.items():
            self.finished(number, words)
        return [each for each in due if each.number not in missed]

    def _too_late(self, due: Due) -> str | None:
        when = self._timetable.get(due.name)
        late = (datetime.now(UTC) - due.run_time).total_seconds()
        if when is None or when.grace is None or late <= when.grace:
            return None
        return f"missed: nobody could do it for {late / 3600:.0f} hours"

    def deadline(self) -> float:
        """When to poll again, at the latest."""
        return float(self._scheduler.due)

    def finished(self, number: int, error: str | None, said: str | None = None) -> None:
        """The dispatcher's word on a job: why it failed, or what there was to say when all is well. One of a
        dispatcher that has died since is not known any more."""
        due = self._names.handed.pop(number, None)
        if due:
            self._took = round((time.monotonic() - due.begun) * 1000)
            self._names.finish(due, error, said)

    def lost(self, words: str, again: bool = False) -> None:
        """Nobody will speak for the jobs that were handed over; ``again``: the next dispatcher gets them."""
        if again:
            self._names.waiting.extendleft(reversed(self._names.handed.values()))
            self._names.handed.clear()
        for number in list(self._names.handed):
            self.finished(number, words)

    @property
    def idle(self) -> bool:
        """Nothing that was handed over is still to be heard of."""
        return not self._names.handed

    def bequeath(self) -> Document:
        """For the program that takes over: how each job went last."""
        return {name: [last.isoformat(), words, took] for name, (last, words, took) in self._results.items()}

    def inherit(self, document: Document) -> None:
        self._results = {
            name: (datetime.fromisoformat(last), words, took[0] if took else None)  # a program before us kept no time
            for name, (last, words, *took) in document.items()
        }

    def jobs(self) -> list[JobView]:
        """All jobs in the order of their next run."""
        return [self._view(job) for job in self._scheduler.get_jobs()]

    def _view(self, job: Any) -> JobView:
        last, result, took = self._results.get(job.id, (None, None, None))
        return JobView(job.id, _iso(job.next_run_time), _iso(last), result, took)

    def _ended(self, event: Any) -> None:
        words = event.retval or "ok" if event.exception is None else str(event.exception)
        self._results[event.job_id] = (datetime.now(UTC), words, self._took)

    def _follow_steps(self, now: float) -> None:
        """A wall clock that was set back would make every job late, one set far ahead would have each
        missed run counted up: start them anew instead. What a crontab plans stays planned by the clock on the wall."""
        offset = time.time() - now
        if abs(offset - self._offset) > _STEP:
            at = datetime.now(UTC)
            for job in self._scheduler.get_jobs():
                planned = isinstance(self._timetable[job.id], Crontab)
                following = job.trigger.get_next_fire_time(None, at) if planned else at + timedelta(seconds=_LONGEST)
                job.modify(next_run_time=following)
        self._offset = offset


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat(timespec="milliseconds")
