"""What a client's requests mean: answered here, kept in the spool, or carried to the dispatcher."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fanoutd import __version__, times
from fanoutd.config import MOST_WORKERS, Config
from fanoutd.master import params as read
from fanoutd.master import rpc, submission
from fanoutd.master.asks import PATIENCE, Asks
from fanoutd.master.carried import ACTS, ANSWERED_BY_WECHAT, ANSWERED_BY_WORKERS, CARRIED, LONG, ORDERS
from fanoutd.master.clients import BatchWork, Client, Oversize
from fanoutd.master.loglimit import LogLimit
from fanoutd.master.refusals import Refusals
from fanoutd.master.reload import Told
from fanoutd.master.rpc import Bad, Request, RpcError
from fanoutd.master.watches import FINAL, Watches
from fanoutd.spool import Spool, accept
from fanoutd.uploads import UnknownUpload

_log = logging.getLogger(__name__)

#: Seconds after which `daemon.status` goes out without the dispatcher's part.
_STATUS_PATIENCE = 2.0
#: Seconds after which a dry run has not counted its people.
_PLAN_PATIENCE = 65.0
#: Campaigns that one client may watch: each is asked for four times a second.
_WATCHES = 64

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to its answer; ``deliver`` takes that, None for a notification."""

    client: Client
    request: Request
    deliver: Callable[[Json | None], None]

    def succeed(self, value: Any) -> None:
        self.deliver(None if self.request.notification else rpc.result(self.request.id, value))

    def fail(self, error: RpcError) -> None:
        self.deliver(None if self.request.notification else rpc.failure(self.request.id, error))


@dataclass(frozen=True, slots=True)
class Admin:
    """What only ``uids`` may ask for: ``reload`` tells later what became of it, ``scale`` returns the count."""

    uids: frozenset[int]
    reload: Callable[[Told], None]
    scale: Callable[[int], int]


