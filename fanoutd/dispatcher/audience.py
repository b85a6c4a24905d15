"""The people of a campaign, streamed: from its own list, the operator's database or the embedded audience."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.operator_db import PATIENCE, OperatorDatabaseAway, Rows, select
from fanoutd.errors import FanoutdError
from fanoutd.ids import OPENID
from fanoutd.spool import Spool
from fanoutd.store import StoreAway, open_store, subscribers
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.uploads import UnknownUpload
from fanoutd.values import query_values

log = logging.getLogger(__name__)


class AudienceAway(FanoutdError):
    """The people cannot be read now; the campaign waits."""


class NotConfigured(FanoutdError):
    """The campaign's audience or account has left the configuration."""


class Unsupplied(FanoutdError):
    """A variable of the message comes neither with the submission nor with the audience."""


def stream(
    campaign: Campaign, config: Config, spool: Spool, document: dict[str, Any] | None = None,
    patience: float = PATIENCE,
) -> Iterator[Planned]:
    """Everybody in the query's own order, duplicates included. Raises AudienceAway, NotConfigured, Unsupplied.

    ``document``: of a submission that is not in the spool. ``patience``: seconds that a database may say nothing.
    """
    if campaign.origin == "list":
        return _listed(campaign, spool, document or spool.read(campaign.id))
    if campaign.definition.get("source"):
        return _page(_subscribers(campaign, config), campaign)
    columns, rows = _query(campaign, config, campaign.audience or "", campaign.definition["query"], patience)
    check_supplied(campaign, columns)
    return _page(_people(rows, columns, campaign), campaign)


def excluded(campaign: Campaign, config: Config, patience: float = PATIENCE) -> Iterator[str]:
    """The openids of the audience that this campaign's leaves out. Raises AudienceAway, NotConfigured."""
    other = campaign.definition.get("exclude")
    if other is None:
        return
    if other["source"]:
        for page in _pages(campaign, config):
            yield from (openid for openid, _ in page)
        return
    columns, rows = _query(campaign, config, other["audience"], other["query"], patience)
    at = openid_at(columns)
    yield from (text(row[at]) for row in rows)


def _listed(campaign: Campaign, spool: Spool, document: dict[str, Any] | None) -> Iterator[Planned]:
    check_supplied(campaign, ())
    try:
        if document is not None:
            return (Planned(openid) for openid in spool.people(document))
    except (UnknownUpload, OSError) as e:
        log.info("the list of campaign %s: %s", campaign.id, e)
    raise AudienceAway("its list of openids is not in this node's spool")


def check_supplied(campaign: Campaign, columns: Iterable[str]) -> None:
    """Every variable of the message comes from the data or from a column."""
    known = {*campaign.definition["data"], *columns}
    missing = [name for name in campaign.definition["variables"] if name not in known]
    if missing:
        raise Unsupplied(f"the message uses {{{missing[0]}}}, which neither the submission's data nor a column gives")


def _page(people: Iterator[Planned], campaign: Campaign) -> Iterator[Planned]:
    page, size = campaign.definition["page"], campaign.definition["page_size"]
    return people if page is None else islice(people, page * size, (page + 1) * size)


def _pages(campaign: Campaign, config: Config) -> Iterator[list[tuple[str, str | None]]]:
    """Everyone in the embedded audience who takes messages: openid and their own variables, page by page."""
    try:
        db = open_store(config.store_url)
        try:
            yield from subscribers.audience(db, campaign.account)
        finally:
            db.close()
    except StoreAway as e:
        raise AudienceAway(str(e)) from None


def _subscribers(campaign: Campaign, config: Config) -> Iterator[Planned]:
    """In the order of their openids. Who lacks a variable is counted as failed; the first page tells whether all do."""
    definition = campaign.definition
    wanted = [name for name in definition["variables"] if name not in definition["data"]]
    for number, page in enumerate(_pages(campaign, config)):
        people = [(openid, json.loads(person) if person else {}) for openid, person in page]
        if number == 0 and people:
            check_supplied(campaign, {name for _, own in people for name in own})
        for openid, own in people:
            some = {name: own[name] for name in wanted if name in own}
            yield replace(planned(openid, some), failed=len(some) < len(wanted))


def _query(campaign: Campaign, config: Config, name: str, query: str, patience: float) -> tuple[list[str], Rows]:
    """The columns and the rows of an audience's query."""
    audience = config.audiences.get(name)
    account = config.accounts.get(campaign.account)
    if audience is None or account is None:
        gone = f"audience {name}" if audience is None else f"account {campaign.account}"
        raise NotConfigured(f"{gone} is not configured any more; put it back, reload, and resume the campaign")
    url, values = audience.database or config.store_url, query_values(campaign, account.timezone)
    try:
        found = select(url, query, values, patience)
    except OperatorDatabaseAway as e:
        raise AudienceAway(f"[audience.{audience.name}] {e}") from None
    return found.columns, _rows(found.rows, audience.name)


def _rows(rows: Rows, name: str) -> Rows:
    try:
        yield from rows
    except OperatorDatabaseAway as e:
        raise AudienceAway(f"[audience.{name}] {e}") from None


def openid_at(columns: list[str]) -> int:
    """Where the openid stands: in the column of that name, or in the first."""
    return columns.index("openid") if "openid" in columns else 0


def _people(rows: Iterator[tuple[Any, ...]], columns: list[str], campaign: Campaign) -> Iterator[Planned]:
    at = openid_at(columns)
    wanted = [(i, name) for i, name in enumerate(columns) if name in campaign.definition["variables"]]
    for row in rows:
        yield planned(row[at], {name: row[i] for i, name in wanted})


def planned(openid: Any, own: dict[str, Any]) -> Planned:
    """One row of the audience; what is no openid is kept and counted as failed."""
    whom = text(openid)
    values = {name: text(value) for name, value in own.items()}
    person = json.dumps(values, ensure_ascii=False) if values else None
    return Planned(whom[:64] or "(empty)", person, failed=not OPENID.fullmatch(whom))


def text(value: Any) -> str:
    """As people write it: of NULL nothing, of bytes what they spell."""
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
