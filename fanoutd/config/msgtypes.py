"""The kinds of custom messages: what each must have and may have. From WeChat's page on customer-service messages.

Keys beyond these pass, since WeChat adds some from time to time; one that looks like a slip of the pen does not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fanoutd.config.fields import Place
from fanoutd.errors import BadConfig


@dataclass(frozen=True, slots=True)
class Kind:
    """The keys of the table that bears the msgtype's name; ``items`` checks the list that some have.

    ``advice`` is a line for the operator who uses it.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    items: Callable[[Mapping[str, Any], Place], None] | None = None
    advice: str | None = None


_KF_ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+")


def _articles(news: Mapping[str, Any], place: Place) -> None:
    articles = news.get("articles")
    if not isinstance(articles, list) or len(articles) != 1 or not isinstance(articles[0], dict):
        words = 'wants exactly one article (WeChat takes no more): [{ title = "…", description = "…", url = "…", '
        raise place.error("news.articles", words + 'picurl = "…" }]')
    _texts(articles[0], ("title",), ("description", "url", "picurl"), "news.articles.0", place)


def _choices(menu: Mapping[str, Any], place: Place) -> None:
    choices = menu.get("list")
    if not isinstance(choices, list) or not choices:
        raise place.error("msgmenu.list", 'wants at least one choice: [{ id = "1", content = "…" }]')
    for index, each in enumerate(choices):
        key = f"msgmenu.list.{index}"
        if not isinstance(each, dict):
            raise place.error(key, 'wants a table like { id = "1", content = "…" }')
        whole = {name: str(value) if type(value) is int else value for name, value in each.items()}
        _texts(whole, ("id", "content"), (), key, place)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "text": Kind(("content",)),
        "image": Kind(("media_id",)),
        "voice": Kind(("media_id",)),
        "video": Kind(("media_id",), ("thumb_media_id", "title", "description")),
        "music": Kind(("musicurl", "thumb_media_id"), ("hqmusicurl", "title", "description")),
        "news": Kind((), ("articles",), _articles),
        "mpnews": Kind(("media_id",)),
        "mpnewsarticle": Kind(("article_id",)),
        "msgmenu": Kind((), ("head_content", "list", "tail_content"), _choices),
        "wxcard": Kind(("card_id",), ("card_ext",)),
        "miniprogrampage": Kind(("appid", "pagepath", "thumb_media_id"), ("title",)),
        "link": Kind(
            ("title", "url"), ("description", "thumb_url"),
            advice="WeChat takes it from mini programs only; an official account is refused",
        ),
    }
)


def check(body: Mapping[str, Any], place: Place) -> None:
    """A custom message's body. Raises BadConfig that names the key and says what is right."""
    msgtype = body.get("msgtype")
    if not isinstance(msgtype, str) or not msgtype:
        raise place.error("msgtype", f'is missing; wants the kind of custom message, like "text": {", ".join(KINDS)}')
    if msgtype not in KINDS:
        raise _unknown(msgtype, place)
    for other in body:
        if other in KINDS and other != msgtype:
            raise place.error(other, f'belongs to msgtype = "{other}"; here it is "{msgtype}"')
    table = body.get(msgtype)
    if not isinstance(table, dict):
        raise place.error(msgtype, f"is missing; a message of msgtype {msgtype} wants a table of that name")
    kind = KINDS[msgtype]
    lists = () if kind.items is None else ("articles", "list")
    texts = tuple(each for each in kind.optional if each not in lists)
    _texts({key: each for key, each in table.items() if key not in lists}, kind.required, texts, msgtype, place, lists)
    if kind.items is not None:
        kind.items(table, place)
    _check_sender(body, place)


def _unknown(msgtype: str, place: Place) -> BadConfig:
    near = difflib.get_close_matches(msgtype, KINDS, 1)
    hint = f'did you mean "{near[0]}"? There are' if near else "there are"
    return place.error("msgtype", f'unknown msgtype "{msgtype[:40]}"; {hint}: {", ".join(KINDS)}')


def _texts(
    table: Mapping[str, Any], required: tuple[str, ...], optional: tuple[str, ...], name: str, place: Place,
    others: tuple[str, ...] = (),
) -> None:
    """The table has these texts, and no others that look like one of them."""
    known = (*required, *optional, *others)
    for key, value in table.items():
        if key in known and not isinstance(value, str):
            raise place.error(f"{name}.{key}", "wants a text")
        near = difflib.get_close_matches(key, [each for each in known if each not in table], 1, 0.75)
        if key not in known and near:
            raise place.error(f"{name}.{key}", f'unknown key; did you mean "{near[0]}"?')
    for key in required:
        if not table.get(key):
            there = f"; it has {', '.join(known)}" if len(known) > 1 else ""
            raise place.error(f"{name}.{key}", f"is missing or empty; {name} needs it{there}")


def _check_sender(body: Mapping[str, Any], place: Place) -> None:
    if "customservice" not in body:
        return
    sender = body["customservice"]
    account = sender.get("kf_account") if isinstance(sender, dict) else None
    if not isinstance(account, str) or not ("{" in account or _KF_ACCOUNT.fullmatch(account)):
        raise place.error("customservice.kf_account", 'wants the sender\'s full name, like "name@gh_account"')
