"""How often workers were started again after a death, since the node was set up: a figure that never falls.

The master counts by slot, from its own start on, and forgets a slot that is scaled away. Here what it says is added up
and kept in a file of the state directory.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """``total``, and by slot what the daemon that started at ``since`` has said last."""

    total: int = 0
    since: str = ""
    seen: Mapping[str, int] = field(default_factory=dict)

    def after(self, since: str, rows: Iterable[Mapping[str, Any]]) -> Counted:
        """With what the master says now: the status's ``started_at`` and rows of workers."""
        before = self.seen if since == self.since else {}
        seen: dict[str, int] = {}
        for row in rows:
            if row["role"] == "worker":  # two rows while one replaces another, who has taken the count over
                slot = str(row["slot"])
                seen[slot] = max(seen.get(slot, 0), row["restarts"])
        grown = sum(count - before.get(slot, 0) if count >= before.get(slot, 0) else count
                    for slot, count in seen.items())  # fmt: skip
        return Counted(self.total + grown, since, seen)


class Restarts:
    """``file`` is only the dispatcher's whose turn it is. May be used by several threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._counted: Counted | None = None
        self._complained = False

    def count(self, facts: Mapping[str, Any] | None) -> int:
        """The total, with what the master says now; None: it says nothing."""
        with self._lock:
            before = self._counted or self._load()
            after = before if facts is None else before.after(facts["started_at"], facts["workers"])
            if after != before:
                self._keep(after)
            self._counted = after
            return after.total

    def _load(self) -> Counted:
        try:
            said = json.loads(self._file.read_bytes())
            return Counted(int(said["total"]), str(said["since"]), dict(said["seen"]))
        except FileNotFoundError:
            return Counted()
        except (OSError, ValueError, KeyError, TypeError) as e:
            log.warning("%s cannot be read, and is begun anew: %s", self._file, e)
            return Counted()

    def _keep(self, counted: Counted) -> None:
        half = self._file.with_suffix(".tmp")
        said = {"total": counted.total, "since": counted.since, "seen": dict(counted.seen)}
        try:
            half.write_text(json.dumps(said))
            os.rename(half, self._file)
        except OSError as e:
            if not self._complained:
                log.warning("%s: %s; restarts are counted from the last start of the daemon", self._file, e.strerror)
            self._complained = True
