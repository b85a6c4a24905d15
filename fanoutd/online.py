"""`fanoutd config check --online`: what only WeChat, and the operator's own databases, can say of a configuration.

Nothing is sent, changed or kept. Of an audience one person is read; a statement is not run.

A token is fetched and thrown away. From the stable endpoint that hurts nobody: it gives every caller the same one. It
is never forced, and never asked of the classic endpoint, where each fetch would take the token from whoever has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fanoutd.config import Account, Audience, Config, Message, TokenQuery
from fanoutd.dispatcher.audience import openid_at, text
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway, select
from fanoutd.dispatcher.refresher import Refused, fetch
from fanoutd.dispatcher.templates import CannotTell, Template, fetch_list, mismatches, objections
from fanoutd.doctor import network
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.doctor.store import store
from fanoutd.ids import OPENID
from fanoutd.times import sql_now, wall_ms

#: Seconds that a database may say nothing.
_PATIENCE = 60.0

Listed = Mapping[str, Template]


def examine(config: Config) -> Iterator[Finding]:
    """Each account's API, clock, token and templates; each message's template; the store and each other database."""
    yield from network.api(config)
    yield from store(config)
    listed: dict[str, Listed] = {}
    for account in config.accounts.values():
        yield from _account(account, listed)
    for message in config.messages.values():
        if "template" in message.bodies:
            yield from _message(message, listed, len(config.accounts))
    for audience in config.audiences.values():
        if audience.query is not None and audience.database is not None:
            yield _audience(audience, audience.query, audience.database, next(iter(config.accounts.values())))
    for message in config.messages.values():
        if message.on_finish is not None and message.on_finish.database is not None:
            yield _statement(message, message.on_finish.database)


def _account(account: Account, listed: dict[str, Listed]) -> Iterator[Finding]:
    what = f"token of {account.name}"
    kept = isinstance(account.token, TokenQuery)
    try:
        token = fetch(replace(account, app_secret=None) if kept else replace(account, token="stable"))
    except Refused as e:
        if kept:
            yield warn(what, f"not to be had from its database: {e}", "look at the database and at the query")
        else:
            yield fail(what, str(e), f"look at [account.{account.name}], and at 基本配置 in WeChat's console")
        return
    yield ok(what, "read from its database" if kept else "given, and thrown away again")
    try:
        listed[account.name] = fetch_list(account, token.text)
    except CannotTell as e:
        yield warn(f"templates of {account.name}", str(e), "compare them by hand with those in WeChat's console")
        return
    yield ok(f"templates of {account.name}", f"there are {len(listed[account.name])}")


def _message(message: Message, listed: Mapping[str, Listed], accounts: int) -> Iterator[Finding]:
    """Against the accounts that have its template; a message may be meant for one of several."""
    body = message.bodies["template"]
    what = f"template of {message.name}"
    having = [name for name, each in listed.items() if body["template_id"] in each]
    mend = f"correct [message.{message.name}.template], or the template in WeChat's console"
    for name in having:
        wrong = mismatches(body, listed[name][body["template_id"]])
        yield fail(what, f"of account {name}: {'; '.join(wrong)}", mend) if wrong else ok(what, f"fits, {name} has it")
    if having:
        return
    missing = [f"{name}: {each}" for name, theirs in listed.items() for each in objections(body, theirs)]
    if missing and len(listed) == accounts:
        yield fail(what, "; ".join(missing), mend)
    else:
        yield warn(what, "cannot be compared: no list of templates has it", "send to yourself before anybody else")


def _audience(audience: Audience, query: str, database: str, account: Account) -> Finding:
    """As a campaign of now would ask; what people say with theirs is empty."""
    what, mend = f"audience {audience.name}", "look at the database and at the query"
    known = {"now": sql_now(wall_ms(), account.timezone), "account": account.name}
    try:
        found = select(database, query, dict.fromkeys(audience.params, "") | known, _PATIENCE)
        row = next(found.rows, None)
    except OperatorDatabaseAway as e:
        return warn(what, str(e), mend)
    if row is None:
        return ok(what, "its query is answered, and finds nobody now")
    at = openid_at(found.columns)
    if not OPENID.fullmatch(text(row[at])):
        return warn(what, f"column {found.columns[at]} holds no openid", "call the openids' column openid")
    return ok(what, "its query is answered")


def _statement(message: Message, database: str) -> Finding:
    what = f"on_finish of {message.name}"
    try:
        next(select(database, "SELECT 1", {}, _PATIENCE).rows)
    except OperatorDatabaseAway as e:
        return warn(what, str(e), "look at its database")
    return ok(what, "its database answers; the statement was not run")
