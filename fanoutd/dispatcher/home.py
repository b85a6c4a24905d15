"""What is this node's own: its configuration, its name, and the directories that no other node sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fanoutd.config import Config
from fanoutd.dispatcher.importer import bring_in
from fanoutd.spool import Spool
from fanoutd.store import Database
from fanoutd.store.campaigns import Campaign


@dataclass(frozen=True, slots=True)
class Home:
    """Of one dispatcher, as the configuration of its generation has it."""

    config: Config
    node: str
    spool: Spool

    @property
    def state_dir(self) -> Path:
        return self.config.daemon.state_dir

    @property
    def journals(self) -> Path:
        return self.state_dir / "journals"

    def bring_in(self, db: Database, campaign: str) -> Campaign | None:
        """From the spool into the store (``importer``). Raises ValueError when no campaign's id looks like this."""
        return bring_in(db, self.spool, self.config, self.node, campaign)
