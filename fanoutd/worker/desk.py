"""The recorder's desk: what the sending side puts there and asks for, and how the recorder's thread takes it in.

Outcomes are appended without a lock, for there are many; a lock is taken where somebody must be woken up.
"""

from __future__ import annotations

import threading
from collections import Counter, deque

from fanoutd.bucket import now
from fanoutd.outcome import Progress
from fanoutd.worker.holds import Hold, Holds
from fanoutd.worker.rests import Calls
from fanoutd.worker.round import Round
from fanoutd.worker.speed import INTERVAL


class Desk:
    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._changed = threading.Condition()
        self._results: list[tuple[Hold, int, Progress]] = []
        self._unchanged: list[Hold] = []
        self._learnt: list[tuple[str, str, int]] = []  # account, openid, errcode; 0: one less in their window
        self._errands: list[tuple[str, ...]] = []
        self._calls: deque[tuple[str, int]] = deque()
        self._asked = self._served = 0
        self._full = False  # two windows are open: people asked for must wait for records
        self.ending = False

    # ---- called by the sending side

    def ask(self) -> int:
        """Want more people; answered by Claimed or Dry. Returns the number of this call."""
        with self._changed:
            self._asked += 1
            self._changed.notify()
            return self._asked

    def put(self, hold: Hold, pos: int, progress: Progress) -> None:
        """The outcome of a claimed person; pending: handed back with what was learnt."""
        self._results.append((hold, pos, progress))

    def learn(self, account: str, openid: str, errcode: int) -> None:
        """An answer that says something about the person; before their outcome is put, for it is written with that.

        0: a custom message has gone through that their window counts.
        """
        self._learnt.append((account, openid, errcode))

    def put_back(self, hold: Hold) -> None:
        """A claimed person of whom there is nothing new to say."""
        self._unchanged.append(hold)

    def flush(self) -> None:
        """Write now what was put."""
        with self._changed:
            self._changed.notify()

    def read_token(self, account: str) -> None:
        self._errand("token", account)

    def pause(self, campaign: str, cause: str, reason: str) -> None:
        self._errand("pause", campaign, cause, reason)

    def pause_account(self, account: str, cause: str, reason: str) -> None:
        """All that run of it."""
        self._errand("pause_account", account, cause, reason)

    def holds_of(self, account: str) -> list[Hold]:
        return self._holds.of(account)

    def let_go(self, campaign: str) -> None:
        """Claim nothing more for this campaign with the leases in hand, and give them back."""
        self._holds.lose(campaign)
        self.flush()

    def explain(self, account: str, cause: str, reason: str) -> None:
        """Say what the account's campaigns wait for; empty: nothing any more."""
        self._errand("explain", account, cause, reason)

    def called(self, account: str, channel: int) -> None:
        """A call leaves: one of the day's."""
        self._calls.append((account, channel))

    def rest(self, account: str, channel: int, until: int) -> None:
        """WeChat says that the day's calls of the channel are used up."""
        self._errand("rest", account, str(channel), str(until))

    def reopen(self, account: str, channel: int) -> None:
        """WeChat takes calls of the channel again."""
        self._errand("reopen", account, str(channel))

    def finish(self) -> None:
        """Claim nothing more; when all is recorded and given back, say Finished."""
        with self._changed:
            self.ending = True
            self._changed.notify()

    def _errand(self, *errand: str) -> None:
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    # ---- called by the recorder's thread

    @property
    def done(self) -> bool:
        """Nothing more will come, and nothing is left."""
        return self.ending and not self._holds

    def wait(self, company: float) -> None:
        """Until there is something to do. Outcomes wait for so many seconds for others, to be written with them."""
        with self._changed:
            asked = self._asked > self._served and not self._full and not self.ending
            if not (self._errands or asked or self.done):
                self._changed.wait(self._pause(company))

    def _pause(self, company: float) -> float | None:
        if self._results or self._unchanged:
            return company
        return INTERVAL if self._holds else None

    def take_in(self) -> Round:
        with self._changed:
            errands, self._errands = self._errands, []
            asked = self._asked
        # The sending side only ever appends: taking a known number from the front is safe.
        count, count_back = len(self._results), len(self._unchanged)
        results, back = self._results[:count], self._unchanged[:count_back]
        del self._results[:count], self._unchanged[:count_back]
        count_learnt = len(self._learnt)
        learnt = self._learnt[:count_learnt]
        del self._learnt[:count_learnt]
        closed = Counter(hold for hold, _, _ in results)
        closed.update(back)
        return Round(errands, results, learnt, closed, asked, now())

    def take_calls(self) -> Calls:
        """Those that left since the last time."""
        return Counter(self._calls.popleft() for _ in range(len(self._calls)))

    def wants_people(self, work: Round) -> bool:
        """This round is to claim some."""
        return work.asked > self._served and not self.ending

    def over(self, hold: Hold, work: Round) -> bool:
        """Nobody of this shard is open after this round, and nobody more will be claimed from it."""
        return (hold.exhausted or hold.lost or self.ending) and hold.open == work.closed[hold]

    def postpone(self, full: bool) -> None:
        """Whoever is asked for must wait for records, or not."""
        self._full = full

    def served(self, work: Round) -> None:
        """What was asked for until this round is answered."""
        self._served = work.asked
