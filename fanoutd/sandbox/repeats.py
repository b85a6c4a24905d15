"""Which template messages are repeats: WeChat sends one client_msg_id to one openid once only."""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[str, str]


class Repeats:
    """The msgids of (openid, client_msg_id), each until its time. Times are seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, tuple[int, float]] = OrderedDict()

    def find(self, key: Key, now: float) -> int | None:
        """The msgid under which it was accepted already."""
        msgid, until = self._known.get(key, (None, 0.0))
        return msgid if now < until else None

    def remember(self, key: Key, msgid: int, now: float, seconds: float) -> None:
        """Accepted now; forgets the oldest whose time is over."""
        self._known.pop(key, None)
        self._known[key] = (msgid, now + seconds)
        while next(iter(self._known.values()))[1] <= now:
            self._known.popitem(last=False)
