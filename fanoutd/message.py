"""What is sent: a body filled in once a campaign, then rendered per person.

A placeholder is a plain name, ``{content}``; ``{{`` and ``}}`` are literal braces; braces in values
are never expanded. JSON goes out as raw UTF-8, since WeChat refuses or shows ``\\uXXXX`` escapes
(errcodes 40033 and 47002).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fanoutd.errors import BadInput

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")

#: Longest value of a template keyword in characters, by the letters of its key ("thing1" is a thing).
#: Source: WeChat's page on sending template messages and the one on subscription messages. Types
#: that a cut would turn into another value (amount, time, date) are left to WeChat's judgement.
_LIMITS = {
    "thing": 20, "number": 32, "letter": 32, "symbol": 5, "character_string": 32, "phone_number": 17,
    "car_number": 8, "name": 10, "phrase": 5, "const": 20,
}
#: A name without Chinese may be longer; a mixed one counts as Chinese.
_LATIN_NAME = 20

#: Template values bear no line breaks or control characters.
_BREAKS = re.compile("\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ELLIPSIS = "…"
#: Characters that JSON can only write as \uXXXX; they are sent as blanks.
_NEEDS_ESCAPE = {code: " " for code in range(32) if chr(code) not in "\b\f\n\r\t"}

#: The keys that lead to a value of a body.
Keys = tuple[str, ...]


class RenderError(BadInput):
    """A message that cannot be rendered; names the field, and the placeholder if it is about one."""


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


def _limit(path: Keys, text: str) -> int | None:
    kind = path[1].rstrip("0123456789")
    return _LATIN_NAME if kind == "name" and text.isascii() else _LIMITS.get(kind)


def _cut(text: str, path: Keys) -> str:
    text = _BREAKS.sub(" ", text)
    limit = _limit(path, text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + _ELLIPSIS


def _refuse(text: str, path: Keys) -> str:
    limit = _limit(path, text)
    if limit is not None and len(text) > limit:
        raise RenderError(f"{'.'.join(path)}: {len(text)} characters, WeChat takes {limit}; shorten the text")
    if _BREAKS.search(text):
        raise RenderError(f"{'.'.join(path)}: has a line break or control character, which WeChat refuses")
    return text


def _as_is(text: str, _path: Keys) -> str:
    return text


def _dump(value: Any) -> bytes:
    if isinstance(value, str):
        value = value.translate(_NEEDS_ESCAPE)
    # A lone surrogate has no UTF-8; it comes only from a client's broken JSON escape.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A text that differs from person to person."""

    fragments: Fragments
    path: Keys
    too_long: str

    def fill(self, person: Mapping[str, str]) -> bytes:
        text = "".join(
            each if isinstance(each, str) else _value(each.text, person, self.path) for each in self.fragments
        )
        return _dump(_FIT[self.too_long](text, self.path))


_FIT = {"cut": _cut, "fail": _refuse, "": _as_is}


def _value(name: str, values: Mapping[str, str], path: Keys) -> str:
    try:
        return values[name]
    except KeyError:
        raise RenderError(f"{'.'.join(path)}: nothing is given for {{{name}}}") from None


@dataclass(frozen=True, slots=True)
class Body:
    """A message of one channel, ready but for the person. Made by compile_body."""

    channel: str
    _parts: tuple[bytes | _Slot, ...]

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

    def pieces(self, value: Any, path: Keys) -> Iterator[bytes | _Slot]:
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

    def text(self, text: str, path: Keys) -> bytes | _Slot:
        """A string: bytes, unless it holds a name that stays open."""
        fragments: Fragments = tuple(
            each if isinstance(each, str) or each.text in self.per_person
            else _value(each.text, self.values, path)
            for each in _parsed(text, path)
        )
        slot = _Slot(fragments, path, self.too_long if self.is_keyword(path) else "")
        return slot if any(isinstance(each, Name) for each in fragments) else slot.fill({})

    def is_keyword(self, path: Keys) -> bool:
        """Whether WeChat's rules for template values hold here: data.KEY.value."""
        return self.channel == "template" and len(path) == 3 and path[0] == "data" and path[2] == "value"


def _parsed(text: str, path: Keys) -> Fragments:
    try:
        return parse(text)
    except ValueError as e:
        raise RenderError(f"{'.'.join(path)}: {e}") from None


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
    limit ends in "…" and its line breaks become blanks; with "fail" both raise RenderError, as does
    a name that is in neither ``values`` nor ``per_person``.
    """
    compiler = _Compiler(values, frozenset(per_person), channel, too_long)
    pieces: list[bytes | _Slot] = []
    for key, value in body.items():
        pieces.append(b"," + _dump(key) + b":")
        pieces.extend(compiler.pieces(value, (key,)))
    return Body(channel, tuple(_joined([*pieces, b"}"])))


def _joined(pieces: list[bytes | _Slot]) -> Iterator[bytes | _Slot]:
    """Neighbouring bytes become one."""
    for fixed, run in groupby(pieces, key=lambda piece: isinstance(piece, bytes)):
        if fixed:
            yield b"".join(piece for piece in run if isinstance(piece, bytes))
        else:
            yield from run
