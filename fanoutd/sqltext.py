"""The operator's SQL: ``%(name)s`` is a parameter and ``%%`` a percent, whatever the database.

sqlite3 binds the values. PyMySQL writes them into the text, as Python formats it, and so it must be known here what is
quoted there and what is a comment: a value that came between quotes would end them, and the rest of it would be SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"%\(([^()]*)\)s|%%|%|[^%]+")

#: One piece of MySQL's SQL: comment, quoted, or neither. What a comment of the form ``/*! … */`` holds is run.
_PIECE = r"""(?P<comment>--(?=\s|$)[^\n]*|\#[^\n]*|/\*(?!M?!).*?(?:\*/|$))
|(?P<quoted>{quoted})
|[^-#/'"`]+|."""
_FLAGS = re.VERBOSE | re.DOTALL
_PLAIN = "|".join(f"{mark}[^{mark}]*(?:{mark}|$)" for mark in "'\"`")
_ESCAPED = "|".join(rf"{mark}(?:[^{mark}\\]|\\.)*(?:{mark}|$)" for mark in "'\"") + "|`[^`]*(?:`|$)"
#: By whether a backslash means something within quotes: ``sql_mode`` says so.
_PIECES = {
    escaped: re.compile(_PIECE.format(quoted=quoted), _FLAGS) for escaped, quoted in ((False, _PLAIN), (True, _ESCAPED))
}

_WORD = re.compile(r"[^\W\d]\w*")
#: What a query may begin with.
_READS = ("SELECT", "WITH", "VALUES", "TABLE")


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
            raise _quoted(name)
    return frozenset(name for _, name in tokens if name is not None)


def _quoted(name: str) -> ValueError:
    return ValueError(f"%({name})s must not stand in quotes; the database driver quotes it")


def to_sqlite(query: str) -> str:
    """The same query for sqlite3: ``:name`` and ``%``.

    Raises ValueError, in words for the operator, for a percent that is neither.
    """
    return "".join(text if name is None else f":{name}" for text, name in _tokens(query))


def to_mysql(query: str, backslashes: bool = True) -> str:
    """The same query for PyMySQL, in which each parameter stands where a value may; in a comment it is none.

    ``backslashes``: false under ``NO_BACKSLASH_ESCAPES``. Raises ValueError as to_sqlite, and for one in quotes.
    """
    return "".join(_formatted(kind, text) for kind, text in _pieces(query, backslashes))


def _formatted(kind: str | None, text: str) -> str:
    found = []
    for part, name in _tokens(text):
        if name is not None and kind == "quoted":
            raise _quoted(name)
        found.append(part if name is not None and kind is None else part.replace("%", "%%"))
    return "".join(found)


def _pieces(query: str, backslashes: bool) -> Iterator[tuple[str | None, str]]:
    """(``comment``, ``quoted`` or None, text), neighbours of one kind together."""
    kind, start = None, 0
    for match in _PIECES[backslashes].finditer(query):
        if match.lastgroup != kind:
            yield kind, query[start:match.start()]
            kind, start = match.lastgroup, match.start()
    yield kind, query[start:]


def check_reads(query: str, backslashes: bool = True) -> None:
    """Raises ValueError in words when it is no query that only reads, so far as its text can tell."""
    words = [word.upper() for kind, text in _pieces(query, backslashes) if kind is None for word in _WORD.findall(text)]
    first = words[0] if words else "nothing"
    if first not in _READS:
        raise ValueError(f"wants one SELECT, and begins with {first}: people and tokens are only read")
    if "INTO" in words:
        raise ValueError("wants one SELECT without INTO, which writes a file or a variable")
