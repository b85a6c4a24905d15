"""Who follows the account, in which order, with which tags; who is blacklisted, and who has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanoutd.sandbox.bodies import check_openid
from fanoutd.sandbox.errcodes import Refused

#: The first follower came then, the others one second after the other.
_FIRST_CAME = 1_600_000_000

_OPENID_LENGTH = 28
_MOST = 5_000_000


@dataclass(frozen=True, slots=True)
class Listing:
    """Openids in their order, each once, and where each stands."""

    openids: Sequence[str] = ()
    places: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(openids: Iterable[str]) -> Listing:
        places = {openid: place for place, openid in enumerate(dict.fromkeys(openids))}
        return Listing(tuple(places), places)

    def page(self, after: object, size: int, end: str) -> tuple[Sequence[str], str]:
        """(openids after that one, the next_openid). Raises Refused when it is not in the list.

        ``end``, see options.list_end: field reports say "extra", WeChat's page allows for "empty".
        """
        start = self._after(after)
        if end == "repeat" and start and start == len(self.openids):
            start = (start - 1) // size * size
        openids = self.openids[start : start + size]
        if not openids or (end == "empty" and start + size >= len(self.openids)):
            return openids, ""
        return openids, openids[-1]

    def _after(self, openid: object) -> int:
        if openid in (None, ""):
            return 0
        if not isinstance(openid, str) or openid not in self.places:
            raise Refused(40003)
        return self.places[openid] + 1


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    members: Listing


class Followers:
    """Nobody, until they are set. Whoever is not among them can be sent to all the same, but for those who left."""

    def __init__(self) -> None:
        self.all = Listing()
        self.tags: dict[int, Tag] = {}
        self.blacklist = Listing()
        self.gone: frozenset[str] = frozenset()
        self._tags_of: dict[str, list[int]] = {}

    def set(self, document: object) -> dict[str, int]:
        """Replace what the document names, return how many there are. Raises ValueError; nothing is changed then.

        Keys: ``openids``, or ``count`` and ``prefix`` (openids of 28 characters, numbered from 0); ``tags``,
        ``{"2": {"name": …, "openids": […]}}``; ``blacklist``; ``gone``, those who follow no longer.
        """
        if not isinstance(document, dict):
            raise ValueError("wants an object of openids, tags, blacklist, gone")
        unknown = document.keys() - {"openids", "count", "prefix", "tags", "blacklist", "gone"}
        if unknown:
            raise ValueError(f"no part {sorted(unknown)[0][:40]!r}; there are openids, count, tags, blacklist, gone")
        everybody = _listing(document) if document.keys() & {"openids", "count"} else self.all
        tags = _tags(document["tags"]) if "tags" in document else self.tags
        blacklist = _listing({"openids": document["blacklist"]}) if "blacklist" in document else self.blacklist
        gone = frozenset(_openids(document["gone"])) if "gone" in document else self.gone
        if gone:
            everybody = Listing.of(openid for openid in everybody.openids if openid not in gone)
        self.all, self.tags, self.blacklist, self.gone = everybody, tags, blacklist, gone
        self._tags_of = _by_member(tags)
        return {"followers": len(everybody.openids), "tags": len(tags), "blacklist": len(blacklist.openids)}

    def refusal(self, openid: str) -> int:
        """The errcode for a message to somebody blacklisted or gone, else 0."""
        if openid in self.blacklist.places:
            return 43019
        return 43004 if openid in self.gone else 0

    def tags_of(self, openid: str) -> list[int]:
        return self._tags_of.get(openid, [])

    def info(self, openid: object, lang: object) -> dict[str, Any]:
        """As user/info shapes it; of a stranger no more than that. Nickname and avatar are gone since 2021-12-27."""
        openid = check_openid(openid)
        place = self.all.places.get(openid)
        if place is None or openid in self.gone:
            return {"subscribe": 0, "openid": openid}
        tags = self.tags_of(openid)
        return {
            "subscribe": 1, "openid": openid, "language": lang or "zh_CN", "subscribe_time": _FIRST_CAME + place,
            "remark": "", "groupid": tags[0] if tags else 0, "tagid_list": tags,
            "subscribe_scene": "ADD_SCENE_QR_CODE", "qr_scene": 0, "qr_scene_str": "",
        }  # fmt: skip


def _listing(spec: Mapping[str, object]) -> Listing:
    if "openids" in spec:
        return Listing.of(_openids(spec["openids"]))
    count, prefix = spec.get("count"), spec.get("prefix", "oFOLLOW")
    if not isinstance(count, int) or not 0 <= count <= _MOST or not isinstance(prefix, str) or len(prefix) > 20:
        raise ValueError(f"wants openids, or a count up to {_MOST} and a prefix of at most 20 characters")
    width = _OPENID_LENGTH - len(prefix)
    return Listing.of(_openids([f"{prefix}{nth:0{width}}" for nth in range(count)]))


def _openids(value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("wants a list of openids")
    try:
        return [check_openid(openid) for openid in value]
    except Refused:
        raise ValueError("an openid consists of A-Z a-z 0-9 _ - and is no longer than 64") from None


def _tags(value: object) -> dict[int, Tag]:
    if not isinstance(value, dict):
        raise ValueError('tags want an object like {"2": {"name": "vip", "openids": []}}')
    return {_number(number): _tag(spec) for number, spec in value.items()}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"a tag's id is a number, not {text[:20]!r}")
    return int(text)


def _tag(spec: object) -> Tag:
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError("a tag has a name, and openids or count and prefix")
    return Tag(spec["name"], _listing(spec))


def _by_member(tags: Mapping[int, Tag]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for number, tag in tags.items():
        for openid in tag.members.openids:
            members.setdefault(openid, []).append(number)
    return members
