"""Clocks, WeChat's API and the mail server. Nothing is sent, and no token is asked for."""

from __future__ import annotations

import email.utils
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import requests

from fanoutd.config import Account, Config, sqlite_path
from fanoutd.config.advice import mail_advice
from fanoutd.config.smtp_url import Relay
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.mail import smtp
from fanoutd.store.sqlite import SqliteDatabase

#: Seconds by which clocks may differ: WeChat's times have minutes, the HTTP Date header whole seconds.
_STORE_APART, _API_APART = 1.0, 30.0
_MAIL = smtp.Patience(connect=5.0, answer=5.0, whole=20.0)


def clock(config: Config) -> Iterator[Finding]:
    path = sqlite_path(config.store_url)
    if path is None or not path.exists():
        return  # a server's is looked at with the rest of it
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as link:
        apart = abs(link.execute(f"SELECT {SqliteDatabase.NOW_MS}").fetchone()[0] / 1000 - time.time())
    if apart > _STORE_APART:
        yield fail("clock", f"this machine and the store are {apart:.1f} s apart", "run an NTP client on both")
    else:
        yield ok("clock", f"{apart * 1000:.0f} ms from the store's")


def api(config: Config) -> Iterator[Finding]:
    for account in config.accounts.values():
        yield from _api(account)


def _api(account: Account) -> Iterator[Finding]:
    what = f"API of {account.name}"
    host = urlsplit(account.api_base).netloc.rpartition("@")[2]
    began = time.perf_counter()
    try:
        patience = (account.connect_timeout, account.timeout)
        answer = requests.get(account.api_base, timeout=patience, allow_redirects=False)
    except requests.exceptions.SSLError:
        yield fail(what, f"{host}: TLS fails", "look at this machine's clock, and at a proxy in between")
        return
    except requests.RequestException as e:
        yield fail(what, f"{host} does not answer ({type(e).__name__})", "look at the network, DNS and api_base")
        return
    took = (time.perf_counter() - began) * 1000
    yield ok(what, f"{host} answers in {took:.0f} ms")
    if "Date" in answer.headers:
        apart = abs(email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time())
        if apart > _API_APART:
            yield warn("clock", f"{apart:.0f} s from {host}'s", "run an NTP client: templates and quiet hours need it")


def mail(config: Config) -> Iterator[Finding]:
    if config.mail is None:
        yield warn("mail", "there is no [mail]: nobody hears of what goes wrong", "write one, see etc/fanoutd.toml")
        return
    relay = config.mail.relay
    try:
        done = smtp.probe(relay, _MAIL)
    except smtp.NotSent as e:
        yield fail("mail", str(e), _mend(relay, str(e)))
        return
    for line in mail_advice(config.mail):
        yield warn("mail", *line.removeprefix("[mail] smtp: ").split("; ", 1))
    yield ok("mail", f"{relay.place}: {', '.join(['connect', *done])}; nothing was sent, `fanoutd mail test` sends one")


def _mend(relay: Relay, words: str) -> str:
    if ": login: " in words:
        return "look at user and password in [mail] smtp; they are percent-encoded"
    if relay.security != "plain" and any(each in words for each in ("certificate", "ssl_ca", "SSL", "STARTTLS")):
        return "look at [mail] smtp: scheme, port, host name and ssl_ca; smtps is 465, smtp+starttls 587"
    return "look at [mail] smtp, at the way there, and at the server"
