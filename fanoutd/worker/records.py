"""What a round writes of the people who were sent to: their outcomes, and what the answers say about them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fanoutd import failpoint
from fanoutd.outcome import Progress
from fanoutd.store import Database, campaigns, records, subscribers
from fanoutd.store.records import Attempt, Recording
from fanoutd.worker.holds import Hold
from fanoutd.worker.numbered import WENT_BACK
from fanoutd.worker.round import Round


@dataclass(frozen=True, slots=True)
class Asked:
    """What must be known to record a round's outcomes, and which of them are whose."""

    recording: Recording
    attempts: dict[Attempt, Hold]


def ask_to_record(db: Database, work: Round) -> Asked:
    by_shard: dict[Hold, list[tuple[int, Progress]]] = {}
    for hold, pos, progress in work.results:
        by_shard.setdefault(hold, []).append((pos, progress))
    if by_shard:
        failpoint.reach("before_record")
    attempts = {Attempt(hold.lease.shard, hold.lease.token, results): hold for hold, results in by_shard.items()}
    return Asked(records.ask_to_record(db, attempts), attempts)


def record(db: Database, work: Round, asked: Asked) -> None:
    for unseen in records.record_all(db, asked.recording):
        hold = asked.attempts[unseen]
        campaigns.move(db, hold.campaign.id, "running", "paused", cause="past", reason=WENT_BACK)
        work.lost.append(hold)
    for attempt, hold in asked.attempts.items():
        if attempt.ended:
            work.count(hold.campaign.account, attempt.ended)


def learn(db: Database, work: Round, hooks: Collection[str]) -> None:
    """``hooks``: the statements that some audience has."""
    for account in {account for account, _, _ in work.learnt}:
        answers = [(openid, errcode) for of, openid, errcode in work.learnt if of == account]
        subscribers.use(db, account, [openid for openid, errcode in answers if errcode == 0])
        subscribers.learn(db, account, {openid: errcode for openid, errcode in answers if errcode}, hooks)
