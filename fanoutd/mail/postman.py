"""What takes events to be mailed: kept on disk, then sent."""

from __future__ import annotations

from fanoutd.config import Config
from fanoutd.mail.event import Event
from fanoutd.mail.spool import MailSpool


class Postman:
    """Without ``[mail]`` in the configuration nothing is kept and nothing is done."""

    def __init__(self, config: Config, node: str) -> None:
        self._spool = MailSpool(config.daemon.state_dir / "mail") if config.mail else None
        self._node = node
        if self._spool:
            self._spool.prepare()

    def tell(self, event: Event) -> None:
        """Have it mailed, from any thread. It never raises and never waits for a mail server."""
        if self._spool:
            self._spool.put(event)
