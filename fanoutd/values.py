"""The values that a campaign's message and its audience's query may use.

``now`` is the campaign's ``started_at`` in the account's timezone, so that it stays the same
after a restart, a resume or a retry.
"""

from __future__ import annotations

from fanoutd.store.campaigns import Campaign
from fanoutd.times import message_now, sql_now


def _common(campaign: Campaign) -> dict[str, str]:
    d = campaign.definition
    own = {
        "content": d["content"] or "",
        "phone": d["phone"] or "",
        "campaign": campaign.id,
        "reference": campaign.reference or "",
    }
    return {name: str(value) for name, value in d["data"].items()} | own


def message_values(campaign: Campaign, timezone: str) -> dict[str, str]:
    """Placeholders of a message, but for those that each person brings."""
    return _common(campaign) | {"now": message_now(campaign.started_at or campaign.created_at, timezone)}


def query_values(campaign: Campaign, timezone: str) -> dict[str, str]:
    """Parameters of the audience's query."""
    now = sql_now(campaign.started_at or campaign.created_at, timezone)
    return _common(campaign) | {"now": now, "account": campaign.account}
