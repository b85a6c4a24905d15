"""``mysql://user:password@host:3306/database?option=value``: a server of MySQL's protocol, and how to reach it.

Options: ``ssl`` (``on``: encrypted, whoever it is; ``off``), ``ssl_ca`` (a file: encrypted, and the server's
certificate and name are checked against it), ``ssl_verify_name`` (``off``: the certificate, not the name),
``ssl_cert`` and ``ssl_key`` (files: ours), ``charset`` (``utf8mb4``), ``socket`` (a file, in place of host and port).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from fanoutd.config import url_options

PORT = 3306

#: What a database's URL looks like, for people.
RIGHT = "sqlite:///path or mysql://user:password@host:3306/database"

_FILES = ("ssl_ca", "ssl_cert", "ssl_key", "socket")
_SWITCHES = ("ssl", "ssl_verify_name")
_OPTIONS = (*_FILES, *_SWITCHES, "charset")


@dataclass(frozen=True, slots=True)
class Server:
    """Where a database is. ``place`` names it for people: no user, no password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    charset: str = "utf8mb4"
    socket: str | None = None
    ssl: bool = False
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    ssl_verify_name: bool = True

    @property
    def place(self) -> str:
        """``mysql://host:port/database``."""
        return f"mysql://{self.socket or f'{self.host}:{self.port}'}/{self.database}"


def parse(url: str) -> Server:
    """Raises ValueError, in words that repeat no password."""
    parts = urlsplit(url)
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        raise ValueError("has a # or an @ where none belongs: user and password are percent-encoded, as %23 and %40")
    options = _options(parts)
    return Server(
        host=parts.hostname or "localhost", port=parts.port or PORT, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=_database(parts),
        charset=options.get("charset", "utf8mb4"), socket=options.get("socket"),
        ssl=options.get("ssl", "on" if "ssl_ca" in options else "off") == "on",
        ssl_ca=options.get("ssl_ca"), ssl_cert=options.get("ssl_cert"), ssl_key=options.get("ssl_key"),
        ssl_verify_name=options.get("ssl_verify_name", "on") == "on",
    )  # fmt: skip


def below(url: str, folder: Path) -> str:
    """The URL with its files' paths made whole: they are relative to the folder. Another database's stays as it is."""
    parts = urlsplit(url)
    if parts.scheme != "mysql" or not parts.query:
        return url
    options = {name: str(folder / value) if name in _FILES else value for name, value in _options(parts).items()}
    return parts._replace(query=urlencode(options, safe="/")).geturl()


def _database(parts: SplitResult) -> str:
    name = unquote(parts.path.strip("/"))
    if not name or "/" in name:
        raise ValueError(f"wants {RIGHT}: no database is named")
    return name


def _options(parts: SplitResult) -> dict[str, str]:
    found = url_options.options(parts.query, _OPTIONS, _SWITCHES)
    if "charset" in found:
        _check_charset(found["charset"])
    if found.get("ssl") == "off" and {"ssl_ca", "ssl_cert", "ssl_key"} & found.keys():
        raise ValueError("asks for ssl=off and names ssl files; leave one of them out")
    if "ssl_verify_name" in found and "ssl_ca" not in found:
        raise ValueError("says something of the server's name, which is looked at only with ssl_ca")
    if ("ssl_cert" in found) != ("ssl_key" in found):
        raise ValueError("needs ssl_cert and ssl_key together")
    return found


def _check_charset(name: str) -> None:
    from pymysql.charset import charset_by_name  # only for those who name one

    if charset_by_name(name) is None:
        raise ValueError(f"option charset: MySQL knows no {name!r}; it is utf8mb4, utf8, gbk or latin1, say")
