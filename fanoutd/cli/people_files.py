"""Files of people: CSV with a header, JSON lines, or one openid a line; told apart by their first line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fanoutd.errors import BadInput
from fanoutd.ids import OPENID

Person = dict[str, Any]

Bad = Callable[[int, str], None]
"""Told of a line that is left out: its number and why."""


def people(lines: Iterable[bytes], bad: Bad) -> Iterator[Person]:
    """``{"openid": …}`` and what else the file says of each, streamed. Raises BadInput for a header without openid."""
    numbered = _decoded(lines, bad)
    first = next(((number, text) for number, text in numbered if text.strip()), None)
    if first is None:
        return
    kind = _kind(first[1])
    yield from kind(_again(first, numbered), bad)


def _decoded(lines: Iterable[bytes], bad: Bad) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            bad(number, "not UTF-8 text")


def _again(first: tuple[int, str], others: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from others


def _kind(line: str) -> Callable[[Iterator[tuple[int, str]], Bad], Iterator[Person]]:
    if line.lstrip().startswith("{"):
        return _json_lines
    names = [each.strip().lower() for each in next(csv.reader([line]))]
    if "openid" in names:
        return _csv
    if len(names) > 1:
        raise BadInput("line 1: a header with a column openid is wanted, or one openid a line")
    return _plain


def _json_lines(lines: Iterator[tuple[int, str]], bad: Bad) -> Iterator[Person]:
    for number, text in lines:
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            bad(number, "no JSON")
            continue
        why = _wrong(found)
        if why:
            bad(number, why)
        else:
            yield found


def _wrong(found: Any) -> str | None:
    """Why the daemon would refuse it."""
    if not isinstance(found, dict):
        return "no JSON object"
    if not isinstance(found.get("openid"), str) or not OPENID.fullmatch(found["openid"]):
        return "no openid: 6 to 64 of A-Z a-z 0-9 _ -"
    for name, value in found.items():
        if isinstance(value, bool) or not (value is None or isinstance(value, str | int | float)):
            return f"{name[:40]!a}: a string or a number is wanted"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name[:40]!a}: no number that JSON has"
        if len(name) > 64:
            return "a name of more than 64 characters"
    return _no_text(found)


def _no_text(found: Person) -> str | None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return "not UTF-8 text"
    return None


def _csv(lines: Iterator[tuple[int, str]], bad: Bad) -> Iterator[Person]:
    """A row may go over several lines; it is reported by its last one."""
    at = 0

    def texts() -> Iterator[str]:
        nonlocal at
        for at, text in lines:  # noqa: B007
            yield text

    rows = csv.reader(texts())
    names = [each.strip() for each in next(rows)]
    names = ["openid" if each.lower() == "openid" else each for each in names]
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as e:
            bad(at, str(e))
            continue
        if not row:
            continue
        found = dict(zip(names, (each.strip() for each in row), strict=False))
        why = f"{len(row)} columns, the header has {len(names)}" if len(row) != len(names) else _wrong(found)
        if why:
            bad(at, why)
        else:
            yield {name: value for name, value in found.items() if name}


def _plain(lines: Iterator[tuple[int, str]], bad: Bad) -> Iterator[Person]:
    for number, text in lines:
        openid = text.strip().strip('"')
        if not openid:
            continue
        why = _wrong({"openid": openid})
        if why:
            bad(number, why)
        else:
            yield {"openid": openid}
