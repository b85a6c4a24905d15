"""One master's socket under all that clients do to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.master import Connection, MasterProcess, running, until

BARE = b'{"content":"\xe4\xbe\x9b\xe5\xba\x94","flag":"0","phone":"110","message":"supply"}'


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    with running(tmp_path_factory.mktemp("master")) as process:
        yield process
        assert "Traceback" not in process.log()


def submit(master: MasterProcess, **params: Any) -> Any:
    return master.result("campaign.submit", **{"content": "x", "message": "supply", **params})


# ---- submissions


def test_a_submission_is_on_disk_when_it_is_answered_and_the_dispatcher_told(master: MasterProcess) -> None:
    answer = submit(master, openids=["o12345"])
    assert answer["duplicate"] is False
    document = master.spooled()[answer["campaign"]]
    assert (document["openids"], document["uid"], document["pid"]) == (["o12345"], os.getuid(), os.getpid())
    until(lambda: master.events(t="spool", campaign=answer["campaign"]), "the dispatcher's notice")


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_a_bare_object_is_answered_in_one_line(master: MasterProcess, end: bytes) -> None:
    with master.connect() as client:
        client.write(BARE + end)
        if not end:
            client.sock.shutdown(socket.SHUT_WR)
        answer = client.line()
        assert answer == {"ok": True, "campaign": answer["campaign"]}
        assert master.spooled()[answer["campaign"]]["page"] == 0
        if not end:
            assert client.line() is None


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_client_that_hangs_up_without_reading_is_served(master: MasterProcess, end: bytes) -> None:
    before = len(master.spooled())
    with master.connect() as client:
        client.write(BARE + end)
    until(lambda: len(master.spooled()) == before + 1, "the submission")


def test_a_refused_bare_object_is_answered_and_logged_though_its_client_is_gone(master: MasterProcess) -> None:
    before = master.spooled()
    with master.connect() as client:
        client.write(b'{"content":"","flag":"0","message":"supply"}\n')
        answer = client.line()
        assert (answer["ok"], "content" in answer["error"]) == (False, True)
    with master.connect() as client:
        client.write(b'{"content":"x","flag":"soon","message":"supply"}')
    until(lambda: "page must be a whole number" in master.log(), "its line in the log")
    with master.connect() as client:
        client.write(b'{"content":"half a line')
    until(lambda: "not one JSON value" in master.log(), "its line in the log")
    assert master.spooled() == before


# ---- the protocol


@pytest.mark.parametrize(("line", "code"), [
    (b"{nonsense\n", -32700), (b"\xff\xfe\n", -32700), (b"[" * 50_000 + b"\n", -32700), (b"[]\n", -32600),
    (b"5\n", -32600), (b'{"jsonrpc":"2.0","id":1}\n', -32600), (b"x" * 65_537 + b"\n", -32004),
])
def test_a_line_that_is_no_request_is_answered_and_the_connection_goes_on(
    master: MasterProcess, line: bytes, code: int
) -> None:
    with master.connect() as client:
        client.write(line)
        answer = client.line()
        assert (answer["error"]["code"], answer["jsonrpc"]) == (code, "2.0")
        assert client.ask("daemon.ping")["result"]


def test_errors_have_their_codes(master: MasterProcess) -> None:
    assert master.error("no.such")["code"] == -32601
    assert master.error("campaign.get", campaign="nope")["code"] == -32002
    assert master.error("daemon.ping", loud=True) == {
        "code": -32602, "message": "loud is no parameter here; there is: none", "data": {"field": "loud"},
    }


def test_a_line_too_long_is_told_while_it_is_still_being_written(master: MasterProcess) -> None:
    with master.connect() as client:
        client.write(b"x" * 70_000)
        assert client.line()["error"]["code"] == -32004
        client.write(b"y" * 200_000 + b"\n")
        assert client.ask("daemon.ping")["result"]


def test_many_requests_on_one_connection_are_matched_by_id(master: MasterProcess) -> None:
    with master.connect() as client:
        request = '{"jsonrpc":"2.0","id":"r%d","method":"daemon.ping"}\n'
        client.write("".join(request % n for n in range(50)).encode())
        assert {client.line()["id"] for _ in range(50)} == {f"r{n}" for n in range(50)}


def test_a_batch_is_answered_in_one_line_without_its_notifications(master: MasterProcess) -> None:
    with master.connect() as client:
        client.write(json.dumps([
            {"jsonrpc": "2.0", "id": 1, "method": "campaign.get", "params": {"campaign": "c-1"}},
            {"jsonrpc": "2.0", "method": "daemon.ping"}, 5,
            {"jsonrpc": "2.0", "id": 2, "method": "daemon.ping"},
            {"jsonrpc": "2.0", "id": 3, "method": "campaign.submit", "params": {"content": "x", "message": "supply"}},
        ]).encode() + b"\n")
        answers = {answer["id"]: answer for answer in client.line()}
        assert set(answers) == {None, 1, 2, 3}
        assert answers[1]["result"]["id"] == "c-1"
        assert answers[None]["error"]["code"] == -32600
        assert answers[3]["result"]["campaign"] in master.spooled()
        client.write(b'[{"jsonrpc":"2.0","method":"daemon.ping"}]\n')
        assert client.ask("daemon.ping")["result"]


def test_a_watch_tells_of_each_change_and_ends_with_the_campaign(master: MasterProcess) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"planning"}')
    with master.connect() as client:
        assert client.ask("campaign.watch", campaign="c-1")["result"]["state"] == "planning"
        begun = time.monotonic()
        for state in ("running", "done"):
            file.with_suffix(".new").write_text(json.dumps({"state": state}))
            file.with_suffix(".new").rename(file)
            told = client.line()
            assert told == {"jsonrpc": "2.0", "method": "campaign.progress", "params": {"id": "c-1", "state": state}}
        assert time.monotonic() - begun >= 0.3
        assert client.ask("daemon.ping")["result"]
        assert client.ask("campaign.watch", campaign="c-1")["result"]["state"] == "done"


STRANGER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\\n')
    print(s.makefile().readline(), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("config", "welcome"), [("", False), ('allow_users = ["nobody"]', True)])
def test_who_may_use_the_socket_is_told_by_his_user(config: str, welcome: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, MasterProcess(Path(folder), daemon=config) as master:
        Path(folder).chmod(0o755)
        master.connect()
        master.socket.chmod(0o666)
        stranger = [sys.executable, "-c", STRANGER, str(master.socket)]
        with subprocess.Popen(stranger, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            answer = json.loads(process.stdout.readline())
            process.kill()
        assert "result" in answer if welcome else answer["error"]["code"] == -32001


# ---- nobody's trouble is anybody else's


def flood(path: Path, line: bytes, until_set: threading.Event) -> None:
    """Write without ever reading, and come again when dropped."""
    while not until_set.is_set():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.2)
            sock.connect(str(path))
            while not until_set.is_set():
                sock.sendall(line)


@pytest.mark.alone
@pytest.mark.parametrize("line", [
    b"\xff{]garbage\n" * 1000, b"x" * 100_000, b"[" + b"{}," * 20_000 + b"{}]\n", BARE + b"\n",
    b'{"jsonrpc":"2.0","id":1,"method":"daemon.status"}\n' * 100, b"[" * 60_000 + b"\n",
])
def test_a_flood_is_not_felt_by_others(master: MasterProcess, line: bytes) -> None:
    over = threading.Event()
    floods = [threading.Thread(target=flood, args=(master.socket, line, over)) for _ in range(3)]
    for each in floods:
        each.start()
    try:
        with master.connect() as client:
            waits = []
            for _ in range(40):
                begun = time.monotonic()
                assert client.ask("daemon.ping")["result"]
                waits.append(time.monotonic() - begun)
    finally:
        over.set()
        for each in floods:
            each.join()
    assert sorted(waits)[-2] < 0.25
    assert "Traceback" not in master.log()


@pytest.mark.alone
def test_idle_and_half_open_connections_cost_nobody_anything(master: MasterProcess) -> None:
    clients = [master.connect() for _ in range(300)]
    for client in clients[::2]:
        client.write(b'{"jsonrpc":"2.0","id":1,"meth')
    begun = time.monotonic()
    assert master.result("daemon.ping")
    assert time.monotonic() - begun < 0.25
    for client in clients:
        client.sock.close()


def test_a_client_that_does_not_read_is_not_read_from(master: MasterProcess) -> None:
    with master.connect() as deaf:
        deaf.sock.setblocking(False)
        request = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\n' * 100
        written, quiet = 0, 0.0
        while quiet < 0.5 and written < 50 << 20:
            _, room, _ = select.select([], [deaf.sock], [], 0.1)
            quiet = 0.0 if room else quiet + 0.1
            with contextlib.suppress(BlockingIOError):
                written += deaf.sock.send(request) if room else 0
        assert written < 8 << 20
        assert master.result("daemon.ping")


def test_a_connection_is_kept_by_nobody_after_a_hangup(master: MasterProcess) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"running"}')
    before = len(os.listdir(f"/proc/{master.process.pid}/fd"))
    with Connection(master.socket) as client:
        client.ask("campaign.watch", campaign="c-1")
        client.sock.shutdown(socket.SHUT_WR)
        until(lambda: len(master.events(t="ask")) > 3, "a few looks")
    until(lambda: len(os.listdir(f"/proc/{master.process.pid}/fd")) <= before, "the descriptor's end")
