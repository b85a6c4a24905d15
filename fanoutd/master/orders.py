"""What people order a living daemon to do, by signals and through the socket."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Callable

from fanoutd import log
from fanoutd.config import Config, load
from fanoutd.errors import BadConfig
from fanoutd.master import launch
from fanoutd.master.children import Children
from fanoutd.master.crew import Crew
from fanoutd.master.fixed import changed
from fanoutd.master.intake import allowed_uids
from fanoutd.master.notify import Notify
from fanoutd.master.reload import Reload, Stage, Told
from fanoutd.master.upgrade import Upgrade

_log = logging.getLogger(__name__)

Adopt = Callable[[Config], None]
"""Brings a new configuration into force in one part of the master."""


class Orders:
    """``adopters`` are told of each new configuration."""

    def __init__(self, crew: Crew, children: Children, upgrade: Upgrade, notify: Notify) -> None:
        self._crew = crew
        self._children = children
        self._notify = notify
        self.upgrade = upgrade
        self.reload = Reload(crew, self._load, self._apply, self._tell_of_reload)
        self.adopters: list[Adopt] = [self._adopt_log]
        self._ending = False

    def follow(self, came: Counter[int]) -> None:
        """Signals only change what is wanted."""
        more = came[signal.SIGTTIN] - came[signal.SIGTTOU]
        if more:
            self.scale(max(1, self._crew.count + more))
        if came[signal.SIGHUP]:
            self.reload.want()
        if came[signal.SIGUSR2]:
            self.upgrade.want()
        if came[signal.SIGUSR1]:
            opened = log.reopen()
            self._children.tell_all({"t": "logs"})
            if opened:
                _log.info("log opened anew")

    def scale(self, count: int) -> int:
        """Want so many workers, until the next reload."""
        if count != self._crew.count:
            _log.info("%d workers wanted, were %d", count, self._crew.count)
        self._crew.count = count
        return count

    def begin_reload(self, told: Told) -> None:
        """``told`` hears what became of it."""
        if self._ending:
            told(self._crew.current.number, "the daemon is stopping")
        else:
            self.reload.want(told)

    def work(self, now: float) -> None:
        """One pass. Nothing new is begun while another program is about to take over."""
        self.upgrade.work(now, free=self.reload.stage is not Stage.WORKING)
        if not self.upgrade.settling:
            self.reload.work(now)
            self._crew.work(now)

    def next_pass(self, now: float) -> float:
        """When there is something to do that no message tells of."""
        if self.upgrade.settling:
            return self.upgrade.deadline()
        return min(self._crew.next_pass(now), self.reload.deadline(), self.upgrade.deadline())

    @property
    def well(self) -> bool:
        """None of the last ones was refused."""
        return self.reload.error is None and self.upgrade.error is None

    def abandon(self) -> None:
        """The daemon is ending."""
        self._ending = True
        self.reload.abandon("the daemon is stopping")
        self.upgrade.abandon()

    def _load(self) -> Config:
        """The configuration anew. Raises FanoutdError for one that cannot come into force here and now."""
        old = self._crew.current.config
        config = load(old.path)
        allowed_uids(config.daemon)
        fixed = changed(old, config)
        if fixed:
            raise BadConfig(f"{config.path}: {fixed} cannot change while the daemon runs; restart it for that")
        log.check(launch.log_file(config.daemon))
        return config

    def _apply(self, config: Config) -> None:
        """A generation is in force: so is its configuration, in the master too."""
        for warning in config.warnings:
            _log.warning("%s", warning)
        for adopt in self.adopters:
            adopt(config)

    def _tell_of_reload(self, began: bool, error: str | None) -> None:
        if began:
            self._notify.reloading()
        else:
            serves = f"generation {self._crew.current.number} serves"
            self._notify.ready(f"not reloaded: {error}; {serves}" if error else serves)

    def _adopt_log(self, config: Config) -> None:
        """The children follow: the new generation's mold came to be while the old log was in force."""
        file, form = launch.log_file(config.daemon), config.daemon.log_format
        log.hide(config.secrets())
        try:
            if log.change(file, form):
                self._children.tell_all({"t": "logs", "file": None if file is None else str(file), "format": form})
        except OSError as e:
            _log.error("[daemon] log_file: %s: %s; the log stays where it is", config.daemon.log_file, e.strerror)
