"""What a client has written and nobody has worked on yet: bytes in, lines out."""

from __future__ import annotations

import re

from fanoutd.master.takeover import Document, to_bytes, to_text

_BLANK = re.compile(rb"\s+")


class Oversize:
    """Stands for a line that was too long to be kept."""


class Inbox:
    """The lines of one client, at most ``max_line`` bytes each.

    They are cut off one at a time: as objects of their own the lines of a flood would take fifty times
    their bytes. True while there is one; blank ones count for nothing.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._bytes = bytearray()
        self._searched = 0
        self._skipping = False
        self._next: bytes | Oversize | None = None

    def __bool__(self) -> bool:
        return self._next is not None

    @property
    def held(self) -> int:
        """Bytes kept here, of an unfinished line too."""
        return len(self._bytes) + (len(self._next) if isinstance(self._next, bytes) else 0)

    @property
    def half(self) -> bool:
        """A line has been begun and not ended."""
        return self._skipping or bool(self._bytes)

    def feed(self, data: bytes) -> None:
        """Take what was read. At the end of file feed a newline: that too ends a line."""
        self._bytes += data
        if self._next is None:
            self._cut()

    def popleft(self) -> bytes | Oversize:
        """The next line without its newline. Raises IndexError when there is none."""
        if self._next is None:
            raise IndexError("no line")
        line, self._next = self._next, None
        self._cut()
        return line

    def clear(self) -> None:
        """Forget all of it."""
        self._bytes.clear()
        self._searched, self._skipping, self._next = 0, False, None

    def bequeath(self) -> Document:
        """For the program that takes over. ``next``: null for none, an empty one for one that was too long."""
        line = self._next
        kept = to_text(line) if isinstance(line, bytes) else None if line is None else ""
        return {"bytes": to_text(self._bytes), "skipping": self._skipping, "next": kept}

    def inherit(self, left: Document) -> None:
        """Go on where the program before us left off."""
        self._bytes += to_bytes(left["bytes"])
        self._skipping = left["skipping"]
        if left["next"] is not None:
            self._next = to_bytes(left["next"]) or Oversize()

    def _cut(self) -> None:
        """Find the next line, if it is there."""
        if self._skipping:
            self._skip()
        blank = None if self._skipping else _BLANK.match(self._bytes)
        if blank:
            del self._bytes[:blank.end()]
        at = self._bytes.find(b"\n", self._searched)
        if at >= 0:
            self._next = bytes(self._bytes[:at]) if at <= self._max_line else Oversize()
            del self._bytes[:at + 1]
            self._searched = 0
        elif len(self._bytes) > self._max_line:  # said at once: it may be writing for hours
            self._next = Oversize()
            self._bytes.clear()
            self._searched, self._skipping = 0, True
        else:
            self._searched = len(self._bytes)

    def _skip(self) -> None:
        """Throw away the rest of a line that was too long."""
        at = self._bytes.find(b"\n")
        self._skipping = at < 0
        if self._skipping:
            self._bytes.clear()
        else:
            del self._bytes[:at + 1]
