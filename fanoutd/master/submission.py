"""From the parameters of a submission to the document in the spool, as pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fanoutd import cron, keywords, message, times
from fanoutd.config import Account, Audience, Config, Message
from fanoutd.errors import BadInput
from fanoutd.ids import keyed_campaign_id, new_campaign_id
from fanoutd.master import params as read
from fanoutd.master.params import invalid
from fanoutd.master.rpc import INVALID_PARAMS, RpcError

Params = Mapping[str, Any]

PARAMS = (
    "content", "phone", "data", "message", "account", "audience", "openids", "upload", "test", "page", "page_size",
    "send_at", "key", "reference", "dry_run", "cron",
)
#: What says of one campaign what cannot be said of many.
_NOT_WITH_CRON = ("upload", "test", "send_at")
#: Ways to say to whom, of which there may be one.
_WHOM = ("audience", "openids", "upload", "test")

PAGE_SIZE = 500
_LONGEST_CONTENT = 100_000
_LONGEST_LABEL = 200
#: Milliseconds since 1970 of 9999-12-30T00:00Z: after it some timezones have no date any more.
_LAST_NOW = 253_402_128_000_000


def from_bare(params: Params) -> Params:
    """A bare object's parameters under their own names: its ``flag`` is the page."""
    if params.get("dry_run"):
        raise invalid("dry_run", "has no answer here; ask by the method campaign.submit")
    if "flag" not in params:
        return params
    if "page" in params:
        raise invalid("flag", "means page, which is given too; give one of them")
    return {"page" if name == "flag" else name: value for name, value in params.items()}


def keyed_id(params: Params, config: Config) -> str | None:
    """The id that account and key give, None without a key. Raises RpcError."""
    key = _key(params)
    return None if key is None else _as_it_comes(params, keyed_campaign_id(_account(params, config).name, key))


def _as_it_comes(params: Params, campaign: str) -> str:
    """The id, of one that comes again an ``r-…``."""
    return campaign if params.get("cron") is None else f"r-{campaign[2:]}"


def document(params: Params, config: Config, *, now_ms: int, uid: int, pid: int) -> dict[str, Any]:
    """The spool's document, checked against the configuration. Raises RpcError that names the field.

    ``uid`` and ``pid`` are the peer's; ``now_ms`` is the wall clock.
    """
    read.only(params, PARAMS)
    account, kind = _account(params, config), _message(params, config)
    openids, upload, test = _listed(params)
    listed = openids is not None or upload is not None
    audience = None if listed else _audience(params, config)
    submitted = {
        "v": 1,
        "campaign": keyed_id(params, config) or _as_it_comes(params, new_campaign_id(now_ms)),
        "at": now_ms,
        "account": account.name,
        "message": kind.name,
        "audience": audience.name if audience else None,
        "content": _content(params, kind),
        "phone": read.label(params, "phone", _LONGEST_LABEL),
        "data": _data(params, kind, audience, config),
        "openids": openids,
        "upload": upload,
        "test": test,
        "page": _page(params, listed),
        "page_size": read.whole(params, "page_size", 1, 1_000_000, PAGE_SIZE),
        "send_at": read.when(params, "send_at"),
        "cron": _cron(params, account.timezone, now_ms),
        "key": _key(params),
        "reference": read.label(params, "reference", _LONGEST_LABEL),
        "uid": uid,
        "pid": pid,
    }
    _fits(submitted, kind, account)
    return submitted


def _account(params: Params, config: Config) -> Account:
    with _refusing("account"):
        return config.pick("account", read.text(params, "account", _LONGEST_LABEL))


def _message(params: Params, config: Config) -> Message:
    with _refusing("message"):
        return config.pick("message", read.text(params, "message", _LONGEST_LABEL))


@contextmanager
def _refusing(field: str) -> Iterator[None]:
    """A name that the configuration does not have is the client's error."""
    try:
        yield
    except BadInput as e:
        raise RpcError(INVALID_PARAMS, str(e), field) from None


