"""When what a crontab plans was done last: a chore is done once for all nodes, and once over crashes and set clocks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from fanoutd import cron
from fanoutd.store import meta
from fanoutd.store.database import Database

#: Planned times that are remembered. Those that a wrong clock brought lie in the future, and hold up nothing.
_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """``since``: when the store first knew of the chore; ``done``: planned times that were seen to, the latest last;
    ``begun``: one that is being seen to, by the node ``by``. Times in milliseconds since 1970."""

    since: int
    done: tuple[int, ...] = ()
    begun: int | None = None
    by: str | None = None

    def before(self, at: int) -> int:
        """The last planned time up to then that was seen to; ``since`` when there was none."""
        return max((each for each in (self.since, *self.done) if each <= at), default=at)

    def due(self, line: str, timezone: str, now: int, latest_ms: int) -> int | None:
        """The planned time that must be seen to now, if there is one: of several the last, none that is later than
        ``latest_ms``."""
        planned = cron.latest(line, timezone, max(self.before(now), now - latest_ms), now)
        return None if planned in self.done else planned

    def ended(self, planned: int) -> Mark:
        done = tuple(each for each in self.done if each != planned)
        return replace(self, done=(*done, planned)[-_REMEMBERED:], begun=None, by=None)


def look(db: Database, name: str, now: int) -> Mark:
    """As the store has it. A chore that it has never heard of begins now: nothing of before was missed."""
    text = meta.read(db, _name(name))
    if text is not None:
        return _decoded(text)
    with db.transaction():
        return _decoded(meta.hold(db, _name(name), _encoded(Mark(now))))


def hold(db: Database, name: str) -> Mark | None:
    """For whoever changes it, until the transaction ends; None: there is none."""
    text = meta.hold(db, _name(name), "")
    return _decoded(text) if text else None


def keep(db: Database, name: str, mark: Mark) -> None:
    """In the transaction of ``hold``."""
    meta.write(db, _name(name), _encoded(mark))


def _encoded(mark: Mark) -> str:
    return json.dumps(asdict(mark))


def _decoded(text: str) -> Mark:
    said = json.loads(text)
    return Mark(said["since"], tuple(said["done"]), said["begun"], said["by"])


def _name(name: str) -> str:
    return f"chore {name}"
