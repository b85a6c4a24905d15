"""From a TOML file to the configuration: found, read, checked, put together."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanoutd.config import fields, kinds, secret
from fanoutd.config.advice import advice, mail_advice, retention_advice
from fanoutd.config.fields import NAMED, SINGLE, Place, named, read
from fanoutd.config.model import (
    Account,
    Audience,
    Config,
    Daemon,
    Health,
    Mail,
    Message,
    Metrics,
    Schedule,
    TokenQuery,
    Window,
    Workers,
)
from fanoutd.config.starter import untouched
from fanoutd.config.values import in_full
from fanoutd.errors import BadConfig

#: Bytes of the socket's path. Linux takes 107 (unix(7), sun_path); the daemon binds under a longer,
#: temporary name first.
SOCKET_PATH_MAX = 100

#: What the query of a token may name: there is no campaign at hand.
_TOKEN_PARAMS = frozenset({"account"})


def find(option: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration to use: the option's, the environment's, or the first that there is.

    A file that was named is not looked for elsewhere. Raises BadConfig when there is none.
    """
    chosen = option or environ.get("FANOUTD_CONFIG")
    if chosen:
        return Path(chosen)
    places = [Path("fanoutd.toml"), Path("/etc/fanoutd/fanoutd.toml")]
    if environ.get("HOME"):
        places.insert(1, Path(environ["HOME"], ".config/fanoutd/fanoutd.toml"))
    for place in places:
        if os.path.isfile(place):  # Path.is_file raises where a folder may not be searched
            return place
    tried = ", ".join(map(str, places))
    raise BadConfig(f"no configuration: none of {tried}; write one with `fanoutd init` or name it with -c")


def load(path: Path, environ: Mapping[str, str] = os.environ, text: bytes | None = None) -> Config:
    """The configuration in this file, whole and checked; ``text``: as it was read before.

    Raises BadConfig in one line that names file, table and key and says what would be right.
    """
    file = Path(os.path.abspath(path))
    if text is None:
        text, mode = _read_file(file)
        document = _parsed(file, text)
        secret.refuse_public(file, mode, document)
    else:
        document = _parsed(file, text)
    place = Place(file)
    for name in document:
        if name not in SINGLE and name not in NAMED:
            raise place.unknown(name, [*SINGLE, *NAMED], "table")
    daemon = _daemon(document, place)
    accounts = _accounts(document, environ, place)
    messages = _messages(document, place)
    mail, schedule = _mail(document, place), _schedule(document, accounts, place)
    return Config(
        path=file,
        text=text,
        daemon=daemon,
        workers=Workers(**_single(document, "workers", place)),
        store_url=_store_url(document, daemon, place),
        accounts=accounts,
        messages=messages,
        audiences=_audiences(document, messages, place),
        windows={name: Window(*each) for name, each in _single(document, "windows", place).items()},
        mail=mail,
        metrics=_metrics(document, place),
        health=Health(**_single(document, "health", place)),
        schedule=schedule,
        warnings=(*advice(messages.values()), *mail_advice(mail), *retention_advice(schedule),
                  *untouched(accounts.values(), messages.values())),
    )


def for_clients(path: Path) -> Config:
    """What whoever asks a running daemon must know of it: [daemon] and [workers]. The rest, which may be half edited or
    hold secrets that are not for his eyes, is empty. Raises BadConfig."""
    file = Path(os.path.abspath(path))
    text, _ = _read_file(file)
    document, place = _parsed(file, text), Place(file)
    return Config(
        path=file, text=text, daemon=_daemon(document, place), workers=Workers(**_single(document, "workers", place)),
        store_url="", accounts={}, messages={}, audiences={}, windows={}, mail=None, metrics=None,
        health=Health(**_single({}, "health", place)), schedule=Schedule(**_single({}, "schedule", place)), warnings=(),
    )  # fmt: skip


def _read_file(file: Path) -> tuple[bytes, int]:
    try:
        with file.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode
    except OSError as e:
        raise BadConfig(f"{file}: {e.strerror}; write one with `fanoutd init` or name another") from None