def _audience(params: Params, config: Config) -> Audience:
    if not config.audiences and params.get("audience") is None:
        raise invalid("openids", "must be given: no audience is configured")
    with _refusing("audience"):
        return config.pick("audience", read.text(params, "audience", _LONGEST_LABEL))


def _listed(params: Params) -> tuple[list[str] | None, str | None, bool]:
    """(the list, the upload, whether it is a test), None for what is not given: an empty list never means everyone."""
    given = [name for name in _WHOM if params.get(name) is not None]
    if len(given) > 1:
        raise invalid(given[0], f"and {given[1]} exclude each other; give one of them")
    if given == ["test"]:
        return [read.openid(params["test"], "test")], None, True
    if given == ["upload"]:
        return None, read.upload(params), False
    return (read.openids(params["openids"]) if given == ["openids"] else None), None, False


def _content(params: Params, kind: Message) -> str | None:
    content = read.text(params, "content", _LONGEST_CONTENT)
    if "content" in kind.placeholders and (content is None or not content.strip()):
        raise invalid("content", f"must not be empty: the message {kind.name!r} is made of it")
    return content


def _fits(document: Mapping[str, Any], kind: Message, account: Account) -> None:
    """Refuse what WeChat would refuse of everybody. What each person brings is looked at when it is sent."""
    values = _values(document, account.timezone)
    people = [name for name in kind.variables if name not in values]
    for channel, body in kind.bodies.items():
        for each in message.problems(body, values, people, channel=channel, too_long=kind.too_long):
            if not each.empty or channel == kind.channels[0]:  # else most people may get it on another channel
                raise _misfit(each, channel, values, kind)


def _values(document: Mapping[str, Any], timezone: str) -> dict[str, str]:
    """As message_values gives them to the worker, the campaign beginning as soon as it may."""
    data: dict[str, str] = document["data"]
    own: dict[str, str] = {name: document[name] or "" for name in ("content", "phone", "campaign", "reference")}
    begins = min(max(document["at"], document["send_at"] or 0), _LAST_NOW)
    return data | own | {"now": times.message_now(begins, timezone)}


def _misfit(why: message.RenderError, channel: str, values: Mapping[str, str], kind: Message) -> RpcError:
    """In the name of the parameter that is to blame."""
    given = [name for name in why.names if name not in ("now", "campaign") and name in values]
    field = ".".join(why.path)
    given.sort(key=lambda name: len(values[name]), reverse=True)
    if channel != "custom" and why.path[0] == "data":
        field, key = f"template field {why.path[1]}", why.path[1]
        given.sort(key=lambda name: keywords.good(key, values[name]))
    name = given[0] if given else "message"
    shown = f"data.{name}" if name in kind.variables else name
    return RpcError(INVALID_PARAMS, f"{shown}: {field} of message {kind.name!r}: {why.words}", shown)


def _data(params: Params, kind: Message, audience: Audience | None, config: Config) -> dict[str, str]:
    data = read.table(params, "data")
    variables = {name for each in config.messages.values() for name in each.variables}
    known = {*kind.variables, *(variables & audience.params if audience else ())}
    for name in data:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise invalid(f"data.{name[:60]}", f"is no variable of message {kind.name!r}; there is: {there}")
    return data


def _page(params: Params, listed: bool) -> int | None:
    page = read.whole(params, "page", 0, 1_000_000_000, None)
    if page is not None and listed:
        raise invalid("page", "goes with an audience, not with openids")
    return page


def _key(params: Params) -> str | None:
    key = read.label(params, "key", _LONGEST_LABEL)
    if key is not None and not key.strip():
        raise invalid("key", "must not be empty; leave it out for a campaign without one")
    return key


def _cron(params: Params, timezone: str, now_ms: int) -> str | None:
    line = read.text(params, "cron", _LONGEST_LABEL)
    if line is None:
        return None
    for name in _NOT_WITH_CRON:
        if params.get(name) is not None:
            raise invalid(name, "goes with one campaign, not with cron")
    try:
        if cron.next_after(line, timezone, now_ms) is None:
            raise ValueError("no time is like that")
    except ValueError as e:
        raise invalid("cron", f"{line[:60]!r}: {e}") from None
    return " ".join(line.split())
