"""WeChat's receipts for template messages: they tell of a person whose answer was never seen.

A receipt bears the message's id, which is known of those that were answered, and the openid. It settles an
unknown delivery if there is just one to whom it can belong.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from fanoutd.outcome import DOUBTFUL, State, channel_number
from fanoutd.store import Database, campaigns
from fanoutd.store.corrections import resolve
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: A receipt comes within a day of its message; clocks may differ by a minute. Milliseconds.
_LATEST, _EARLY = 86_400_000, 60_000

#: The unknown are looked for again after so long: a flood of receipts costs one look, seconds.
_FRESH = 2.0

_DOUBTFUL = ", ".join(str(int(state)) for state in DOUBTFUL)
_TEMPLATE = channel_number("template")


@dataclass(frozen=True, slots=True)
class _Unknown:
    campaign: str
    account: str
    shard: int
    updated_at: int


class Receipts:
    """Used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = -_FRESH
        self._unknown: dict[str, list[_Unknown]] = {}

    def take(self, db: Database, event: dict[str, Any]) -> dict[str, Any]:
        """A ``finish`` event; what nobody waits for is dropped. Raises StoreAway: then it may be sent again."""
        at = event["at"] or wall_ms()
        with self._lock:
            self._look(db)
            fits = [
                each for each in self._unknown.get(event["openid"], ())
                if event["account"] in (None, each.account) and -_EARLY <= at - each.updated_at <= _LATEST
            ]  # fmt: skip
            if fits:
                self._settle(db, event, fits, at)
        return {}

    def _look(self, db: Database) -> None:
        if time.monotonic() - self._looked < _FRESH:
            return
        found: dict[str, list[_Unknown]] = {}
        for id, account, shard in db.rows(
            "SELECT c.id, c.account, s.id FROM fanout_campaign c JOIN fanout_shard s ON s.campaign = c.id "
            "WHERE s.unknown > 0 AND c.created_at > %s",
            wall_ms() - 2 * _LATEST,
        ):
            for openid, updated in db.rows(
                "SELECT openid, updated_at FROM fanout_delivery WHERE shard = %s AND channel = %s "
                f"AND state IN ({_DOUBTFUL})",
                shard, _TEMPLATE,
            ):  # fmt: skip
                found.setdefault(openid, []).append(_Unknown(id, account, shard, updated or 0))
        self._unknown, self._looked = found, time.monotonic()

    def _settle(self, db: Database, event: dict[str, Any], fits: list[_Unknown], at: int) -> None:
        openid = event["openid"]
        if len(fits) > 1 or self._is_anothers(db, event, fits[0], at):
            return
        accepted = (event["status"] or "").replace(" ", "").lower() == "success"
        with db.transaction():
            resolve(db, fits[0].campaign, State.SENT if accepted else State.FAILED, [openid])
        with db.transaction():
            campaigns.finish(db, fits[0].campaign)
        del self._unknown[openid]
        log.info("campaign %s: a receipt settled one unknown delivery: %s", fits[0].campaign,
                 "sent" if accepted else "failed")  # fmt: skip

    def _is_anothers(self, db: Database, event: dict[str, Any], fit: _Unknown, at: int) -> bool:
        """Whether a message to the same person that was answered may be the one that this receipt is for.

        With an id it is that message or it is not; without, any of that day may be it.
        """
        for (msgid,) in db.rows(
            "SELECT d.msgid FROM fanout_campaign c JOIN fanout_shard s ON s.campaign = c.id "
            "JOIN fanout_delivery d ON d.shard = s.id "
            "WHERE c.account = %s AND c.created_at > %s AND d.openid = %s AND d.channel = %s AND d.state = %s",
            fit.account, at - 2 * _LATEST, event["openid"], _TEMPLATE, State.SENT,
        ):  # fmt: skip
            if not event["msgid"] or msgid == event["msgid"]:
                return True
        return False
