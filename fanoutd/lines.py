"""One JSON value a line: the framing on the daemon's socket and between master and children."""

from __future__ import annotations

import json
from typing import Any


def encode(value: Any) -> bytes:
    """The value as one line of compact UTF-8 JSON. Lone surrogates become ``?``: never an exception."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


class LineBuffer:
    """Collects bytes as they come and gives back whole lines, without the newline."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def __len__(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._parts)

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; return the lines that are complete now."""
        self._parts += data
        if b"\n" not in data:
            return []
        *lines, rest = bytes(self._parts).split(b"\n")
        self._parts = bytearray(rest)
        return lines

    def messages(self, data: bytes) -> list[dict[str, Any]]:
        """The objects of the lines that are complete now: between master and children all are well formed."""
        return [json.loads(line) for line in self.feed(data)]

    def peek(self) -> bytes:
        """The unfinished line, which stays."""
        return bytes(self._parts)

    def rest(self) -> bytes:
        """Take the unfinished line, as at end of file."""
        data = bytes(self._parts)
        self._parts.clear()
        return data
