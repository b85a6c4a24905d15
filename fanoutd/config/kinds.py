"""[message.NAME] and [audience.NAME]: bodies, queries, and the names that may stand in them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fanoutd import message, sqltext
from fanoutd.config import msgtypes
from fanoutd.config.fields import AUDIENCE, MESSAGE, ON_FINISH, Place, read, table
from fanoutd.config.model import Audience, Message, OnFinish
from fanoutd.config.values import sqlite_path

#: What a message may use without naming it in ``variables``.
BUILT_IN = frozenset({"content", "phone", "now", "campaign", "reference"})
#: What a query may use besides the messages' variables.
BUILT_IN_SQL = BUILT_IN | {"account"}
#: What `on_finish` may use besides the message's variables.
BUILT_IN_FINISH = BUILT_IN_SQL | {
    "message", "page", "state", "finished_at", "total", "sent", "failed", "skipped", "unknown", "pending",
}


def read_message(name: str, raw: object, place: Place) -> Message:
    """One kind of message. Raises BadConfig."""
    given = table(raw, place)
    bodies = _bodies(given, place)
    values = read({key: each for key, each in given.items() if key not in bodies}, MESSAGE, place)
    channels = _channels(values["channels"], bodies, place)
    variables = _variables(values["variables"], place)
    used = {each: _read_body(each, body, variables, place.sub(each)) for each, body in bodies.items()}
    for each, body in bodies.items():
        _check_texts(each, body, used[each], values["too_long"], place.sub(each))
    return Message(
        name=name, channels=channels, too_long=values["too_long"], variables=variables,
        bodies={each: bodies[each] for each in channels},
        placeholders=frozenset().union(*(used[each] for each in channels)),
        on_finish=_read_on_finish(values["on_finish"], variables, place.sub("on_finish")),
    )


def _read_on_finish(raw: object, variables: Collection[str], place: Place) -> OnFinish | None:
    if raw is None:
        return None
    found = OnFinish(**read(raw, ON_FINISH, place))
    if found.statement is None and not found.command:
        raise place.error("statement", "is missing, and so is a command; one of them is wanted")
    if (found.statement is None) != (found.database is None):
        missing, other = ("statement", "database") if found.statement is None else ("database", "statement")
        raise place.error(missing, f"is missing; the {other} goes with one")
    read_query(found.statement, "statement", BUILT_IN_FINISH, variables, place)
    _check_sql(found.statement, "statement", found.database, place)
    for each in found.command:
        _read_names(each, BUILT_IN_FINISH, variables, place, "command")
    return found


def _bodies(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The tables of the channels."""
    for key, each in given.items():
        if isinstance(each, dict) and key not in MESSAGE and key not in CHANNELS:
            raise place.unknown(key, CHANNELS, "channel")
    return {key: table(each, place.sub(key)) for key, each in given.items() if key in CHANNELS}


def _channels(
    wanted: tuple[str, ...] | None, bodies: Mapping[str, Any], place: Place
) -> tuple[str, ...]:
    """The channels in the order to try; without the key, those that have a body."""
    channels = tuple(each for each in CHANNELS if each in bodies) if wanted is None else wanted
    for channel in channels:
        if channel not in CHANNELS:
            raise place.error("channels", f'unknown channel "{channel}"; there are: {", ".join(CHANNELS)}')
        if channel not in bodies:
            raise place.error("channels", f"{channel} has no body; write it as [{place.table}.{channel}]")
    if not channels or len(set(channels)) < len(channels):
        raise place.error("channels", 'wants each channel once, at least one, like ["custom", "template"]')
    return channels


def _variables(names: tuple[str, ...], place: Place) -> tuple[str, ...]:
    for name in names:
        if not name.isidentifier():
            raise place.error("variables", f'"{name}" is no name; wants letters, digits and _')
        if name in BUILT_IN_SQL:
            raise place.error("variables", f'"{name}" is built in; choose another name')
    return names


def _read_body(
    channel: str, body: Mapping[str, Any], variables: Collection[str], place: Place
) -> frozenset[str]:
    """Check one body; return the placeholders in it."""
    for key in ("touser", "client_msg_id"):
        if key in body:
            raise place.error(key, "is filled in by fanoutd for each person; leave it out")
    used: set[str] = set()
    for path, value in message.leaves(body):
        used |= _read_leaf(value, variables, place, ".".join(path))
    CHANNELS[channel](body, place)
    return frozenset(used)


def _check_texts(
    channel: str, body: Mapping[str, Any], used: Collection[str], too_long: str, place: Place
) -> None:
    """What is the same in every campaign must be what WeChat takes."""
    for each in message.problems(body, {}, used, channel=channel, too_long=too_long):
        raise place.error(".".join(each.path), each.words)


