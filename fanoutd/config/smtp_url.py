"""``smtp://user:password@host:port?option=value``: a mail server, and how to reach it.

``smtp`` is plain (25), ``smtp+starttls`` goes over to TLS or fails (587), ``smtps`` is TLS from the first byte (465).
Options: ``ssl_ca`` (a file: the authorities that are trusted, in place of the machine's), ``ssl_verify_name`` (``off``:
the certificate, not the name), ``ssl_verify`` (``off``: encrypted, whoever it is). Without them both are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from fanoutd.config import url_options
from fanoutd.config.values import word

Security = Literal["plain", "starttls", "tls"]

#: scheme -> what it means, and the port that goes without saying.
_SCHEMES: Mapping[str, tuple[Security, int]] = {
    "smtp": ("plain", 25), "smtp+starttls": ("starttls", 587), "smtps": ("tls", 465),
}  # fmt: skip
_SWITCHES = ("ssl_verify", "ssl_verify_name")
_OPTIONS = ("ssl_ca", *_SWITCHES)

RIGHT = "smtp://, smtp+starttls:// or smtps:// with user:password@host:port; user and password are percent-encoded"


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed in. ``place`` names it for people: no user, no password. ``user`` None: without login."""

    security: Security
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)
    ssl_ca: str | None = None
    ssl_verify: bool = True
    ssl_verify_name: bool = True

    @property
    def place(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def smtp_url(value: object) -> str:
    """The key of the configuration. Raises ValueError, in words that repeat no password."""
    url = word(value)
    parse(url)
    return url


def parse(url: str) -> Relay:
    """Raises ValueError, in words that repeat no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port or a bracketed host that is none
        raise ValueError(f"wants {RIGHT}") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0 or parts.path.strip("/"):
        raise ValueError(f"wants {RIGHT}")
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.query:
        raise ValueError("has a # or an @ where none belongs: user and password are percent-encoded, as %23 and %40")
    security, usual = _SCHEMES[parts.scheme]
    options = _options(parts, security)
    user, password = _login(parts)
    return Relay(
        security, parts.hostname, port or usual, user, password, options.get("ssl_ca"),
        options.get("ssl_verify", "on") == "on", options.get("ssl_verify_name", "on") == "on",
    )  # fmt: skip


def below(url: str, folder: Path) -> str:
    """The URL with its file's path made whole: it is relative to the folder."""
    parts = urlsplit(url)
    if not parts.query:
        return url
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    whole = {name: str(folder / value) if name == "ssl_ca" else value for name, value in options.items()}
    return parts._replace(query=urlencode(whole, safe="/")).geturl()


def _login(parts: SplitResult) -> tuple[str | None, str]:
    if parts.username is None:
        return None, ""
    user, password = unquote(parts.username), unquote(parts.password or "")
    if not user or not password:
        raise ValueError("wants user and password, or neither of them")
    if not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("user and password want ASCII letters, digits and signs: others have no form in SMTP")
    return user, password


def _options(parts: SplitResult, security: Security) -> dict[str, str]:
    found = url_options.options(parts.query, _OPTIONS, _SWITCHES)
    if found.get("ssl_ca") == "":
        raise ValueError("option ssl_ca: wants a file")
    if found and security == "plain":
        raise ValueError("names ssl options, and smtp:// is not encrypted; write smtp+starttls:// or smtps://")
    if "ssl_ca" in found and found.get("ssl_verify") == "off":
        raise ValueError("asks for ssl_verify=off and names ssl_ca; leave one of them out")
    return found
