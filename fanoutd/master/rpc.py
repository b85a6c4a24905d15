"""JSON-RPC 2.0 as pure functions: from the bytes of a line to what was asked, or why not.

Whatever a client can put on a line ends here as a Request, a Bare submission, a Batch or a Bad one;
no exception leaves this module.
"""

from __future__ import annotations

import gc
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_PERMITTED = -32001
NO_SUCH_CAMPAIGN = -32002
WRONG_STATE = -32003
TOO_LARGE = -32004
NOT_NOW = -32005

#: Objects and lists on a line, and values in a batch. The longest line, full of the shortest requests,
#: has half as many; full of brackets it would take a good part of a second of everybody's time.
MOST_VALUES = 1 << 16

Id = str | int | float | None


class RpcError(Exception):
    """``message`` says what to do; ``data`` is null or an object that names the ``field``."""

    def __init__(self, code: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data: Any = None if field is None else {"field": field}


@dataclass(frozen=True, slots=True)
class Request:
    """``notification``: it bears no id and is not answered."""

    id: Id
    notification: bool
    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bare:
    """An object without ``jsonrpc`` and ``method``: a submission as the simplest client writes it."""

    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """What cannot be understood, and the error that says so."""

    error: RpcError
    id: Id = None


class Elements:
    """The values of a JSON array, read from its text again one at a time.

    A million bytes of text may become fifty million of objects: those are not kept for as long as
    a client likes to leave its answers unread.
    """

    def __init__(self, text: str) -> None:
        """``text`` is one array, not empty, and has been found to be JSON."""
        self._text = text
        self._at = self._past(_OPENING, 0)

    @property
    def exhausted(self) -> bool:
        """Every value has been read."""
        return self._at == len(self._text)

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return sys.getsizeof(self._text)

    def next(self) -> Any:
        """The next value. Not to be called when they are exhausted."""
        value, end = _DECODER.raw_decode(self._text, self._at)
        self._at = self._past(_SEPARATOR, end)
        return value

    def _past(self, what: re.Pattern[str], at: int) -> int:
        found = what.match(self._text, at)
        if found is None:
            raise ValueError("this is no JSON array")
        return found.end()


@dataclass(frozen=True, slots=True)
class Batch:
    """A list of values, each to be given to ``interpret`` in its turn."""

    values: Elements = field(repr=False)


def parse(line: bytes) -> Request | Bare | Bad | Batch:
    """One line of the socket, without its newline."""
    if line.count(b"{") + line.count(b"[") > MOST_VALUES:
        return Bad(RpcError(PARSE_ERROR, f"a line may have {MOST_VALUES} objects and lists; write several"))
    try:
        text = line.decode("utf-8")
        value = _value(text)
    except RecursionError:
        return Bad(RpcError(PARSE_ERROR, "the JSON is nested too deeply"))
    except ValueError as e:
        return Bad(RpcError(PARSE_ERROR, f"not one JSON value in UTF-8 on a line: {e}"))
    if isinstance(value, list) and len(value) > MOST_VALUES:
        return Bad(RpcError(INVALID_REQUEST, f"a batch may have {MOST_VALUES} requests; write several"))
    if isinstance(value, list) and value:
        return Batch(Elements(text))
    if isinstance(value, dict) and "jsonrpc" not in value and "method" not in value:
        return Bare(value)
    return interpret(value)


def interpret(value: Any) -> Request | Bad:
    """One request, alone or out of a batch."""
    if not isinstance(value, dict):
        return Bad(RpcError(INVALID_REQUEST, "a request is an object"))
    id = value.get("id")
    if not _is_id(id):
        return Bad(RpcError(INVALID_REQUEST, "id must be a string, a number or null", "id"))
    if value.get("jsonrpc") != "2.0":
        return Bad(RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"', "jsonrpc"), id)
    if not isinstance(value.get("method"), str):
        return Bad(RpcError(INVALID_REQUEST, "method must be a string", "method"), id)
    params = value.get("params")
    if params is None or params == []:  # PHP writes an empty object so
        params = {}
    if not isinstance(params, dict):
        return Bad(RpcError(INVALID_PARAMS, "params must be an object: they go by name", "params"), id)
    return Request(id, "id" not in value, value["method"], params)


def result(id: Id, value: Any) -> dict[str, Any]:
    """The answer of a request that went well."""
    return {"jsonrpc": "2.0", "id": id, "result": value}


def failure(id: Id, error: RpcError) -> dict[str, Any]:
    """The answer of a request that did not."""
    said = {"code": error.code, "message": error.message, "data": error.data}
    return {"jsonrpc": "2.0", "id": id, "error": said}


def notification(method: str, params: Any) -> dict[str, Any]:
    """What is told without having been asked just now."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _value(text: str) -> Any:
    """The JSON value. Raises ValueError (numbers of thousands of digits too) and RecursionError."""
    # A long line of small objects would have the collector look at all of them again and again.
    gc.disable()
    try:
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):  # a lone one can be written, but is no text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    finally:
        gc.enable()
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*[,\]][ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _is_id(id: Any) -> bool:
    if isinstance(id, float):
        return math.isfinite(id)  # 1e999 would come back as no JSON
    return id is None or (isinstance(id, str | int) and not isinstance(id, bool))
