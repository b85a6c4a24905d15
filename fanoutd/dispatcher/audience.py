"""The people of a campaign, streamed: from its own list or from the operator's database."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from fanoutd.config import Config, sqlite_path
from fanoutd.errors import FanoutdError
from fanoutd.ids import OPENID
from fanoutd.spool import Spool
from fanoutd.sqltext import to_sqlite
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.uploads import UnknownUpload
from fanoutd.values import query_values

log = logging.getLogger(__name__)

_FETCH = 1000


class AudienceAway(FanoutdError):
    """The people cannot be read now; the campaign waits."""


class NotConfigured(FanoutdError):
    """The campaign's audience or account has left the configuration."""


class Unsupplied(FanoutdError):
    """A variable of the message comes neither with the submission nor with the audience."""


def stream(
    campaign: Campaign, config: Config, spool: Spool, document: dict[str, Any] | None = None
) -> Iterator[Planned]:
    """Everybody in the query's own order, duplicates included. Raises AudienceAway, NotConfigured, Unsupplied.

    ``document``: of a submission that is not in the spool.
    """
    if campaign.origin == "list":
        return _listed(campaign, spool, document or spool.read(campaign.id))
    return _page(_query(campaign, config), campaign)


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


def _query(campaign: Campaign, config: Config) -> Iterator[Planned]:
    audience = config.audiences.get(campaign.audience or "")
    account = config.accounts.get(campaign.account)
    if audience is None or account is None:
        gone = f"audience {campaign.audience}" if audience is None else f"account {campaign.account}"
        raise NotConfigured(f"{gone} is not configured any more; put it back, reload, and resume the campaign")
    url = audience.database or config.store_url
    path = sqlite_path(url)
    if path is None:
        raise AudienceAway(f"[audience.{audience.name}] database: this version reads SQLite files only")
    try:
        # Read-only: whatever the query says, the operator's data stays as it is.
        link = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        cursor = link.execute(to_sqlite(campaign.definition["query"]), query_values(campaign, account.timezone))
    except sqlite3.Error as e:
        raise AudienceAway(f"[audience.{audience.name}] {path}: {e}") from None
    columns = [each[0] for each in cursor.description]
    check_supplied(campaign, columns)
    return _people(link, cursor, columns, campaign)


def _people(
    link: sqlite3.Connection, cursor: sqlite3.Cursor, columns: list[str], campaign: Campaign
) -> Iterator[Planned]:
    at = columns.index("openid") if "openid" in columns else 0
    wanted = [(i, name) for i, name in enumerate(columns) if name in campaign.definition["variables"]]
    try:
        while rows := cursor.fetchmany(_FETCH):
            for row in rows:
                yield planned(row[at], {name: row[i] for i, name in wanted})
    except sqlite3.Error as e:
        raise AudienceAway(f"audience {campaign.audience}: {e}") from None
    finally:
        link.close()


def planned(openid: Any, own: dict[str, Any]) -> Planned:
    """One row of the audience; what is no openid is kept and counted as failed."""
    text = str(openid or "")
    values = {name: "" if value is None else str(value) for name, value in own.items()}
    person = json.dumps(values, ensure_ascii=False) if values else None
    return Planned(text[:64] or "(empty)", person, failed=not OPENID.fullmatch(text))
