"""The operator's SQL: ``%(name)s`` is a parameter and ``%%`` a percent, whatever the database.

As in PyMySQL the rule holds everywhere in the text, in quotes and comments too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"%\(([^()]*)\)s|%%|%|[^%]+")


def _tokens(query: str) -> Iterator[tuple[str, str | None]]:
    """(text, None) for what stays, (text, name) for a parameter. Raises ValueError for a stray percent."""
    for match in _TOKEN.finditer(query):
        name = match[1]
        if name is not None and not name.isidentifier():
            raise ValueError(f"%({name})s is no parameter; a name is made of letters, digits and _")
        if match[0] == "%":
            near = query[match.start():match.start() + 12]
            raise ValueError(f"stray percent at {near!r}; write %(name)s for a parameter, %% for a percent")
        yield ("%" if match[0] == "%%" else match[0]), name


def names(query: str) -> frozenset[str]:
    """The parameters of the query. Raises ValueError, see to_sqlite."""
    tokens = list(_tokens(query))
    for (before, _), (_, name), (after, _) in zip(tokens, tokens[1:], tokens[2:], strict=False):
        # sqlite3 would compare with the text ":name", PyMySQL would close the quotes: both in silence.
        if name and before.endswith("'") and after.startswith("'"):
            raise ValueError(f"%({name})s must not stand in quotes; the database driver quotes it")
    return frozenset(name for _, name in tokens if name is not None)


def to_sqlite(query: str) -> str:
    """The same query for sqlite3: ``:name`` and ``%``.

    Raises ValueError, in words for the operator, for a percent that is neither.
    """
    return "".join(text if name is None else f":{name}" for text, name in _tokens(query))
