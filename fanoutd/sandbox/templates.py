"""Template messages and subscription notifications: their bodies, and the account's list of templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fanoutd.sandbox.bodies import check_openid
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.keywords import fits

#: Fields of historical templates. WeChat has filtered them out since 2023-05-04.
IGNORED = frozenset({"first", "remark"})

#: The channels that want a template, which is of one family only.
FAMILIES = ("template", "subscribe")

_PLACE = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\.DATA\s*\}\}")
_WEAPP = re.compile(r"wx[0-9A-Za-z]{1,62}")

_SHOWN = ("template_id", "title", "primary_industry", "deputy_industry", "content", "example")


@dataclass(frozen=True, slots=True)
class _Template:
    family: str
    shown: Mapping[str, str]
    keys: tuple[str, ...]
    """The keywords that a message must fill."""


class Templates:
    """What the account has. Before a list is set, every template_id is good."""

    def __init__(self) -> None:
        self._known: dict[str, _Template] | None = None

    def set(self, document: object) -> int:
        """Set the list, None for none; how many there are. Raises ValueError; nothing is changed then.

        An item is what get_all_private_template shows of it, plus ``"family"``: ``"template"`` or ``"subscribe"``.
        """
        if document is not None and not isinstance(document, list):
            raise ValueError("wants a list of templates, or null")
        templates = None if document is None else [_template(each) for each in document]
        self._known = None if templates is None else {each.shown["template_id"]: each for each in templates}
        return len(self._known or ())

    def shown(self) -> list[Mapping[str, str]]:
        """As get_all_private_template tells them, which knows nothing of the other family."""
        return [each.shown for each in (self._known or {}).values() if each.family == "template"]

    def check(self, channel: str, body: Mapping[str, Any], lenient: bool) -> None:
        """Raises Refused unless it is a message for the channel. ``lenient``: without the keywords' rules."""
        check_openid(body.get("touser"))
        template_id, data = body.get("template_id"), body.get("data")
        if not isinstance(template_id, str) or not template_id:
            raise Refused(40037)
        keys = self._keys(channel, template_id)
        if not isinstance(data, dict):
            raise Refused(47003, "data is emtpy")
        _check_jump(body)
        if not lenient:
            _check_data(data, keys)

    def _keys(self, channel: str, template_id: str) -> tuple[str, ...]:
        if self._known is None:
            return ()
        template = self._known.get(template_id)
        if template is None or template.family != channel:
            raise Refused(40037)
        return template.keys


def _template(item: object) -> _Template:
    if not isinstance(item, dict) or not isinstance(item.get("template_id"), str) or not item["template_id"]:
        raise ValueError("a template is an object with its template_id")
    shown = {name: str(item.get(name) or "") for name in _SHOWN}
    family = item.get("family", "template")
    if family not in FAMILIES:
        raise ValueError(f"{shown['template_id']}: the families are {' and '.join(FAMILIES)}")
    keys = dict.fromkeys(_PLACE.findall(shown["content"]))
    return _Template(family, shown, tuple(key for key in keys if key not in IGNORED))


def _check_data(data: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in data:
            raise Refused(47003, f"data.{key}.value is emtpy")
    for key, field in data.items():
        if key not in IGNORED:
            _check_keyword(key, field.get("value") if isinstance(field, dict) else None)


def _check_keyword(key: str, value: object) -> None:
    if isinstance(value, str) and fits(key, value):
        return
    # The misspelling is WeChat's own.
    raise Refused(47003, f"data.{key}.value {'invalid' if value else 'is emtpy'}")


def _check_jump(body: Mapping[str, Any]) -> None:
    """Where a tap leads: ``miniprogram``, empty for nowhere, and the ``page`` of a subscription notification."""
    page, program = body.get("page"), body.get("miniprogram")
    if page is not None and not isinstance(page, str):
        raise Refused(41030)
    if program is None or program == {}:
        return
    appid = program.get("appid") if isinstance(program, dict) else None
    if appid == "" and not program.get("pagepath"):
        return  # the empty struct that one SDK always sends
    if not isinstance(appid, str) or not _WEAPP.fullmatch(appid):
        raise Refused(40166)
    if not isinstance(program.get("pagepath", ""), str):
        raise Refused(40165)
