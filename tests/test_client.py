"""The client library: what it returns, what it raises, and that it never waits longer than it was told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fanoutd import client
from fanoutd.client import Client, Unreachable
from support.master import MasterProcess, running, until


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    with running(tmp_path_factory.mktemp("master")) as process:
        yield process


@pytest.fixture
def connected(master: MasterProcess) -> Iterator[Client]:
    with Client(master.socket) as c:
        yield c


# ---- what it returns


def test_four_lines_submit_a_campaign(master: MasterProcess) -> None:
    with Client(str(master.socket)) as c:
        answer = c.submit(content="你好", message="supply", key="four-lines")
        again = c.submit(content="你好", message="supply", key="four-lines")
    assert answer["duplicate"] is False and again == {**answer, "duplicate": True}
    assert master.spooled()[answer["campaign"]]["content"] == "你好"


def test_a_campaign_and_any_method_by_name(master: MasterProcess, connected: Client) -> None:
    assert connected.campaign("c-1") == {"id": "c-1", "state": "done"}
    assert connected.call("daemon.ping")["pid"] == master.process.pid
    assert connected.call("campaign.list", limit=3)["limit"] == 3


def test_many_calls_on_one_line_are_answered_in_their_order(master: MasterProcess, connected: Client) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [("campaign.get", {"campaign": f"c-{i}"}) for i in range(1, 101)]
    found = connected.call_many([*calls, ("daemon.ping", {}), ("no.such", {}), ("campaign.get", {"campaign": 5})])
    assert [each["id"] for each in found[:100]] == [f"c-{i}" for i in range(1, 101)]
    assert found[100]["pid"] == master.process.pid
    assert [each.code for each in found[101:]] == [-32601, -32602]
    assert connected.call("daemon.ping")["pid"] == master.process.pid


def test_a_line_that_is_refused_as_a_whole_is_one_error(connected: Client) -> None:
    with pytest.raises(client.TooLarge):
        connected.call_many([("daemon.ping", {"a": "x" * (2 << 20)})])
    assert connected.call_many([("daemon.ping", {})])[0]["pid"]


# ---- what it raises


@pytest.mark.parametrize(
    ("method", "params", "kind", "code", "field"),
    [
        ("campaign.submit", {"content": "x", "message": "nope"}, client.BadRequest, -32602, "message"),
        ("campaign.submit", {"content": "x", "message": "supply", "page": "soon"}, client.BadRequest, -32602, "page"),
        ("no.such.method", {}, client.BadRequest, -32601, None),
        ("campaign.get", {"campaign": "nope"}, client.NoSuchCampaign, -32002, "campaign"),
        ("campaign.get", {"campaign": "../x"}, client.NoSuchCampaign, -32002, "campaign"),
        ("campaign.submit", {"content": "x" * 70_000, "message": "supply"}, client.TooLarge, -32004, None),
    ],
)
def test_a_refusal_has_its_class_its_code_and_its_field(
    connected: Client, method: str, params: dict[str, Any], kind: type[client.ClientError], code: int, field: str | None
) -> None:
    with pytest.raises(client.ClientError) as refused:
        connected.call(method, **params)
    assert (type(refused.value), refused.value.code) == (kind, code)
    assert refused.value.data == (None if field is None else {"field": field})
    assert str(refused.value)
    assert connected.call("daemon.ping")  # the connection goes on


def test_a_refused_reload_is_the_wrong_state(master: MasterProcess, connected: Client) -> None:
    text = master.config_file.read_text()
    master.config_file.write_text(text + "\n[nonsense]\n")
    try:
        with pytest.raises(client.WrongState, match="nonsense"):
            connected.call("daemon.reload")
    finally:
        master.config_file.write_text(text)
    connected.call("daemon.reload")


def test_a_spool_that_cannot_write_is_not_now(master: MasterProcess, connected: Client) -> None:
    new, aside = master.folder / "state" / "spool" / "new", master.folder / "aside"
    new.rename(aside)
    try:
        with pytest.raises(client.TryAgain) as refused:
            connected.submit(content="x", message="supply")
    finally:
        aside.rename(new)
    assert refused.value.code == -32005
    connected.submit(content="x", message="supply")


STRANGER = """
import os, sys
from fanoutd.client import Client, NotPermitted
os.setgid(65534)
os.setuid(65534)
for n in range(20):
    try:
        Client(sys.argv[1]).call("daemon.ping")
    except NotPermitted as e:
        print(e.code)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_stranger_is_always_told_that_he_is_not_permitted() -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as master:
        Path(folder).chmod(0o755)
        master.socket.chmod(0o666)
        done = subprocess.run([sys.executable, "-c", STRANGER, str(master.socket)], capture_output=True, text=True)
    assert done.stdout.split() == ["-32001"] * 20, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_that_the_file_system_keeps_from_him_is_a_permission_error() -> None:
    script = STRANGER.replace("NotPermitted as e", "PermissionError").replace("e.code", "'kept out'")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as master:
        done = subprocess.run([sys.executable, "-c", script, str(master.socket)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["kept out"] * 20, done.stderr


# ---- nobody there


def test_where_no_daemon_listens_it_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    for name in ("nothing", "file", "file/beneath", "dead", "x" * 200):
        with pytest.raises(Unreachable, match=r"no daemon answers on .*/(nothing|file|dead|x)"):
            Client(tmp_path / name)


Serve = Callable[[bytes], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server that says these bytes to whoever connects, and hangs up when he does; nothing: it says nothing."""
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def speak(words: bytes) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(ConnectionError):
            sock.recv(1 << 16)
            if words:
                sock.sendall(words)
                return
            sock.recv(1)

    def begin(words: bytes) -> Path:
        listener.bind(str(path))
        listener.listen()
        threads.append(threading.Thread(target=speak, args=(words,)))
        threads[0].start()
        return path

    yield begin
    for thread in threads:
        thread.join(10)
    listener.close()


def test_a_daemon_that_does_not_answer_is_waited_for_as_long_as_was_said(serve: Serve) -> None:
    with Client(serve(b""), timeout=0.2) as c:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            c.call("daemon.ping")
        assert 0.15 < time.monotonic() - begun < 2


def test_a_late_answer_is_not_taken_for_the_next_ones(master: MasterProcess) -> None:
    pid = master.ready().pid_of(0)
    with Client(master.socket, timeout=0.3) as c:
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable):
                c.call("campaign.get", campaign="late")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert c.call("campaign.get", campaign="next")["id"] == "next"


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH\r\n", b"[]\n", b"3\n", b"\xff\n"])
def test_somebody_else_who_listens_there_is_no_daemon(serve: Serve, words: bytes) -> None:
    with Client(serve(words)) as c, pytest.raises(Unreachable, match="does not speak as a daemon does"):
        c.call("daemon.ping")


@pytest.mark.parametrize("words", [b'{"jsonrpc":"2.0",', b'{"jsonrpc":"2.0","id":7,"result":1}\n'])
def test_one_that_hangs_up_before_the_answer_is_unreachable(serve: Serve, words: bytes) -> None:
    with Client(serve(words)) as c, pytest.raises(Unreachable, match="hung up"):
        c.call("daemon.ping")


def test_a_daemon_that_ends_is_not_now_and_then_unreachable(tmp_path: Path) -> None:
    with running(tmp_path) as master, Client(master.socket) as c:
        master.process.kill()
        master.process.wait()
        with pytest.raises(Unreachable, match="hung up"):
            c.call("daemon.ping")
        with pytest.raises(Unreachable):
            c.call("daemon.ping")


# ---- watching


def becomes(master: MasterProcess, state: str, **more: Any) -> None:
    """All campaigns."""
    file = master.folder / "state" / "campaign"
    file.with_suffix(".new").write_text(json.dumps({"state": state, **more}))
    file.with_suffix(".new").rename(file)


@pytest.fixture
def unfinished(master: MasterProcess) -> Iterator[MasterProcess]:
    becomes(master, "planning")
    yield master
    (master.folder / "state" / "campaign").unlink()


def test_a_watch_ends_with_the_campaign(unfinished: MasterProcess, connected: Client) -> None:
    watch = connected.watch("c-1")
    assert next(watch)["state"] == "planning"
    becomes(unfinished, "running")
    assert next(watch)["state"] == "running"
    becomes(unfinished, "failed", reason="why")
    assert list(watch) == [{"id": "c-1", "state": "failed", "reason": "why"}]
    assert [seen["state"] for seen in connected.watch("c-1")] == ["failed"]


def test_a_watch_waits_longer_than_an_answer_and_leaves_the_time_limit_as_it_was(unfinished: MasterProcess) -> None:
    with Client(unfinished.socket, timeout=0.3) as c:
        watch = c.watch("c-1")
        next(watch)
        later = threading.Timer(0.6, becomes, (unfinished, "done"))
        later.start()
        assert next(watch)["state"] == "done"
        pid = unfinished.pid_of(0)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable, match="does not answer"):
                c.campaign("c-1")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_nothing_is_missed_by_who_asks_something_else_meanwhile(unfinished: MasterProcess, connected: Client) -> None:
    one, other = connected.watch("c-1"), connected.watch("c-2")
    assert [next(one)["id"], next(other)["id"]] == ["c-1", "c-2"]
    becomes(unfinished, "done")

    def both_told() -> bool:
        # What comes to a connection comes in its order: when this answer is there, so may be the notifications.
        connected.call("daemon.ping")
        return all(news for _, news in connected._watches.values())

    until(both_told, "both last words, taken in beside answers")
    assert list(other) == [{"id": "c-2", "state": "done"}]
    assert list(one) == [{"id": "c-1", "state": "done"}]


def test_a_watch_that_is_given_up_is_forgotten(unfinished: MasterProcess, connected: Client) -> None:
    watch = connected.watch("c-1")
    next(watch)
    watch.close()
    becomes(unfinished, "running")
    assert connected._watches == {}
    assert connected.call("daemon.ping")


def test_a_watch_of_a_daemon_that_dies_is_unreachable(tmp_path: Path) -> None:
    with running(tmp_path) as master, Client(master.socket) as c:
        becomes(master, "running")
        watch = c.watch("c-1")
        next(watch)
        master.process.kill()
        with pytest.raises(Unreachable):
            next(watch)


# ---- deliveries


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A daemon of 7 people in pages of 3, and what it was asked."""
    asked: list[dict[str, Any]] = []
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        sock, _ = listener.accept()
        with sock, sock.makefile("rwb") as file:
            for line in file:
                request = json.loads(line)
                asked.append(request["params"])
                first = int(request["params"]["after"] or 0)
                rows = [{"openid": f"o{n}"} for n in range(first, min(first + 3, 7))]
                result = {"rows": rows, "next": str(first + 3) if first + 3 < 7 else None}
                file.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n")
                file.flush()

    thread = threading.Thread(target=answer)
    thread.start()
    yield path, asked
    thread.join(10)
    listener.close()


def test_deliveries_come_page_by_page_as_they_are_wanted(pages: tuple[Path, list[dict[str, Any]]]) -> None:
    path, asked = pages
    with Client(path) as c:
        found = c.deliveries("c-1", state="sent")
        assert [row["openid"] for row in islice(found, 3)] == ["o0", "o1", "o2"]
        assert asked == [{"campaign": "c-1", "state": "sent", "after": None}]
        assert [row["openid"] for row in found] == ["o3", "o4", "o5", "o6"]
        assert [each["after"] for each in asked] == [None, "3", "6"]
