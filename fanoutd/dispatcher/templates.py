"""Does the account have the template of a campaign, with the keywords that the campaign fills?

WeChat is asked before anybody is sent to: a wrong template would fail everybody, one call each. What cannot be asked
holds nobody up. Templates of subscription notifications have a list of their own, which is not looked at.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from fanoutd import message
from fanoutd.config import Account
from fanoutd.config.advice import FILTERED
from fanoutd.outcome import describe
from fanoutd.store import Database, campaigns, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

_PATH = "/cgi-bin/template/get_all_private_template"

#: Seconds for which an account's list is believed, and for which it is not asked for again when it could not be had.
KEPT, GIVEN_UP = 600.0, 60.0

#: Seconds to wait for it at most: other campaigns wait behind.
_PATIENCE = 5.0

_KEY = re.compile(r"\{\{\s*(\w+)\.DATA\s*\}\}")


@dataclass(frozen=True, slots=True)
class Template:
    """One of an account's templates; ``keys`` in the order of its text, ``thing1`` and the like."""

    template_id: str
    title: str
    keys: tuple[str, ...]


Listed = Mapping[str, Template]


class CannotTell(Exception):
    """The list cannot be had; in words why."""


def mismatches(body: Mapping[str, Any], template: Template) -> list[str]:
    """What is wrong with a message's ``data`` for this template, in words; nothing when it fits.

    ``first`` and ``remark`` of the old templates may be there or not: WeChat filters them out.
    """
    given: Mapping[str, Any] = body.get("data", {})
    if not template.keys:  # a text that shows no keywords cannot contradict anybody
        return []
    lacking = [key for key in template.keys if key not in given and key not in FILTERED]
    strange = [key for key in given if key not in template.keys and key not in FILTERED]
    return [f"data.{key} is in the template but not in the message" for key in lacking] + [
        f"data.{key} is in the message but not in the template" for key in strange
    ]


def objections(body: Mapping[str, Any], listed: Listed) -> list[str]:
    """The same with the account's list; that the template is not there is said too.

    An empty list contradicts nothing. A template_id that is filled in later cannot be told.
    """
    wanted = str(body.get("template_id"))
    if not listed or message.placeholders({"": wanted}):
        return []
    template = listed.get(wanted)
    if template is not None:
        return mismatches(body, template)
    return [f"template_id {wanted[:64]!r} is not among the account's {len(listed)} templates"]


def fetch_list(account: Account, token: str) -> dict[str, Template]:
    """Ask WeChat for the account's templates, by their ids. Raises CannotTell."""
    patience = (min(account.connect_timeout, _PATIENCE), min(account.timeout, _PATIENCE))
    try:
        answer = requests.get(
            account.api_base + _PATH, params={"access_token": token}, timeout=patience, allow_redirects=False
        ).json()
    except requests.RequestException as e:  # its text has the address, and the token in it: only its kind
        raise CannotTell(f"the list of templates does not come ({type(e).__name__})") from None
    return understood(answer)


def understood(answer: object) -> dict[str, Template]:
    """WeChat's answer as templates. Raises CannotTell."""
    listed = answer.get("template_list") if isinstance(answer, dict) else None
    if isinstance(listed, list):
        return {each.template_id: each for each in _templates(listed)}
    errcode = answer.get("errcode") if isinstance(answer, dict) else None
    if isinstance(errcode, int):
        raise CannotTell(f"WeChat does not give the list of templates: {describe(errcode)} ({errcode})")
    raise CannotTell("the answer to the question for the list of templates cannot be understood")


def _templates(listed: list[Any]) -> Iterator[Template]:
    for each in listed:
        if isinstance(each, dict) and isinstance(each.get("template_id"), str):
            keys = dict.fromkeys(_KEY.findall(str(each.get("content", ""))))
            yield Template(each["template_id"], str(each.get("title", "")), tuple(keys))


@dataclass(frozen=True, slots=True)
class _Answer:
    """``listed`` is None when there was none; ``at`` on the monotonic clock."""

    at: float
    listed: Listed | None


class Templates:
    """What is known of the accounts' templates. May be asked by several threads.

    ``renew(db, account, patience)`` has a token fetched, if that is possible, or waits so many seconds for one that is
    on its way; it is called when the store has none.
    """

    def __init__(
        self, accounts: Mapping[str, Account], renew: Callable[[Database, str, float], None],
        fetch: Callable[[Account, str], Listed] = fetch_list, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts, self._renew, self._fetch, self._clock = accounts, renew, fetch, clock
        self._locks = {name: threading.Lock() for name in accounts}
        self._answers: dict[str, _Answer] = {}
        self._troubles: dict[str, str] = {}
        self._checked: set[str] = set()

    def stop(self, db: Database, campaign: Campaign) -> bool:
        """Pause the campaign, of whom nobody is planned yet, if something speaks against it. Says whether."""
        why = self.objection(db, campaign)
        if why is None:
            return False
        log.error("campaign %s is paused: %s", campaign.id, why)
        with db.transaction():
            campaigns.move(db, campaign.id, campaign.state, "paused", cause="message", reason=why)
        return True

    def objection(self, db: Database, campaign: Campaign) -> str | None:
        """Why it must not be sent, None when nothing speaks against it.

        Once a campaign: whoever lets it go on all the same knows better.
        """
        body = campaign.definition["bodies"].get("template")
        account = self._accounts.get(campaign.account)
        if body is None or account is None or campaign.id in self._checked:
            return None
        self._checked.add(campaign.id)
        with self._locks[account.name]:
            wrong = self._wrong(db, account, body)
        return _words(campaign, wrong) if wrong else None

    def pass_over(self, campaign: str) -> None:
        """An operator lets it go on: he has seen what speaks against it, perhaps under an earlier configuration."""
        self._checked.add(campaign)

    def _wrong(self, db: Database, account: Account, body: Mapping[str, Any]) -> list[str]:
        """By the list that is kept; before it speaks against somebody it is asked for anew: it may have changed."""
        at = self._clock()
        known = self._answers.get(account.name)
        if known is None or at - known.at > (GIVEN_UP if known.listed is None else KEPT):
            known = self._ask(db, account)
        wrong = _against(known, body)
        return _against(self._ask(db, account), body) if wrong and known and known.at < at else wrong

    def _ask(self, db: Database, account: Account) -> _Answer | None:
        """None: there is no token to ask with."""
        token = _usable(tokens.load(db, account.name))
        if token is None:
            self._renew(db, account.name, _PATIENCE)
            token = _usable(tokens.load(db, account.name))
        if token is None:
            return None
        try:
            listed: Listed | None = self._fetch(account, token.text)
            self._troubles.pop(account.name, None)
        except CannotTell as e:
            listed = None
            self._tell(account.name, str(e))
        self._answers[account.name] = _Answer(self._clock(), listed)
        return self._answers[account.name]

    def _tell(self, account: str, words: str) -> None:
        if self._troubles.get(account) != words:
            log.warning("account %s: templates are not checked: %s", account, words)
        self._troubles[account] = words


def _usable(token: Token | None) -> Token | None:
    return token if token is not None and token.expires_at > wall_ms() else None


def _against(known: _Answer | None, body: Mapping[str, Any]) -> list[str]:
    return objections(body, known.listed) if known and known.listed is not None else []


def _words(campaign: Campaign, wrong: list[str]) -> str:
    return (
        f"message {campaign.message} does not fit its template: {'; '.join(wrong)}; correct [message.{campaign.message}"
        ".template] or the template in WeChat's console and submit it again, or resume it to send it as it is"
    )
