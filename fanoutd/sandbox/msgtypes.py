"""The custom messages: each msgtype's required fields, and the errcode without them.

From WeChat's page on customer-service messages. It does not say which errcode a missing field gets; where
its tables of return codes name none, it is 40035 here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fanoutd.sandbox.bodies import check_openid
from fanoutd.sandbox.errcodes import Refused

#: Bytes of UTF-8. WeChat does not publish the limit; this is what users measured.
MAX_TEXT = 2048

#: The fields that must be there besides those with a rule of their own. Titles and descriptions are optional.
REQUIRED: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "text": {"content": 44004},
        "image": {"media_id": 40007},
        "voice": {"media_id": 40007},
        "video": {"media_id": 40007},
        "music": {"musicurl": 40035, "thumb_media_id": 40007},
        "news": {"articles": 44003},
        "mpnews": {"media_id": 40007},
        "mpnewsarticle": {"article_id": 40035},
        "msgmenu": {"list": 40035},
        "wxcard": {"card_id": 40035},
        "miniprogrampage": {"appid": 40035, "pagepath": 40035, "thumb_media_id": 40007},
        "link": {"title": 40035, "url": 40035},
    }
)

#: Fields that are no text.
_LISTS = frozenset({"articles", "list"})

_KF_ACCOUNT = re.compile(r"[^@\s]{1,64}@[^@\s]{1,64}")


def check_custom(body: dict[str, Any]) -> None:
    """Raises Refused unless it is a custom message."""
    check_openid(body.get("touser"))
    msgtype = body.get("msgtype")
    if not isinstance(msgtype, str) or msgtype not in REQUIRED:
        raise Refused(45050)
    content = body.get(msgtype)
    content = content if isinstance(content, dict) else {}
    for name, errcode in REQUIRED[msgtype].items():
        if not isinstance(content.get(name), list if name in _LISTS else str) or not content[name]:
            raise Refused(errcode)
    if msgtype in _RULES:
        _RULES[msgtype](content)
    if body.get("customservice") is not None:
        _check_service(body["customservice"])


def _check_text(content: dict[str, Any]) -> None:
    if len(content["content"].encode("utf-8", "replace")) > MAX_TEXT:
        raise Refused(45002)


def _check_articles(content: dict[str, Any]) -> None:
    if len(content["articles"]) > 1:  # one article since 2018-10-12
        raise Refused(45008)
    [article] = content["articles"]
    if not isinstance(article, dict) or not article.get("title"):
        raise Refused(44003)


def _check_menu(content: dict[str, Any]) -> None:
    for item in content["list"]:
        if not isinstance(item, dict) or not item.get("id") or not item.get("content"):
            raise Refused(40035)


def _check_service(service: object) -> None:
    account = service.get("kf_account") if isinstance(service, dict) else None
    if not isinstance(account, str) or not _KF_ACCOUNT.fullmatch(account):
        raise Refused(61451)


_RULES: Mapping[str, Callable[[dict[str, Any]], None]] = MappingProxyType(
    {"text": _check_text, "news": _check_articles, "msgmenu": _check_menu}
)
