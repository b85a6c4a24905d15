"""What a connection to the store can do, whichever database it is. What differs between databases is in their modules.

SQL is written with ``%s`` for parameters, as PyMySQL wants it.
"""

from __future__ import annotations

import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from fanoutd.errors import FanoutdError

Row = tuple[Any, ...]
T = TypeVar("T")

#: How often a transaction that another one's sake undid is tried again, and the longest first pause, in seconds.
_TRIES, _PAUSE = 6, 0.02


#: The new row's value, in ``upsert``.
NEW = re.compile(r"\bnew\((\w+)\)")


class StoreAway(FanoutdError):
    """The store cannot be used right now; what was asked may be asked again."""

    exit_code = 69


class StoreBusy(StoreAway):
    """The transaction was undone for another one's sake: a deadlock, a lock that did not come, a row that was there
    already. It may be repeated at once."""


class StoreUnsure(StoreAway):
    """The connection ended in a COMMIT: the transaction is durable, or it is undone, and the store knows which."""


@dataclass(slots=True, eq=False)
class Later:
    """What a statement has come to: looked at, it has been run."""

    run: Callable[[], None]
    found: list[Row] | None = None
    matched: int = 0
    inserted: int = 0

    def rows(self) -> list[Row]:
        if self.found is None:
            self.run()
        if self.found is None:
            raise StoreAway("the transaction in which this was asked has been undone")
        return self.found

    def one(self) -> Row | None:
        found = self.rows()
        return found[0] if found else None

    def count(self) -> int:
        """Rows that its condition matched."""
        self.rows()
        return self.matched


class Database(ABC):
    """A connection of one thread. Never carried over a fork. Every method raises StoreAway."""

    kind: ClassVar[str]
    """``sqlite`` or ``mysql``."""

    shared: ClassVar[bool]
    """Other machines may be on the same store."""

    place: str
    """Where it is, for people: no password."""

    NOW_MS: ClassVar[str]
    """The database's own clock, in milliseconds since 1970, as an SQL expression."""

    LOCK: ClassVar[str]
    """At the end of a SELECT: hold these rows until the transaction ends, and see them as they are."""

    LOCK_SHARED: ClassVar[str]
    """The same, while others may do so too."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, durable when left. Never inside another one."""

    @abstractmethod
    def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; the number of rows that its condition matched."""

    @abstractmethod
    def insert(self, sql: str, *args: Any) -> int:
        """Run an INSERT; the number that the database gave the new row."""

    @abstractmethod
    def insert_many(self, sql: str, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def rows(self, sql: str, *args: Any) -> list[Row]: ...

    @abstractmethod
    def later(self, sql: str, *args: Any) -> Later:
        """Run a statement before any that comes after it, and have what it gives when that is looked at.

        In a transaction a server far away is told of it together with the next one that somebody waits for, or with
        COMMIT: many cost one way there and back. Trouble with it shows then.
        """

    @abstractmethod
    def upsert(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any], also: str = "") -> None:
        """Make the row of this primary key if it is not there, with ``values``; else set them, or what ``also`` says:
        assignments, in which ``new(column)`` is the value that the new row would have had. As ``later``.
        """

    @abstractmethod
    def has_table(self, name: str) -> bool: ...

    @abstractmethod
    def tables(self) -> set[str]:
        """Those whose names begin as ours do."""

    @abstractmethod
    def migrating(self) -> AbstractContextManager[None]:
        """For changes to the tables: one process at a time, and all or nothing where the database can."""

    @abstractmethod
    def define(self, statement: str) -> None:
        """Run CREATE or ALTER of ``schema``; what is there already, of a migration that was cut off, stays."""

    @abstractmethod
    def durability(self) -> str | None:
        """What it may lose of what it called durable, in words for people; None: nothing."""

    @abstractmethod
    def set_patience(self, seconds: int) -> None:
        """How long this connection waits for the locks of others."""

    @abstractmethod
    def close(self) -> None: ...

    def one(self, sql: str, *args: Any) -> Row | None:
        found = self.rows(sql, *args)
        return found[0] if found else None

    def now_ms(self) -> int:
        """The database's clock: the only one by which leases end."""
        return int(self.rows(f"SELECT {self.NOW_MS}")[0][0])

    @contextmanager
    def closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.close()


def again_if_busy(step: Callable[[], T]) -> T:
    """Do it, and once more when its transaction was undone for another one's sake, a few times."""
    for turn in range(_TRIES - 1):
        try:
            return step()
        except StoreBusy:
            time.sleep(random.uniform(0, _PAUSE * 2**turn))
    return step()


def holes(count: int) -> str:
    """``%s, %s, …`` for an IN list."""
    return ", ".join(["%s"] * count)
