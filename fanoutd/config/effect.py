"""Keys that are checked but change nothing in this version: one row each.

A row goes when its key comes to life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def _always(_value: object) -> bool:
    return True


#: table.key, ``*`` for any name -> whether this value is one without effect.
NO_EFFECT_YET: Mapping[str, Callable[[object], bool]] = {}


def warnings(document: Mapping[str, Any]) -> tuple[str, ...]:
    """One line for each key of the document that is set and has no effect yet, in the file's order."""
    return tuple(
        _words(path, useless) for path, pattern, value in _settings(document)
        if (useless := NO_EFFECT_YET.get(pattern)) is not None and useless(value)
    )


def _settings(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(path, pattern, value) of every table and key that NO_EFFECT_YET can speak of."""
    for table, content in document.items():
        yield (table,), table, content
        for key, value in content.items():
            yield (table, key), f"{table}.{key}", value
            if table in ("account", "audience"):
                yield from (((table, key, name), f"{table}.*.{name}", each) for name, each in value.items())


def _words(path: tuple[str, ...], useless: Callable[[object], bool]) -> str:
    *tables, key = path
    place = f"[{'.'.join(tables)}] {key}" if tables else f"[{key}]"
    what = "" if useless is _always else "this value is "
    return f"{place}: {what}accepted, no effect in this version yet"
