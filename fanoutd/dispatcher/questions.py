"""The table of questions: what is asked of the dispatcher by method, and who knows the answer.

What changes a campaign is an order (``orders``); how an answer finds its way back stands in ``answers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fanoutd.dispatcher import forecast, recurring, reports
from fanoutd.dispatcher.explain import explain
from fanoutd.dispatcher.home import Home
from fanoutd.dispatcher.queries import Queries, deliveries, known, past
from fanoutd.dispatcher.receipts import Receipts
from fanoutd.dispatcher.status import Status
from fanoutd.dispatcher.subscribers import Subscribers
from fanoutd.dispatcher.token_answers import TokenAnswers
from fanoutd.store import Database, campaigns
from fanoutd.store.campaigns import Campaign
from fanoutd.times import wall_ms

Params = dict[str, Any]


class Questions:
    def __init__(
        self, home: Home, status: Status, receipts: Receipts, subscribers: Subscribers, tokens: TokenAnswers
    ) -> None:
        self._home, self._receipts, self._subscribers = home, receipts, subscribers
        self._queries = queries = Queries()
        spool, config, node = home.spool, home.config, home.node
        self._table: Mapping[str, Callable[[Database, Params], Any]] = {
            "daemon.status": lambda db, _params: status.of(db),
            "campaign.list": queries.list,
            "campaign.get": lambda db, params: queries.get(db, asked_for(db, home, params)),
            "campaign.history": lambda db, params: past(db, asked_for(db, home, params)),
            "campaign.deliveries": lambda db, params: deliveries(db, asked_for(db, home, params), params),
            "campaign.report": self._report,
            "campaign.plan": lambda db, params: forecast.answer(db, config, spool, node, params),
            "delivery.explain": self._explain,
            "subscriber.event": self._event,
            "subscriber.reply": subscribers.reply,
            "subscriber.import": subscribers.take_in,
            "subscriber.list": subscribers.list,
            "subscriber.get": subscribers.get,
            "subscriber.forget": subscribers.forget,
            "subscriber.opt_out": subscribers.opt_out,
            "subscriber.opt_in": subscribers.opt_in,
            "subscriber.sync": subscribers.sync,
            "token.get": tokens.get,
            "token.refresh": tokens.refresh,
            "recurring.list": lambda db, _params: recurring.catalogue(db, spool, config, node, wall_ms()),
            "recurring.remove": lambda db, params: recurring.remove(db, spool, config, node, params["recurring"]),
        }

    def __contains__(self, method: str) -> bool:
        return method in self._table

    def answer(self, db: Database, method: str, params: Params) -> Any:
        """The method's result. Raises RpcError, StoreAway."""
        return self._table[method](db, params)

    def _event(self, db: Database, params: Params) -> Any:
        return (self._receipts.take if params["event"] == "finish" else self._subscribers.event)(db, params)

    def _report(self, db: Database, params: Params) -> Any:
        campaign = asked_for(db, self._home, params)
        return reports.answer(db, self._home.config, campaign) | {"campaign": self._queries.get(db, campaign)}

    def _explain(self, db: Database, params: Params) -> Any:
        found = explain(db, self._home.journals, self._home.node, params["openid"], params["campaign"])
        return {"events": found}


def asked_for(db: Database, home: Home, params: Params) -> Campaign:
    """The campaign that the params name. Raises RpcError when there is none, StoreAway."""
    campaign = str(params.get("campaign"))
    return campaigns.get(db, campaign) or _just_accepted(db, home, campaign) or known(db, campaign)


def _just_accepted(db: Database, home: Home, campaign: str) -> Campaign | None:
    """Found from the moment of the answer: it may still lie in the spool."""
    try:
        return home.bring_in(db, campaign)
    except ValueError:  # no campaign's id looks like this
        return None
