"""``token.get`` and ``token.refresh``: what operators ask and order about access tokens."""

from __future__ import annotations

import logging
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.token_sources import Refused
from fanoutd.errors import BadInput
from fanoutd.store import Database

log = logging.getLogger(__name__)

#: The kinds of refusal on the socket: somebody must do something first; it may go well in a while.
_WRONG_STATE, _NOT_NOW = -32003, -32005


class TokenAnswers:
    def __init__(self, config: Config, refresher: Refresher) -> None:
        self._config = config
        self._refresher = refresher

    def get(self, db: Database, params: dict[str, Any]) -> dict[str, Any]:
        """How the account stands with its token, which is masked. Raises RpcError."""
        return self._refresher.shown(db, self._name(params))

    def refresh(self, db: Database, params: dict[str, Any]) -> dict[str, Any]:
        """The same after a fetch. Raises RpcError with the words when there is no token."""
        name = self._name(params)
        log.info("account %s: a %srefresh of its token was asked for", name, "forced " if params["force"] else "")
        try:
            self._refresher.refresh(db, name, params["force"])
        except Refused as e:
            raise RpcError(_WRONG_STATE if e.fatal else _NOT_NOW, str(e)) from None
        return self._refresher.shown(db, name)

    def _name(self, params: dict[str, Any]) -> str:
        try:
            return self._config.pick("account", params["account"]).name
        except BadInput as e:
            raise RpcError(-32602, str(e), "account") from None
