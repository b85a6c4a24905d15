"""From the body of a push to a plain dictionary: XML, or JSON when the console says so.

No document type, no entities of its own, no depth: what an XML parser can be led astray with is refused
before it is looked at (XXE, billion laughs).
"""

from __future__ import annotations

import json
from typing import Any
from xml.parsers import expat

from fanoutd.callback.errors import Broken

#: WeChat's deepest push has five levels.
_DEEPEST = 16


def parse(body: bytes | None) -> tuple[dict[str, Any], bool]:
    """The fields, and whether they came as JSON. Raises Broken, for None too: a body that could not be read.

    A leaf of XML is its text, an element with children a dictionary, and elements of one name a list.
    """
    if body is None:
        raise Broken("the body is too long, not as long as was announced, or cannot be read")
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    return (_json(body), True) if body.startswith(b"{") else (_xml(body), False)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Broken("the body is no JSON") from None
    if not isinstance(value, dict):
        raise Broken("the body is no JSON object")
    return value


class _Reader:
    """Builds the dictionary from what expat says."""

    def __init__(self) -> None:
        self._open: list[tuple[dict[str, Any], list[str]]] = [({}, [])]

    def start(self, _name: str, _attributes: dict[str, str]) -> None:
        if len(self._open) > _DEEPEST:
            raise Broken("the XML is nested too deeply")
        self._open.append(({}, []))

    def end(self, name: str) -> None:
        children, texts = self._open.pop()
        value = children or "".join(texts)
        there = self._open[-1][0]
        if name not in there:
            there[name] = value
        elif isinstance(there[name], list):
            there[name].append(value)
        else:
            there[name] = [there[name], value]

    def text(self, data: str) -> None:
        self._open[-1][1].append(data)

    def root(self) -> Any:
        return next(iter(self._open[0][0].values()))


def _refuse(*_: Any) -> None:
    raise Broken("the XML has a document type")


def _xml(body: bytes) -> dict[str, Any]:
    reader = _Reader()
    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        raise Broken("the body is neither XML nor JSON") from None
    root = reader.root()
    if not isinstance(root, dict):
        raise Broken("the XML has no fields")
    return root
