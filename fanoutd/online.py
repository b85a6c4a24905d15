"""`fanoutd config check --online`: what only WeChat can say of a configuration. Nothing is sent, and nothing kept.

A token is fetched and thrown away. From the stable endpoint that hurts nobody: it gives every caller the same one. It
is never forced, and never asked of the classic endpoint, where each fetch would take the token from whoever has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fanoutd.config import Account, Config, Message, TokenQuery
from fanoutd.dispatcher.refresher import Refused, fetch
from fanoutd.dispatcher.templates import CannotTell, Template, fetch_list, mismatches, objections
from fanoutd.doctor import network
from fanoutd.doctor.findings import Finding, fail, ok, warn

Listed = Mapping[str, Template]


def examine(config: Config) -> Iterator[Finding]:
    """Each account's API, clock, token and templates; then each message's template."""
    yield from network.api(config)
    listed: dict[str, Listed] = {}
    for account in config.accounts.values():
        yield from _account(account, listed)
    for message in config.messages.values():
        if "template" in message.bodies:
            yield from _message(message, listed, len(config.accounts))


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
