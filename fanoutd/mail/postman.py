"""The dispatcher's postman: takes events from any thread, and has a thread of its own for the mail server."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from fanoutd.config import Config, addresses
from fanoutd.mail.event import Event
from fanoutd.mail.folding import pace
from fanoutd.mail.letter import compose, letterhead, wire
from fanoutd.mail.outgoing import Outgoing
from fanoutd.mail.smtp import Patience, refusals, session
from fanoutd.mail.spool import MailSpool
from fanoutd.times import iso, wall_ms

log = logging.getLogger(__name__)

#: Seconds between two rounds at least, while events come in numbers; and after one that went wrong by itself.
_BREATH, _AFTER_TROUBLE = 0.05, 30.0
#: Somebody waits for the answer of a test.
_TEST = Patience(connect=10.0, answer=20.0, whole=45.0)


class NoMail(Exception):
    """There is no ``[mail]`` in the configuration."""


class Postman:
    """Without ``[mail]`` in the configuration nothing is kept and nothing is done."""

    def __init__(self, config: Config, node: str, patience: Patience | None = None) -> None:
        self._outgoing: Outgoing | None = None
        self._head = letterhead(config, config.mail, node) if config.mail else None
        if self._head:
            spool = MailSpool(config.daemon.state_dir / "mail")
            self._outgoing = Outgoing(spool, self._head, pace(config.schedule.health_check), patience or Patience())
            try:
                spool.prepare()
            except OSError as e:
                log.error("mail: %s: %s", e.filename, e.strerror)
        self._news = threading.Condition()
        self._stir = False
        self._thread: threading.Thread | None = None

    def tell(self, event: Event) -> None:
        """Have it mailed, from any thread. It never raises and never waits for a mail server. On return the event is
        on disk; without room there it is mailed all the same, if the daemon lives so long."""
        if self._outgoing is None:
            return
        self._outgoing.put(event)
        self._wake()

    def start(self) -> None:
        """From now on it is this process that sends: there are never two at once."""
        if self._outgoing is not None and self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(self._outgoing,), name="mail", daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """Begin nothing more. What is told from now on is for the next postman."""
        if self._outgoing is not None:
            self._outgoing.stopping = True
            self._wake()

    def join(self, seconds: float) -> None:
        """Wait for the mail in hand, but no longer. One that is cut off is sent again as the same mail."""
        if self._thread is not None:
            self._thread.join(seconds)

    def standing(self) -> dict[str, Any] | None:
        """{waiting, last_error, last_sent} for the status; None without ``[mail]``."""
        if self._outgoing is None:
            return None
        sent = self._outgoing.last_sent
        return {
            "waiting": len(self._outgoing), "last_error": self._outgoing.last_error,
            "last_sent": None if sent is None else iso(int(sent * 1000)),
        }  # fmt: skip

    def test(self) -> str:
        """Send one now, past the spool: what the server said. Raises NoMail, NotSent, Unclear."""
        if self._head is None:
            raise NoMail
        mail, relay, at = self._head.mail, self._head.mail.relay, wall_ms()
        words = f"This is the mail that `fanoutd mail test` sends. It came by {relay.place}; alerts come the same way."
        event = Event(f"test-{at}-{threading.get_native_id()}", "", "a test", "a test", words, None, at)
        data = wire(compose([event], self._head, time.time()))
        with session(relay, _TEST) as opened:
            to = [addresses.split(line)[1] for line in mail.to]
            said, refused = opened.send(addresses.split(mail.sender)[1], to, data)
        if self._outgoing is not None:  # whatever was wrong is mended
            self._outgoing.nudged = True
            self._wake()
        return f"{said}; refused: {refusals(refused)}" if refused else said

    def _wake(self) -> None:
        with self._news:
            self._stir = True
            self._news.notify()

    def _work(self, outgoing: Outgoing) -> None:
        """The thread's outermost frame."""
        opened = False
        while not outgoing.stopping:
            wake = time.monotonic() + _AFTER_TROUBLE
            try:
                if not opened:
                    outgoing.open()
                    opened = True
                wake = outgoing.round()
            except OSError as e:
                log.error("mail: %s: %s", e.filename or "the spool", e.strerror or e)
            except Exception:
                log.exception("mail")
            time.sleep(_BREATH)
            with self._news:
                patience = min(wake - time.monotonic(), _AFTER_TROUBLE)
                if not self._stir and patience > 0:
                    self._news.wait(patience)
                self._stir = False
