"""What health remembers, as it stands on disk or in the store: what was seen, and what is still to be told.

What is to be told is written down before it is told, and taken out after: a crash in between tells it again, under the
same id.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fanoutd.health import judge
from fanoutd.health.conditions import Key
from fanoutd.health.judge import Finding, Seen
from fanoutd.health.mails import events, short
from fanoutd.mail.event import Event

log = logging.getLogger(__name__)

Tell = Callable[[Event], None]

#: So many events wait at most. There are more only while they can be kept and not told.
_UNTOLD = 5


@dataclass(slots=True)
class Memory:
    """``more``: what a measurement needs to know of the looks before."""

    seen: dict[Key, Seen] = field(default_factory=dict)
    untold: list[Event] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, document: dict[str, Any]) -> Memory:
        """What can be read of it."""
        try:
            untold = [Event(**each) for each in document.get("untold", [])]
        except (TypeError, ValueError):
            untold = []
        more = document.get("more")
        return cls(judge.decode(document.get("seen")), untold, more if isinstance(more, dict) else {})

    def encode(self) -> dict[str, Any]:
        return {"seen": judge.encode(self.seen), "untold": [asdict(each) for each in self.untold], "more": self.more}

    def look(self, node: str, findings: list[Finding], at: int, tell: Tell | None) -> None:
        """Judge what was found. Without ``tell`` there is no mail, and the log has it all."""
        judgement = judge.judge(self.seen, findings, at)
        self.seen = judgement.memory
        for each in judgement.told:
            level = logging.INFO if each.kind in ("well", "unwatched") else logging.WARNING
            log.log(level, "%s%s", short(each), f": {each.words}" if each.words and each.kind != "well" else "")
        if tell is not None:
            self.untold = [*self.untold, *events(node, judgement.told, at)][-_UNTOLD:]

    def speak(self, tell: Tell, save: Callable[[Memory], None]) -> None:
        """Tell what is to be told; ``save`` keeps the memory, before and after. Raises what these raise."""
        save(self)
        if self.untold:
            for each in self.untold:
                tell(each)
            self.untold = []
            save(self)


class File:
    """This node's memory, ``state_dir/health.json``: it outlives the dispatcher, the master and the machine."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "health.json"

    def read(self) -> Memory:
        """An empty one where there is none, or none that can be read."""
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return Memory()
        except (OSError, ValueError) as e:
            log.warning("%s cannot be read (%s): what was told before may be told again", self._path, e)
            return Memory()
        return Memory.decode(document if isinstance(document, dict) else {})

    def write(self, memory: Memory) -> None:
        """All of it or nothing. Raises OSError."""
        half = self._path.with_suffix(".new")
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(json.dumps(memory.encode()).encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(half, self._path)
