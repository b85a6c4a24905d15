"""Clocks, WeChat's API and the mail server. Nothing is sent, and no token is asked for."""

from __future__ import annotations

import email.utils
import smtplib
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import requests

from fanoutd.config import Account, Config, sqlite_path
from fanoutd.doctor.findings import Finding, fail, ok, warn
from fanoutd.store.sqlite import SqliteDatabase

#: Seconds by which clocks may differ: WeChat's times have minutes, the HTTP Date header whole seconds.
_STORE_APART, _API_APART = 1.0, 30.0
_SMTP_TIMEOUT = 5.0


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
        return
    url = urlsplit(config.mail.smtp)
    host = url.hostname or ""
    port = url.port or {"smtps": 465, "smtp+starttls": 587}.get(url.scheme, 25)
    try:
        secure = ssl.create_default_context()
        server: smtplib.SMTP
        if url.scheme == "smtps":
            server = smtplib.SMTP_SSL(host, port, timeout=_SMTP_TIMEOUT, context=secure)
        else:
            server = smtplib.SMTP(host, port, timeout=_SMTP_TIMEOUT)
        with server:
            server.ehlo_or_helo_if_needed()
            if url.scheme == "smtp+starttls":
                server.starttls(context=secure)
                server.ehlo_or_helo_if_needed()
    except (smtplib.SMTPException, ssl.SSLError, socket.gaierror, OSError) as e:
        yield fail("mail", f"{host}:{port}: {e}", "look at [mail] smtp, and at the server")
        return
    yield ok("mail", f"{host}:{port} takes connections; nothing was sent")
