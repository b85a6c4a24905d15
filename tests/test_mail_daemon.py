"""Mail of a whole daemon: over crashes, reloads and stops, and what people ask about it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from fanoutd.client import TryAgain, WrongState
from fanoutd.mail.event import Event
from fanoutd.mail.spool import MailSpool
from support.bench import wait_for
from support.daemon import Daemon
from support.smtp import MailServer


def configure(d: Daemon, before: str, mail: str) -> None:
    d.config.write_text(before + mail)
    assert d.cli("reload").returncode == 0


def killed(d: Daemon) -> None:
    """kill -9 of the dispatcher, and another one is there."""
    before = d.dispatcher()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: d.call("daemon.status")["store"]["ok"] and d.dispatcher() not in (None, before), "the next one")


def test_mail_of_a_daemon_whose_mail_server_comes_and_goes(tmp_path: Path) -> None:
    with MailServer(login=("user", "hush-hush")) as server:
        d = Daemon(tmp_path, 3)
        try:
            bare = d.config.read_text()
            spool = MailSpool(tmp_path / "state" / "mail")
            assert d.call("daemon.status")["mail"] is None
            with pytest.raises(WrongState, match=r"there is no \[mail\] in the configuration; write one"):
                d.call("mail.test")
            done = d.cli("mail", "test")
            assert done.returncode == 1 and "there is no [mail]" in done.stderr
            assert not spool.path.exists()  # it costs nothing

            configure(d, bare, server.table())
            done = d.cli("mail", "test")
            assert (done.returncode, done.stdout) == (0, "250 2.0.0 taken as 4711\n"), done
            assert json.loads(d.cli("mail", "test", "--json").stdout) == {"answer": "250 2.0.0 taken as 4711"}
            node = d.call("daemon.status")["node"]
            assert [each.subject for each in server.received] == [f"[fanoutd {node}] a test"] * 2
            assert "hush" not in d.cli("config", "show").stdout and d.cli("config", "check").returncode == 0

            server.down()
            with pytest.raises(TryAgain, match="Connection refused"):
                d.call("mail.test")
            done = d.cli("mail", "test")
            assert done.returncode == 1 and f"127.0.0.1:{server.port}: connect: Connection refused" in done.stderr
            for n in range(5):
                spool.put(Event(f"e-{n}", "", f"campaign c-{n} done: 中文", "", "Done.", None, 1_764_246_000_000 + n))
            for _ in range(2):
                killed(d)
                wait_for(lambda: (d.call("daemon.status")["mail"] or {}).get("waiting") == 5, "the spool to be read")
            standing = d.call("daemon.status")["mail"]
            assert standing["last_sent"] is None
            wait_for(lambda: "Connection refused" in str(d.call("daemon.status")["mail"]["last_error"]), "a try")
            assert "5 events wait" in d.cli("status").stdout
            server.up()
            assert d.cli("mail", "test").returncode == 0  # and what waits goes at once
            server.wait_for(8)
            wait_for(lambda: not d.call("daemon.status")["mail"]["waiting"], "none to wait")
            killed(d)
            wait_for(lambda: (d.call("daemon.status")["mail"] or {}).get("last_sent"), "what the last one left")
            standing = d.call("daemon.status")["mail"]
            assert standing["waiting"] == 0 and standing["last_error"] is None
            sent = sorted(each.subject for each in server.received)
            assert sent == [f"[fanoutd {node}] a test"] * 3 + [
                f"[fanoutd {node}] campaign c-{n} done: 中文" for n in range(5)]  # fmt: skip

            # A login that is refused, mended by a HUP: what waits goes at once.
            configure(d, bare, server.table().replace("hush-hush", "hush-wrong"))
            spool.put(Event("late", "", "late", "late", "Late.", None, 1_764_246_000_000))
            killed(d)
            wait_for(lambda: "login: 535" in str(d.call("daemon.status")["mail"]["last_error"]), "a refusal")
            configure(d, bare, server.table())
            server.wait_for(lambda found: found[-1].subject.endswith("late"))

            # A silent one delays nothing: neither answers, nor a campaign, nor the end.
            server.faults.silent = "connect"
            spool.put(Event("silent", "", "silent", "", "Silent.", None, 1_764_246_000_000))
            before = server.connections
            killed(d)
            wait_for(lambda: server.connections > before, "a connection")
            d.until(d.call("campaign.submit", content="x", phone="1")["campaign"])
            began = time.monotonic()
            d.process.terminate()
            assert d.process.wait(20) == 0 and time.monotonic() - began < 8
            assert "hush" not in (tmp_path / "fanoutd.log").read_text()
            assert [each.id for each in spool.events()] == ["silent"]
        finally:
            d.close()