def _read_leaf(value: object, variables: Collection[str], place: Place, key: str) -> frozenset[str]:
    if isinstance(value, datetime.date | datetime.time):
        raise place.error(key, "a date has no form in JSON; put it in quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise place.error(key, "this number has no form in JSON")
    if not isinstance(value, str):
        return frozenset()
    return _read_names(value, BUILT_IN, variables, place, key)


def _read_names(
    text: str, built_in: Collection[str], variables: Collection[str], place: Place, key: str
) -> frozenset[str]:
    """The placeholders of a text, all of them known."""
    try:
        used = message.placeholders({"": text})
    except ValueError as e:
        raise place.error(key, e) from None
    for name in sorted(used.difference(built_in)):
        if name not in variables:
            raise place.error(key, _unknown(f"{{{name}}}", built_in, "the message's variables"))
    return used


def _unknown(what: str, built_in: Collection[str], variables: str) -> str:
    return f"unknown placeholder {what}; there are {', '.join(sorted(built_in))}, and {variables}"


def _check_keywords(body: Mapping[str, Any], place: Place) -> None:
    """What templates and subscription notifications have in common."""
    if not isinstance(body.get("template_id"), str) or not body["template_id"]:
        raise place.error("template_id", "is missing; wants the template's id from WeChat's console")
    data = body.get("data", {})
    if not isinstance(data, dict):
        raise place.error("data", "wants a table of keywords")
    for key, each in data.items():
        if not isinstance(each, dict) or not isinstance(each.get("value"), str):
            raise place.error(f"data.{key}", f'wants a text, as data.{key}.value = "…"')
        if not isinstance(each.get("color", ""), str):
            raise place.error(f"data.{key}.color", 'wants a text, like "#173177"')
    _check_miniprogram(body.get("miniprogram", {}), place)


def _check_miniprogram(value: object, place: Place) -> None:
    known = ("appid", "pagepath")
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise place.error("miniprogram", 'wants a table, { appid = "wx…", pagepath = "…" }')
    for key in value:
        if key not in known:
            raise place.error(f"miniprogram.{key}", f"unknown key; there are: {', '.join(known)}")
    if value.get("pagepath") and not value.get("appid"):
        raise place.error("miniprogram.appid", "is missing; a pagepath is one of a mini program")


def _check_template(body: Mapping[str, Any], place: Place) -> None:
    _check_keywords(body, place)
    _check_link(body, "url", "page", "a template message's link is called url", place)


def _check_subscribe(body: Mapping[str, Any], place: Place) -> None:
    _check_keywords(body, place)
    _check_link(body, "page", "url", "a subscription notification's link is called page", place)


def _check_link(body: Mapping[str, Any], right: str, wrong: str, words: str, place: Place) -> None:
    if wrong in body:
        raise place.error(wrong, f"unknown key; {words}")
    if not isinstance(body.get(right, ""), str):
        raise place.error(right, "wants a text")


#: The channels of this version, in the order in which they are tried by default.
CHANNELS: Mapping[str, Callable[[Mapping[str, Any], Place], None]] = {
    "custom": msgtypes.check,
    "template": _check_template,
    "subscribe": _check_subscribe,
}


def read_audience(name: str, raw: object, variables: Collection[str], place: Place) -> Audience:
    """One audience; ``variables`` are those of all messages. Raises BadConfig."""
    values = read(raw, AUDIENCE, place)
    if (values["query"] is None) == (values["source"] is None):
        raise place.error("query", 'wants either a query or source = "subscribers"')
    if values["source"] is not None and values["database"] is not None:
        raise place.error("database", "goes with a query; leave it out beside a source")
    for key in ("on_opt_out", "on_opt_in", "on_gone"):
        read_query(values[key], key, BUILT_IN_SQL | {"openid"}, variables, place)
        _check_sql(values[key], key, values["database"], place)
    params = read_query(values["query"], "query", BUILT_IN_SQL, variables, place)
    check_select(values["query"], values["database"], place)
    return Audience(name=name, params=params, **values)


def check_select(query: str | None, database: str | None, place: Place) -> None:
    """Of a query that gives people or a token. Raises BadConfig."""
    _check_sql(query, "query", database, place)
    if query is not None:
        try:
            sqltext.check_reads(query, _in_mysql(database))
        except ValueError as e:
            raise place.error("query", e) from None


def _check_sql(sql: str | None, key: str, database: str | None, place: Place) -> None:
    if sql is not None and _in_mysql(database):
        try:
            sqltext.to_mysql(sql)
        except ValueError as e:
            raise place.error(key, e) from None


def _in_mysql(database: str | None) -> bool:
    return database is not None and sqlite_path(database) is None


def read_query(
    query: str | None, key: str, built_in: Collection[str], variables: Collection[str], place: Place
) -> frozenset[str]:
    """The parameters of a query, all of them known. Raises BadConfig."""
    if query is None:
        return frozenset()
    try:
        used = sqltext.names(query)
    except ValueError as e:
        raise place.error(key, e) from None
    for name in sorted(used):
        if name not in built_in and name not in variables:
            raise place.error(key, _unknown(f"%({name})s", built_in, "the variables of the messages"))
    return used
