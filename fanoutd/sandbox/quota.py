"""How often each path may be called: in a minute, in a day, and how often that can be set back in a month.

The sandbox is one account. Its day ends when it is told so, not at a certain hour.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from types import MappingProxyType

from fanoutd.sandbox.errcodes import Refused

#: Calls a day, as WeChat documents them.
DOCUMENTED: Mapping[str, int] = MappingProxyType(
    {
        "/cgi-bin/token": 2_000,
        "/cgi-bin/stable_token": 500_000,
        "/cgi-bin/message/custom/send": 500_000,
        "/cgi-bin/message/template/send": 100_000,
        "/cgi-bin/user/get": 500,
        "/cgi-bin/user/info": 5_000_000,
    }
)

#: Of the others nothing is known; this is ours.
ASSUMED = 100_000

#: Calls a minute where no limit is set: that of stable_token, the only one that WeChat documents.
MINUTE = 10_000

CLEARS_A_MONTH = 10
CLEARS_OF_ONE_A_MONTH = 50


class Quota:
    """What was used. Refused calls do not count."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self._minute: defaultdict[str, deque[float]] = defaultdict(deque)
        self._clears: Counter[str] = Counter()

    def take_minute(self, path: str, limit: int, now: float) -> None:
        """One more call at ``now``, in seconds. Raises Refused for more than ``limit`` in any 60 s."""
        times = self._minute[path]
        while times and times[0] <= now - 60.0:
            times.popleft()
        if len(times) >= limit:
            raise Refused(45011)
        times.append(now)

    def take(self, path: str, limit: int) -> None:
        """One more call today. Raises Refused beyond the limit; 0 is none."""
        if limit and self.used[path] >= limit:
            raise Refused(45009)
        self.used[path] += 1

    def report(self, path: str, limit: int, minute: int) -> dict[str, dict[str, int]]:
        """As openapi/quota/get shapes it; a limit of 0 is shown as the documented one."""
        daily = limit or DOCUMENTED.get(path, ASSUMED)
        used = self.used[path]
        return {
            "quota": {"daily_limit": daily, "used": used, "remain": max(0, daily - used)},
            "rate_limit": {"call_count": minute or MINUTE, "refresh_second": 60},
        }

    def clear(self) -> None:
        """Set every path back. Raises Refused when that was done too often this month."""
        self._spend("all", CLEARS_A_MONTH)
        self.used.clear()

    def clear_one(self, path: str) -> None:
        """The same for one path, which has a count of its own."""
        self._spend("one", CLEARS_OF_ONE_A_MONTH)
        del self.used[path]

    def new_day(self, month: bool = False) -> None:
        """Midnight has passed, and with ``month`` the month's end."""
        self.used.clear()
        if month:
            self._clears.clear()

    def _spend(self, kind: str, limit: int) -> None:
        if self._clears[kind] >= limit:
            raise Refused(48006)
        self._clears[kind] += 1
