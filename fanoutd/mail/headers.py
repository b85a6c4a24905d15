"""Headers as they go over the wire: ASCII, folded, words of other scripts encoded whole (RFC 5322, RFC 2047).

The standard library's folding splits and joins such words in ways that some clients show with a blank more or less.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

#: Characters of a line, and bytes of text in an encoded word of at most 75 characters: =?utf-8?B?…?= takes 12 of them.
_LINE, _WORD = 76, 45
#: Longer ASCII without a blank is encoded too: a line may have 998 bytes and no more.
_UNBROKEN = 200

#: Line breaks and other controls, and marks that turn the direction of what follows.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+")


def one_line(text: str, longest: int) -> str:
    """The text on one line, without what cannot be seen, cut with ``…``."""
    line = " ".join(_UNSEEN.sub(" ", text).encode("utf-8", "replace").decode().split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def unstructured(text: str, taken: int) -> str:
    """The value of ``Subject`` and the like; ``text`` is one line. ``taken``: characters of its name and colon."""
    words = text.split(" ")
    if not text.isascii() or "=?" in text or any(len(word) > _UNBROKEN for word in words):
        return "\r\n ".join(_encoded(text, _WORD - taken))
    return _folded(words, taken)


def mailbox(name: str, address: str) -> str:
    """``Name <address>``; ``name`` is one line, perhaps empty."""
    if not name:
        return address
    if not name.isascii() or "=?" in name:
        shown = "\r\n ".join(_encoded(name, _WORD - 10))
    else:
        shown = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{shown} <{address}>" if len(shown) + len(address) < _LINE - 10 else f"{shown}\r\n <{address}>"


def mailboxes(lines: Iterable[str]) -> str:
    """The value of ``To``."""
    return ",\r\n ".join(lines)


def _encoded(text: str, first: int) -> Iterator[str]:
    """As encoded words, each of whole characters; clients join them without a blank. ``first``: room in the first."""
    piece, room = b"", first
    for each in text:
        data = each.encode()
        if len(piece) + len(data) > room:
            yield _word(piece)
            piece, room = b"", _WORD
        piece += data
    yield _word(piece)


def _word(data: bytes) -> str:
    return f"=?utf-8?B?{base64.b64encode(data).decode()}?="


def _folded(words: list[str], taken: int) -> str:
    lines, length = [words[0]], taken + len(words[0])
    for word in words[1:]:
        if length + 1 + len(word) > _LINE:
            lines.append(word)
            length = 1 + len(word)
        else:
            lines[-1] += f" {word}"
            length += 1 + len(word)
    return "\r\n ".join(lines)