class Service:
    """``status`` makes the status object out of the dispatcher's part, None when there is none."""

    def __init__(
        self, config: Config, spool: Spool, asks: Asks, tell_dispatcher: Callable[[Json], bool],
        status: Callable[[Json | None], Json], admin: Admin,
    ) -> None:
        self._config = config
        self._admin = admin
        self._spool = spool
        self._asks = asks
        self._tell_dispatcher = tell_dispatcher
        self._status = status
        self.refusals = Refusals(tell_dispatcher)
        self._trouble = LogLimit(_log, 5, 60.0, "the spool took %d more submissions not")
        self.watches = Watches(self._look)
        self.stopping = False
        self._methods: Mapping[str, Callable[[Call], None]] = {
            "daemon.ping": self._ping,
            "daemon.status": self._daemon_status,
            "daemon.reload": self._daemon_reload,
            "daemon.scale": self._daemon_scale,
            "campaign.submit": self._campaign_submit,
            "audience.upload": self._audience_upload,
            "campaign.watch": self._campaign_watch,
            **dict.fromkeys(CARRIED, self._carry),
        }

    def work(self, client: Client) -> None:
        """One thing that the client asked for: a line, or one request out of a batch."""
        if client.batch:
            self._piece(client, client.batch)
        else:
            self._line(client, client.lines.popleft())

    def _line(self, client: Client, line: bytes | Oversize) -> None:
        if isinstance(line, Oversize):
            most = self._config.daemon.max_request
            self._refuse(client, Bad(RpcError(rpc.TOO_LARGE, f"a line may have {most} bytes, see max_request")))
            return
        asked = rpc.parse(line)
        if isinstance(asked, rpc.Batch):
            client.batch = BatchWork(client, asked.values)
        elif isinstance(asked, rpc.Bare):
            self._bare(client, asked.params)
        elif isinstance(asked, Bad):
            self._refuse(client, asked)
        else:
            self._request(client, asked, client.say_some)

    def _piece(self, client: Client, batch: BatchWork) -> None:
        asked = rpc.interpret(batch.next())
        if batch.exhausted:
            client.batch = None
        self._request(client, asked, batch.add)

    def _request(self, client: Client, asked: Request | Bad, deliver: Callable[[Json | None], None]) -> None:
        if isinstance(asked, Bad):
            deliver(rpc.failure(asked.id, asked.error))
            return
        if client.gone and asked.method != "campaign.submit":
            deliver(None)  # a question whose asker has hung up; what he left to be sent is still sent
            return
        call = Call(client, asked, deliver)
        try:
            method = self._methods.get(asked.method)
            if method is None:
                there = ", ".join(sorted(self._methods))
                raise RpcError(rpc.METHOD_NOT_FOUND, f"no method {asked.method[:60]!r}; there is: {there}")
            method(call)
        except RpcError as e:
            call.fail(e)
            if asked.notification and asked.method == "campaign.submit":
                self.refusals.log(client.pid, client.uid, e.message)

    # ---- submissions

    def _bare(self, client: Client, params: Mapping[str, Any]) -> None:
        try:
            accepted = self._submit(client, submission.from_bare(params))
        except RpcError as e:
            # Whoever hangs up without reading would not know otherwise.
            self.refusals.log(client.pid, client.uid, e.message)
            client.say({"ok": False, "error": e.message})
        else:
            client.say({"ok": True, "campaign": accepted["campaign"]})

    def _refuse(self, client: Client, bad: Bad) -> None:
        """A line that cannot be understood may have been meant as a submission by one who hung up."""
        if client.gone or bad.error.code == rpc.TOO_LARGE:
            self.refusals.log(client.pid, client.uid, bad.error.message)
        client.say(rpc.failure(bad.id, bad.error))

    def _campaign_submit(self, call: Call) -> None:
        if read.flag(call.request.params, "dry_run"):
            self._campaign_plan(call)
            return
        call.succeed(self._submit(call.client, call.request.params))

    def _submit(self, client: Client, params: Mapping[str, Any]) -> Json:
        """Kept on disk when this returns. Raises RpcError with nothing kept."""
        keyed = submission.keyed_id(params, self._config)
        with self._keeping():
            if keyed is not None and self._spool.knows(keyed):
                return {"campaign": keyed, "duplicate": True}
            document = submission.document(
                params, self._config, now_ms=times.wall_ms(), uid=client.uid, pid=client.pid
            )
            accept(self._spool, document, keyed is not None)
        campaign: str = document["campaign"]
        self._tell_dispatcher({"t": "spool", "campaign": campaign})
        return {"campaign": campaign, "duplicate": False}

    def _campaign_plan(self, call: Call) -> None:
        """What it would come to, counted by the dispatcher; nothing is kept."""
        client, params = call.client, call.request.params
        if client.gone:
            call.deliver(None)
            return
        keyed = submission.keyed_id(params, self._config)
        document = submission.document(params, self._config, now_ms=times.wall_ms(), uid=client.uid, pid=client.pid)
        asked = {"document": document, "duplicate": keyed is not None and self._spool.knows(keyed)}
        self._ask(call, "campaign.plan", asked, _PLAN_PATIENCE,
                  lambda value, error: call.succeed(value) if error is None else call.fail(error))

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Something is written down for a client: what hinders it is his error, or one that passes."""
        if self.stopping:
            raise RpcError(rpc.NOT_NOW, "the daemon is stopping; try again when it is back")
        try:
            yield
        except UnknownUpload as e:
            raise read.invalid("upload", str(e)) from None
        except OSError as e:
            self._trouble.warning("the spool takes no submission: %s", e)
            raise RpcError(rpc.NOT_NOW, f"the spool cannot take it now: {e.strerror}; try again") from None

    def _audience_upload(self, call: Call) -> None:
        params = call.request.params
        read.only(params, ("upload", "openids"))
        with self._keeping():
            upload, count = self._spool.uploads.add(read.upload(params), read.openids(params.get("openids")))
        call.succeed({"upload": upload, "count": count})

    # ---- the daemon itself

    def _ping(self, call: Call) -> None:
        read.only(call.request.params, ())
        call.succeed({"pid": os.getpid(), "version": __version__})

    def _daemon_status(self, call: Call) -> None:
        read.only(call.request.params, ())
        self._ask(call, "daemon.status", {}, _STATUS_PATIENCE,
                  lambda value, error: call.succeed(self._status(value if error is None else None)))

    def _daemon_reload(self, call: Call) -> None:
        self._only_admins(call)
        read.only(call.request.params, ())

        def told(generation: int, error: str | None) -> None:
            call.client.asks -= 1
            if error is None:
                call.succeed({"generation": generation})
            else:
                call.fail(RpcError(rpc.WRONG_STATE, f"not reloaded: {error}"))
            call.client.settle()

        _log.info("reload ordered by uid=%d pid=%d", call.client.uid, call.client.pid)
        call.client.asks += 1
        self._admin.reload(told)

    def _daemon_scale(self, call: Call) -> None:
        self._only_admins(call)
        read.only(call.request.params, ("count",))
        count = read.whole(call.request.params, "count", 1, MOST_WORKERS, None)
        if count is None:
            raise read.invalid("count", "is missing")
        _log.info("%d workers ordered by uid=%d pid=%d", count, call.client.uid, call.client.pid)
        call.succeed({"count": self._admin.scale(count)})

    def _only_admins(self, call: Call) -> None:
        if call.client.uid not in self._admin.uids:
            raise RpcError(rpc.NOT_PERMITTED, f"uid {call.client.uid} may not do this; see admin_users")

    def adopt(self, config: Config, admins: frozenset[int]) -> None:
        """As a new configuration says."""
        self._config = config
        self._admin = replace(self._admin, uids=admins)

    # ---- carried to the dispatcher

    def _carry(self, call: Call) -> None:
        method = call.request.method
        patience = LONG.get(method, PATIENCE)
        if method in ANSWERED_BY_WORKERS:
            patience += self._config.workers.hang_timeout
        if method in ANSWERED_BY_WECHAT:
            patience += 2 * max(each.connect_timeout + each.timeout for each in self._config.accounts.values())
        params = CARRIED[method](call.request.params)
        if method in ACTS:
            _log.info("%s ordered by uid=%d pid=%d", method, call.client.uid, call.client.pid)
        if method in ORDERS:
            params["by"] = {"uid": call.client.uid, "pid": call.client.pid}
        self._ask(call, method, params, patience,
                  lambda value, error: call.succeed(value) if error is None else call.fail(error))

    def _campaign_watch(self, call: Call) -> None:
        if call.client.watches >= _WATCHES:
            raise RpcError(rpc.NOT_NOW, f"one connection may watch {_WATCHES} campaigns; open another")

        def begin(campaign: Any, error: RpcError | None) -> None:
            if error is not None:
                call.fail(error)
                return
            call.succeed(campaign)
            if campaign["state"] not in FINAL and not call.client.closed:
                call.client.watches += 1
                self.watches.add(campaign, call.client, time.monotonic())

        self._ask(call, "campaign.get", CARRIED["campaign.get"](call.request.params), PATIENCE, begin)

    def _ask(
        self, call: Call, method: str, params: Json, patience: float,
        done: Callable[[Any, RpcError | None], None],
    ) -> None:
        def answered(value: Any, error: RpcError | None) -> None:
            call.client.asks -= 1
            done(value, error)
            call.client.settle()

        call.client.asks += 1
        self._asks.put(method, params, time.monotonic() + patience, answered)

    def _look(self, campaign: str) -> None:
        self._asks.put(
            "campaign.get", {"campaign": campaign}, time.monotonic() + PATIENCE,
            lambda value, error: self.watches.saw(campaign, value, error),
        )
