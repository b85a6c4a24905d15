"""What came already: WeChat repeats a push that was not answered in time, up to three times in all."""

from __future__ import annotations

import hashlib
import threading

#: Seconds for which a push is known at least, and pushes that are known at least: what goes beyond either, the
#: older half is forgotten. Repeats come within seconds.
SPAN = 300.0
MOST = 1 << 16


class Seen:
    """Used by several threads. Keys are kept as 16 bytes each: twice ``most`` of them are about 20 MB."""

    def __init__(self, span: float = SPAN, most: int = MOST) -> None:
        self._span = span
        self._most = most
        self._lock = threading.Lock()
        self._new: dict[bytes, str | None] = {}
        self._old: dict[bytes, str | None] = {}
        self._since = float("-inf")

    def take(self, key: tuple[str, ...], now: float) -> bool:
        """True for the first who brings ``key``. ``now`` in seconds of a clock that is not set back."""
        with self._lock:
            self._age(now)
            short = _short(key)
            if short in self._new or short in self._old:
                return False
            self._new[short] = None
            return True

    def drop(self, key: tuple[str, ...]) -> None:
        """It was not dealt with after all: its repeat is to be taken."""
        with self._lock:
            self._new.pop(_short(key), None)
            self._old.pop(_short(key), None)

    def answer(self, key: tuple[str, ...], reply: str | None) -> None:
        """What was said to it, for its repeats."""
        with self._lock:
            self._new[_short(key)] = reply

    def answered(self, key: tuple[str, ...]) -> str | None:
        """What was said to it; None when nothing was."""
        with self._lock:
            short = _short(key)
            return self._new[short] if short in self._new else self._old.get(short)

    def _age(self, now: float) -> None:
        if now - self._since >= self._span or len(self._new) >= self._most:
            self._old = self._new if now - self._since < 2 * self._span else {}
            self._new, self._since = {}, now


def _short(key: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(key).encode("utf-8", "replace"), digest_size=16).digest()