def _parsed(file: Path, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise BadConfig(f"{file}: line {line}: not UTF-8; save the file as UTF-8") from None
    except ValueError as e:  # TOMLDecodeError, or an integer of thousands of digits
        last = data.count(b"\n") + 1
        words = str(e).replace("at end of document", f"at line {last}, the end of the file")
        raise BadConfig(f"{file}: not valid TOML: {words}") from None
    except RecursionError:
        raise BadConfig(f"{file}: not valid TOML: nested too deeply") from None


def _single(document: Mapping[str, Any], name: str, place: Place) -> dict[str, Any]:
    return read(document.get(name, {}), SINGLE[name], place.sub(name))


def _below(file: Path, path: Path) -> Path:
    """The path, relative to the file's folder."""
    return Path(os.path.abspath(file.parent / path))


def _daemon(document: Mapping[str, Any], place: Place) -> Daemon:
    values = _single(document, "daemon", place)
    state_dir = _below(place.file, values["state_dir"])
    values |= {
        "state_dir": state_dir,
        "socket": _below(place.file, values["socket"] or state_dir / "fanoutd.sock"),
        "pidfile": _below(place.file, values["pidfile"] or state_dir / "fanoutd.pid"),
        "drop": _below(place.file, values["drop"] or state_dir / "spool" / "drop"),
        "log_file": values["log_file"] and _below(place.file, values["log_file"]),
    }
    length = len(os.fsencode(values["socket"]))
    if length > SOCKET_PATH_MAX:
        words = f"a path of {length} bytes, at most {SOCKET_PATH_MAX} work; choose a shorter one"
        raise place.sub("daemon").error("socket", words)
    return Daemon(**values)


def _store_url(document: Mapping[str, Any], daemon: Daemon, place: Place) -> str:
    return in_full(_single(document, "store", place)["url"], daemon.state_dir)


def _accounts(
    document: Mapping[str, Any], environ: Mapping[str, str], place: Place
) -> dict[str, Account]:
    below = place.sub("account")
    tables = named(document.get("account", {}), below)
    if not tables:
        raise BadConfig(f"{place.file}: [account.main]: is missing; an account wants app_id and its secret")
    return {name: _account(name, raw, environ, below.sub(name)) for name, raw in tables.items()}


def _account(name: str, raw: object, environ: Mapping[str, str], place: Place) -> Account:
    values = read(raw, fields.ACCOUNT, place)
    file = values.pop("app_secret_file")
    values["token"] = _token(values["token"], place.sub("token"))
    values["app_secret"] = secret.app_secret(
        name, file and _below(place.file, file), values["app_secret"], environ, place
    )
    if values["app_secret"] is None and not isinstance(values["token"], TokenQuery):
        variable = secret.environment_name(name)
        raise place.error("app_secret_file", f"is missing; name the secret's file, or set {variable}")
    return Account(name=name, **values)


def _token(value: str | dict[str, Any], place: Place) -> str | TokenQuery:
    if isinstance(value, str):
        return value
    values = read(value, fields.TOKEN_QUERY, place)
    params = kinds.read_query(values["query"], "query", _TOKEN_PARAMS, (), place)
    kinds.check_select(values["query"], values["database"], place)
    return TokenQuery(params=params, **values)


def _messages(document: Mapping[str, Any], place: Place) -> dict[str, Message]:
    below = place.sub("message")
    tables = named(document.get("message", {}), below)
    if not tables:
        raise BadConfig(f"{place.file}: [message.default]: is missing; there must be one kind of message")
    return {name: kinds.read_message(name, raw, below.sub(name)) for name, raw in tables.items()}


def _audiences(
    document: Mapping[str, Any], messages: Mapping[str, Message], place: Place
) -> dict[str, Audience]:
    below = place.sub("audience")
    tables = named(document.get("audience", {}), below)
    variables = {name for message in messages.values() for name in message.variables}
    audiences = {name: kinds.read_audience(name, raw, variables, below.sub(name)) for name, raw in tables.items()}
    for name, each in audiences.items():
        if each.exclude is not None and (each.exclude == name or each.exclude not in audiences):
            others = ", ".join(sorted(audiences.keys() - {name})) or "none"
            raise below.sub(name).error("exclude", f"wants the name of another audience; there is: {others}")
    return audiences


def _schedule(document: Mapping[str, Any], accounts: Mapping[str, Account], place: Place) -> Schedule:
    values = _single(document, "schedule", place)
    first = next(iter(accounts.values()))
    return Schedule(**{**values, "timezone": values["timezone"] or first.timezone})


def _mail(document: Mapping[str, Any], place: Place) -> Mail | None:
    if "mail" not in document:
        return None
    values = _single(document, "mail", place)
    if not values["to"]:
        raise place.sub("mail").error("to", 'wants at least one address, like ["ops@example.com"]')
    return Mail(smtp=values["smtp"], sender=values["from"], to=values["to"], reports=values["reports"])


def _metrics(document: Mapping[str, Any], place: Place) -> Metrics | None:
    if "metrics" not in document:
        return None
    host, port = _single(document, "metrics", place)["listen"]
    return Metrics(host=host, port=port)
