"""What is sent: a body filled in once a campaign, then rendered per person.

A placeholder is a plain name, ``{content}``; ``{{`` and ``}}`` are literal braces; braces in values
are never expanded. JSON goes out as raw UTF-8, since WeChat refuses or shows ``\\uXXXX`` escapes
(errcodes 40033 and 47002).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from fanoutd import keywords
from fanoutd.errors import BadInput
from fanoutd.keywords import Empty, Misfit

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")

#: Bytes of a custom text message. Source: error 45002; WeChat publishes no figure, this one was measured by users.
TEXT_BYTES = 2048

#: Characters that JSON can only write as \uXXXX; they are sent as blanks.
_NEEDS_ESCAPE = {code: " " for code in range(32) if chr(code) not in "\b\f\n\r\t"}

#: Channels whose bodies have ``data`` of keywords, and what their links are called.
_WITH_KEYWORDS = ("template", "subscribe")
_LINKS = ("url", "page")

#: The keys that lead to a value of a body.
Keys = tuple[str, ...]


class RenderError(BadInput):
    """A message that cannot be rendered.

    ``path`` leads to the field, ``names`` are the placeholders in it; ``empty``: it fails for want of a value.
    """

    def __init__(self, path: Keys, words: str, names: tuple[str, ...] = (), empty: bool = False) -> None:
        super().__init__(f"{'.'.join(path)}: {words}")
        self.path, self.words, self.names, self.empty = path, words, names, empty


@dataclass(frozen=True, slots=True)
class Name:
    """A placeholder between literal texts."""

    text: str


Fragments = tuple[str | Name, ...]


def parse(text: str) -> Fragments:
    """Literal texts and names. Raises ValueError for a lone brace or what is no plain name."""
    return tuple(_fragment(match, text) for match in _TOKEN.finditer(text))


def _fragment(match: re.Match[str], text: str) -> str | Name:
    token, name = match[0], match[1]
    if name is not None:
        if not name.isidentifier():
            raise ValueError(f"{token[:40]!r} is no placeholder; write {{name}}, or {{{{ and }}}} for braces")
        return Name(name)
    if token in ("{", "}"):
        near = text[match.start():match.start() + 12]
        raise ValueError(f"lone {token} at {near!r}; write {token * 2} for a literal brace")
    return token[0] if token in ("{{", "}}") else token


def leaves(value: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value of a body that is neither table nor list, with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from leaves(each, (*path, str(index)))
    else:
        yield path, value


def placeholders(body: Mapping[str, Any]) -> frozenset[str]:
    """All names that the body uses. Raises ValueError as parse does."""
    texts = (text for _, text in leaves(body) if isinstance(text, str))
    return frozenset(each.text for text in texts for each in parse(text) if isinstance(each, Name))


def _text(text: str) -> str:
    """The text of a custom message, which WeChat counts in bytes of UTF-8."""
    size = len(text.encode("utf-8", "replace"))
    if size > TEXT_BYTES:
        raise Misfit(f"{size} bytes ({len(text)} characters), WeChat takes {TEXT_BYTES} bytes; shorten the text")
    if not text:
        raise Empty("is empty, which WeChat refuses")
    return text


def _as_is(text: str) -> str:
    return text


def _dump(value: Any) -> bytes:
    if isinstance(value, str):
        value = value.translate(_NEEDS_ESCAPE)
    # A lone surrogate has no UTF-8; it comes only from a client's broken JSON escape.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A text that differs from person to person. ``lead`` goes before it; optional ones are left out when empty."""

    fragments: Fragments
    path: Keys
    names: tuple[str, ...]
    fit: Callable[[str], str]
    lead: bytes = b""
    optional: bool = False

    def fill(self, person: Mapping[str, str]) -> bytes:
        text = "".join(
            each if isinstance(each, str) else _value(each.text, person, self.path) for each in self.fragments
        )
        try:
            text = self.fit(text)
        except Misfit as e:
            raise RenderError(self.path, str(e), self.names, isinstance(e, Empty)) from None
        return b"" if self.optional and not text else self.lead + _dump(text)


@dataclass(frozen=True, slots=True)
class _Never:
    """In place of a body that fits nobody."""

    path: Keys
    words: str

    def fill(self, _person: Mapping[str, str]) -> bytes:
        raise RenderError(self.path, self.words)


@dataclass(frozen=True, slots=True)
class _Group:
    """Parts of which none is sent when the first is empty."""

    first: _Slot
    rest: tuple[bytes | _Slot, ...]

    def fill(self, person: Mapping[str, str]) -> bytes:
        first = self.first.fill(person)
        return first and first + b"".join(each if isinstance(each, bytes) else each.fill(person) for each in self.rest)


_Part = bytes | _Slot | _Never | _Group


def _value(name: str, values: Mapping[str, str], path: Keys) -> str:
    try:
        return values[name]
    except KeyError:
        raise RenderError(path, f"nothing is given for {{{name}}}", (name,)) from None


@dataclass(frozen=True, slots=True)
class Body:
    """A message of one channel, ready but for the person. Made by compile_body."""

    channel: str
    _parts: tuple[_Part, ...]

    def render(
        self, openid: str, person: Mapping[str, str] | None = None, client_msg_id: str | None = None
    ) -> bytes:
        """The request's JSON, ``touser`` first.

        ``person`` gives the per-person values; RenderError when one is missing or does not fit.
        ``client_msg_id`` is WeChat's key against doubles and exists for templates only. Both ids
        consist of ``A-Z a-z 0-9 _ -``, so they need no escaping here.
        """
        head = f'{{"touser":"{openid}"'
        if client_msg_id is not None and self.channel == "template":
            head += f',"client_msg_id":"{client_msg_id}"'
        parts = self._parts
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return head.encode() + parts[0]
        known = person or {}
        return head.encode() + b"".join(
            part if isinstance(part, bytes) else part.fill(known) for part in parts
        )


