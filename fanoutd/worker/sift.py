"""Claimed people whose word has changed since they were planned: skipped in the transaction that claims them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fanoutd.outcome import Progress, State
from fanoutd.standing import Standing, Turn, turn
from fanoutd.store import Database, records, subscribers
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import Later
from fanoutd.store.deliveries import Person
from fanoutd.store.records import Result
from fanoutd.store.shard_leases import Lease


@dataclass(frozen=True, slots=True)
class Asked:
    """What the store knows of people, and its clock: see ``Database.later``."""

    clock: Later
    known: Callable[[], dict[str, Standing]]


def ask(db: Database, campaign: Campaign, people: list[Person]) -> Asked:
    """A test asks nobody's leave."""
    fresh = [person.openid for person in people if person.progress.state is State.PENDING]
    clock = db.later(f"SELECT {db.NOW_MS}")
    test = campaign.definition.get("test")
    return Asked(clock, dict if test else subscribers.ask_notable(db, campaign.account, fresh))


def sift(
    db: Database, campaign: Campaign, held: Lease, people: list[Person], asked: Asked | None = None
) -> list[Person]:
    """Those to send to; the others are recorded as skipped. ``asked``: of these, and maybe of more."""
    kept, skipped = weigh(db, campaign, people, asked)
    if skipped:
        records.record(db, held.shard, held.token, skipped)
    return kept


def weigh(
    db: Database, campaign: Campaign, people: list[Person], asked: Asked | None = None
) -> tuple[list[Person], list[Result]]:
    """Those to send to, with what is known of their windows, and the outcomes of the others.

    Who is sent to again because no answer was seen is never skipped: WeChat may have taken the first call.
    """
    asked = asked or ask(db, campaign, people)
    known = asked.known()
    if not known:
        return people, []
    now, channels = int(asked.clock.rows()[0][0]), tuple(campaign.definition["channels"])
    kept: list[Person] = []
    skipped: list[Result] = []
    for person in people:
        standing = known.get(person.openid)
        if standing is None or person.progress.state is not State.PENDING:
            kept.append(person)
        elif (verdict := turn(standing, now, _again(person.progress), channels)) is Turn.SKIP:
            skipped.append((person.pos, replace(person.progress, state=State.SKIPPED, channel=None, errcode=None)))
        else:
            kept.append(_noted(person, standing, verdict, now))
    return kept, skipped


def _again(progress: Progress) -> bool:
    """An operator has had them reopened: called before, and on no channel since."""
    return progress.attempts > 0 and progress.channel is None


def _noted(person: Person, standing: Standing, verdict: Turn, now: int) -> Person:
    counted = standing.open(now) and standing.window_left is not None
    return replace(person, skip_custom=verdict is Turn.WITHOUT_CUSTOM, counted=counted)
