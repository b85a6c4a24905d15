"""What the master asks, and how it is answered: on which thread, after what, and in which words when it goes wrong.

What is known stands in ``questions``, what is done in ``orders``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from fanoutd.dispatcher.orders import HALTS, ONE_BY_ONE, Orders
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.questions import Questions
from fanoutd.dispatcher.status import Status
from fanoutd.dispatcher.threads import Threads
from fanoutd.dispatcher.trust import Trust
from fanoutd.mail.postman import NoMail, Postman
from fanoutd.mail.smtp import NotSent, Unclear
from fanoutd.store import Database, StoreAway, again_if_busy

log = logging.getLogger(__name__)

#: Whoever asked has been told long ago that there is no answer, in seconds: with a store that is away the questions
#: that wait would each take their time, and those behind them theirs.
_STALE = 6.0


class Answers:
    """``say`` speaks to the master. ``ordering`` is held while an order is carried out. ``obeyed(db, campaign)`` waits
    for other nodes to stop too; None on a store of one machine."""

    def __init__(
        self, say: Callable[[dict[str, Any]], None], threads: Threads, trust: Trust, status: Status,
        questions: Questions, orders: Orders, ordering: threading.Lock,
        obeyed: Callable[[Database, str], None] | None, metrics: Callable[[], str], postman: Postman,
    ) -> None:  # fmt: skip
        self._say, self._threads, self._trust, self._status = say, threads, trust, status
        self._questions, self._orders, self._ordering, self._obeyed = questions, orders, ordering, obeyed
        self._metrics, self._postman = metrics, postman
        self._halting: dict[int, dict[str, Any]] = {}  # asks whose answer waits for the workers

    def ask(self, message: dict[str, Any]) -> None:
        """Begin to answer an ``ask`` of the master."""
        method = message["method"]
        if method == "daemon.status" and (why := self._trust.why_not_yet):
            self._say({"t": "answer", "n": message["n"], "result": self._status.without_store(why)})
        elif method == "daemon.status" and self._status.store_trouble:
            self._threads.promise(self._threads.statuses.submit(self._answer_at_once, message["n"]))
        elif method == "daemon.metrics":  # also while the store is away
            self._threads.promise(self._threads.metrics.submit(self._tell_metrics, message["n"]))
        elif method == "mail.test":  # needs no store, and whoever stops does not wait for it
            self._threads.mails.submit(self._test_mail, message["n"])
        elif method == "subscriber.sync":  # minutes: whoever stops does not wait for it
            self._threads.syncs.submit(self._answer, message)
        else:
            asks = self._threads.asks
            slow = self._threads.forecasts
            pool = {
                "token.refresh": self._threads.tokens, "campaign.plan": slow, "campaign.report": slow,
            }.get(method, asks)  # fmt: skip
            came = time.monotonic() if pool is asks else math.inf
            self._threads.promise(pool.submit(self._answer, {**message, "came": came}))

    def _answer_at_once(self, number: int) -> None:
        self._say({"t": "answer", "n": number, "result": self._status.at_once()})

    def halted(self, number: int) -> None:
        """Every worker of this node knows that the campaign of this ask does not run."""
        answer = self._halting.pop(number, None)
        if answer is not None and self._obeyed is not None:
            self._threads.promise(self._threads.obeying.submit(self._answer_obeyed, self._obeyed, answer))
        elif answer is not None:
            self._say(answer)

    def _tell_metrics(self, number: int) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": number}
        try:
            answer["result"] = self._metrics()
        except Exception:
            log.exception("metrics cannot be made")
            answer["error"] = _internal_error()
        self._say(answer)

    def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": message["n"]}
        try:
            self._trust.wait()
            if time.monotonic() - message.get("came", math.inf) > _STALE:
                raise StoreAway("the store is slow to answer")
            with self._ordering if message["method"] in ONE_BY_ONE else nullcontext():
                answer["result"] = again_if_busy(lambda: self._result(message["method"], message["params"]))
                if message["method"] in HALTS:
                    self._halt(answer)
                    return
        except RpcError as e:
            answer["error"] = {"code": e.code, "message": e.message, "data": e.data}
        except StoreAway as e:
            if message["method"] == "daemon.status":
                answer["result"] = self._status.without_store(str(e))
            else:
                answer["error"] = {"code": -32005, "message": f"{e}; try again", "data": None}
        except Exception:
            log.exception("%s failed", message["method"])
            answer["error"] = _internal_error()
        self._say(answer)

    def _test_mail(self, number: int) -> None:
        answer: dict[str, Any] = {"t": "answer", "n": number}
        try:
            answer["result"] = {"answer": self._postman.test()}
        except NoMail:
            words = "there is no [mail] in the configuration; write one, and `fanoutd reload`"
            answer["error"] = {"code": -32003, "message": words, "data": {"field": "mail"}}
        except (NotSent, Unclear) as e:
            answer["error"] = {"code": -32005, "message": str(e), "data": {"field": "mail"}}
        except Exception:
            log.exception("mail.test failed")
            answer["error"] = _internal_error()
        self._say(answer)

    def _result(self, method: str, params: dict[str, Any]) -> Any:
        db = self._threads.db()
        if method in self._questions:
            return self._questions.answer(db, method, params)
        return self._orders.carry_out(db, method, params)

    def _halt(self, answer: dict[str, Any]) -> None:
        """The store says that the campaign does not run; the answer goes out when every worker knows it too."""
        self._halting[answer["n"]] = answer
        self._say({"t": "halt", "n": answer["n"], "campaign": answer["result"]["campaign"]})

    def _answer_obeyed(self, obeyed: Callable[[Database, str], None], answer: dict[str, Any]) -> None:
        """This node's workers have stopped, and the other nodes' are given the time to."""
        try:
            obeyed(self._threads.db(), answer["result"]["campaign"])
        finally:
            self._say(answer)


def _internal_error() -> dict[str, Any]:
    return {"code": -32603, "message": "internal error; the daemon's log says more", "data": None}