@dataclass(frozen=True, slots=True)
class _Compiler:
    """What one compile_body knows on its way down the body."""

    values: Mapping[str, str]
    per_person: Collection[str]
    channel: str
    too_long: str

    def members(self, body: Mapping[str, Any]) -> Iterator[_Part]:
        """The body's keys and values, each after a comma. WeChat wants no empty links: those are left out."""
        for key, value in body.items():
            lead = b"," + _dump(key) + b":"
            if key in _LINKS and self.channel in _WITH_KEYWORDS and isinstance(value, str):
                yield self.text(value, (key,), lead, optional=True)
            elif key == "miniprogram" and isinstance(value, Mapping):
                yield from self.miniprogram(value, lead)
            else:
                yield lead
                yield from self.pieces(value, (key,))

    def miniprogram(self, value: Mapping[str, Any], lead: bytes) -> Iterator[_Part]:
        """Without an appid it says nothing."""
        appid = self.text(str(value.get("appid", "")), ("miniprogram", "appid"), lead + b'{"appid":', optional=True)
        page = self.text(
            str(value.get("pagepath", "")), ("miniprogram", "pagepath"), b',"pagepath":', optional=True
        )
        if not isinstance(appid, bytes):
            yield _Group(appid, (page, b"}"))
        elif appid:
            yield from (appid, page, b"}")

    def pieces(self, value: Any, path: Keys) -> Iterator[_Part]:
        """The value as JSON, in pieces."""
        if isinstance(value, Mapping):
            yield b"{"
            for index, (key, each) in enumerate(value.items()):
                yield (b"," if index else b"") + _dump(key) + b":"
                yield from self.pieces(each, (*path, key))
            yield b"}"
        elif isinstance(value, list | tuple):
            yield b"["
            for index, each in enumerate(value):
                yield b"," if index else b""
                yield from self.pieces(each, (*path, str(index)))
            yield b"]"
        else:
            yield self.text(value, path) if isinstance(value, str) else _dump(value)

    def text(self, text: str, path: Keys, lead: bytes = b"", optional: bool = False) -> bytes | _Slot:
        """A string: bytes, unless it holds a name that stays open."""
        parsed = _parsed(text, path)
        fragments: Fragments = tuple(
            each if isinstance(each, str) or each.text in self.per_person
            else _value(each.text, self.values, path)
            for each in parsed
        )
        names = tuple(each.text for each in parsed if isinstance(each, Name))
        slot = _Slot(fragments, path, names, self.fit(path), lead, optional)
        if not any(isinstance(each, Name) for each in fragments):
            return slot.fill({})
        known = "".join(each for each in fragments if isinstance(each, str))
        if slot.fit is _text and known:  # with the rest it can only get longer
            replace(slot, fragments=(known,)).fill({})
        return slot

    def fit(self, path: Keys) -> Callable[[str], str]:
        """WeChat's rule for the value at this place."""
        if self.channel in _WITH_KEYWORDS and len(path) == 3 and path[0] == "data" and path[2] == "value":
            return partial(keywords.fit, path[1], cut=self.too_long == "cut")
        return _text if self.channel == "custom" and path == ("text", "content") else _as_is


def _parsed(text: str, path: Keys) -> Fragments:
    try:
        return parse(text)
    except ValueError as e:
        raise RenderError(path, str(e)) from None


def compile_body(
    body: Mapping[str, Any],
    values: Mapping[str, str],
    per_person: Collection[str] = (),
    *,
    channel: str,
    too_long: str = "cut",
) -> Body:
    """The body with ``values`` filled in; names in ``per_person`` stay open until render.

    ``body`` is WeChat's own, less touser. With ``too_long`` "cut" a template value over its type's
    limit ends in "…" and its line breaks become blanks; with "fail" both raise RenderError. So do, always,
    characters that its type does not have, a custom text that is empty or too long, and a name that is in
    neither ``values`` nor ``per_person``. Empty links (``url``, ``page``, ``miniprogram``) are left out.
    """
    compiler = _Compiler(values, frozenset(per_person), channel, too_long)
    return Body(channel, tuple(_joined([*compiler.members(body), b"}"])))


def problems(
    body: Mapping[str, Any],
    values: Mapping[str, str],
    per_person: Collection[str] = (),
    *,
    channel: str,
    too_long: str = "cut",
) -> Iterator[RenderError]:
    """Everything for which compile_body would refuse the body, field by field."""
    compiler = _Compiler(values, frozenset(per_person), channel, too_long)
    for path, value in leaves(body):
        if isinstance(value, str):
            try:
                compiler.text(value, path)
            except RenderError as e:
                yield e


def broken_body(channel: str, why: RenderError) -> Body:
    """In place of one that compile_body refuses: it raises RenderError for everybody."""
    return Body(channel, (_Never(why.path, why.words),))


def _joined(pieces: list[_Part]) -> Iterator[_Part]:
    """Neighbouring bytes become one."""
    for fixed, run in groupby(pieces, key=lambda piece: isinstance(piece, bytes)):
        if fixed:
            yield b"".join(piece for piece in run if isinstance(piece, bytes))
        else:
            yield from run
