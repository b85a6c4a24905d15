"""Checks of what clients send, with the errcodes that WeChat gives for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.keywords import fits

#: WeChat does not publish the limit; this is what users measured.
MAX_TEXT = 2048

_OPENID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u")

#: The field each msgtype must have besides text and news, and the errcode without it.
_REQUIRED: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "image": ("media_id", 40007),
        "voice": ("media_id", 40007),
        "video": ("media_id", 40007),
        "music": ("thumb_media_id", 40007),
        "mpnews": ("media_id", 40007),
        "mpnewsarticle": ("article_id", 40035),
        "msgmenu": ("list", 40035),
        "wxcard": ("card_id", 40035),
        "miniprogrampage": ("pagepath", 40035),
        "link": ("url", 40035),
    }
)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises Refused, for ``\\uXXXX`` escapes too: WeChat wants raw UTF-8."""
    if not data:
        raise Refused(44002)
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise Refused(47001) from None
    if not isinstance(document, dict):
        raise Refused(47001)
    if b"\\u" in data and _ESCAPE.search(data):
        raise Refused(47002)
    return document


def check_custom(body: dict[str, Any]) -> None:
    """Raises Refused unless it is a custom message."""
    _check_openid(body)
    msgtype = body.get("msgtype")
    if msgtype not in ("text", "news", *_REQUIRED):
        raise Refused(45050)
    content = body.get(msgtype)
    content = content if isinstance(content, dict) else {}
    if msgtype == "text":
        _check_text(content.get("content"))
    elif msgtype == "news":
        _check_articles(content.get("articles"))
    else:
        name, errcode = _REQUIRED[msgtype]
        if not content.get(name):
            raise Refused(errcode)


def check_template(body: dict[str, Any], lenient: bool) -> None:
    """Raises Refused unless it is a template message. ``lenient``: without the keywords' rules."""
    _check_openid(body)
    template_id, data = body.get("template_id"), body.get("data")
    if not template_id or not isinstance(template_id, str):
        raise Refused(40037)
    if not isinstance(data, dict):
        raise Refused(47003, "data is emtpy")
    if not lenient:
        for key, field in data.items():
            _check_keyword(key, field.get("value") if isinstance(field, dict) else None)


def _check_openid(body: dict[str, Any]) -> None:
    openid = body.get("touser")
    if not isinstance(openid, str) or not _OPENID.fullmatch(openid):
        raise Refused(40003)


def _check_text(content: object) -> None:
    if not isinstance(content, str) or not content:
        raise Refused(44004)
    if len(content.encode("utf-8", "replace")) > MAX_TEXT:
        raise Refused(45002)


def _check_articles(articles: object) -> None:
    if not isinstance(articles, list) or not articles:
        raise Refused(44003)
    if len(articles) > 1:  # one article since 2018-10-12
        raise Refused(45008)


def _check_keyword(key: str, value: object) -> None:
    if isinstance(value, str) and fits(key, value):
        return
    # The misspelling is WeChat's own.
    raise Refused(47003, f"data.{key}.value {'invalid' if value else 'is emtpy'}")
