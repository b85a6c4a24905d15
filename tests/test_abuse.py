"""The socket under abuse: whatever a client does, the others notice nothing and the master keeps its measure."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.abuse import ABUSES, PING, SUBMIT, Abused, abusing, pings
from support.master import Connection, until

pytestmark = pytest.mark.alone

MiB = 1 << 20
PINGS = 200


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abused]:
    with Abused(tmp_path_factory.mktemp("abused")) as process:
        process.ready()
        yield process
        assert "Traceback" not in process.log()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abused]:
    """One whose lines are not counted: that takes as long as its work."""
    with Abused(tmp_path_factory.mktemp("measured"), counted=False) as process:
        yield process.ready()
        assert "Traceback" not in process.log()


@pytest.mark.parametrize("name", ABUSES)
def test_nobody_else_feels(measured: Abused, name: str) -> None:
    master = measured
    descriptors, rss, log, cpu = master.descriptors(), master.rss(), len(master.log()), master.cpu()
    with abusing(name, master.socket):
        steady, fresh = pings(master, PINGS)
        grown = master.rss() - rss
    print(f"{name}: ping {figures(steady)}; with connecting {figures(fresh)}; memory {grown / MiB:+.1f} MiB;"
          f" CPU {(master.cpu() - cpu) / (sum(steady) + sum(fresh)):.0%}; log {len(master.log()) - log} bytes")
    assert late(steady) <= 0.25
    assert late(fresh) <= 1
    assert grown < 160 * MiB
    assert len(master.log()) - log < 64 << 10
    until(lambda: master.descriptors() <= descriptors, "its descriptors back", 30)


def late(waits: list[float]) -> float:
    """The 99th percentile."""
    return waits[int(len(waits) * 0.99) - 1]


def figures(waits: list[float]) -> str:
    median, worst = waits[len(waits) // 2], waits[-1]
    return f"median {median * 1000:.1f} ms, 99 % {late(waits) * 1000:.1f} ms, worst {worst * 1000:.1f} ms"


# ---- what they are told


def unread(client: Connection) -> int:
    """Bytes that wait for it in the kernel."""
    return int.from_bytes(fcntl.ioctl(client.sock, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_fifty_thousand_pings_written_in_a_row_are_all_answered_when_they_are_read(master: Abused) -> None:
    with master.connect() as client:
        requests = b"".join(PING.replace(b":1,", b":%d," % n) + b"\n" for n in range(50_000))
        writer = threading.Thread(target=client.write, args=(requests,))
        writer.start()
        until(lambda: unread(client) > 100_000, "answers that wait")
        assert [client.line()["id"] for _ in range(50_000)] == list(range(50_000))
        writer.join()


def test_a_batch_of_twenty_thousand_is_answered_in_one_line(master: Abused) -> None:
    with master.connect() as client:
        client.write(b"[" + b",".join(PING.replace(b":1,", b":%d," % n) for n in range(20_000)) + b"]\n")
        answers = client.line()
        assert [answer["id"] for answer in answers] == list(range(20_000))
        assert all(answer["result"] for answer in answers)
        assert client.ask("daemon.ping")["result"]


def test_a_batch_of_submissions_is_kept_whole(master: Abused) -> None:
    with master.connect() as client:
        client.write(b"[" + b",".join([SUBMIT] * 200) + b"]\n")
        campaigns = {answer["result"]["campaign"] for answer in client.line()}
    assert len(campaigns) == 200
    assert campaigns <= set(master.spooled())


def test_nothing_comes_between_the_answers_of_a_batch(master: Abused) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"running"}')
    get = b'{"jsonrpc":"2.0","id":%d,"method":"campaign.get","params":{"campaign":"c-1"}}'
    batch = b"[" + b",".join([get % 2, PING.replace(b":1,", b":3,")] * 50) + b"]\n"
    seen = {"batch": 0, "answer": 0, "campaign.progress": 0}
    with master.connect() as client:
        assert client.ask("campaign.watch", campaign="c-9")["result"]
        for n in itertools.count():
            file.with_suffix(".new").write_text(f'{{"state":"running","n":{n}}}')
            file.with_suffix(".new").rename(file)
            client.write(get % 100 + b"\n" + batch + get % 101 + b"\n")
            while seen["batch"] <= n or seen["answer"] < 2 * n + 2:
                value = client.line()
                seen["batch" if isinstance(value, list) else value.get("method", "answer")] += 1
                assert not isinstance(value, list) or sorted(each["id"] for each in value) == [2] * 50 + [3] * 50
            if n > 10 and seen["campaign.progress"] > 2:
                break
    file.unlink()


@pytest.mark.parametrize(("line", "code", "words"), [
    (b"[" + b"{}," * 70_000 + b"1]", -32700, "65536 objects"),
    (b"[" + b"5," * 70_000 + b"1]", -32600, "65536 requests"),
])
def test_more_than_can_be_looked_at_at_once_is_refused(master: Abused, line: bytes, code: int, words: str) -> None:
    with master.connect() as client:
        client.write(line + b"\n")
        error = client.line()["error"]
        assert (error["code"], words in error["message"]) == (code, True)
        assert client.ask("daemon.ping")["result"]


# ---- memory


def test_many_who_write_long_lines_and_never_end_them_make_room_for_one_who_does(master: Abused) -> None:
    rss = master.rss()
    halves = []
    for _ in range(150):
        halves.append(master.connect())
        halves[-1].write(b"{" + b" " * (MiB - 100) + b'"')
    people = json.dumps([f"o{n:020}" for n in range(40_000)])
    line = b'{"content":"x","message":"supply","openids":' + people.encode() + b"}\n"
    with master.connect() as client:
        client.write(line)
        assert client.line()["ok"] is True
    assert master.rss() - rss < 160 * MiB
    error = halves[0].line()["error"]
    assert (error["code"], "too much" in error["message"]) == (-32005, True)
    for client in halves:
        client.sock.close()


def test_asking_for_the_same_again_and_again_is_not_kept_again_and_again(master: Abused) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"running"}')
    with master.connect() as client:
        for _ in range(300):
            client.ask("campaign.watch", campaign="c-1")
        file.with_suffix(".new").write_text('{"state":"done"}')
        file.with_suffix(".new").rename(file)
        assert client.line()["params"] == {"id": "c-1", "state": "done"}
        id = client.begin("daemon.ping")
        assert client.line()["id"] == id
    file.unlink()


def test_a_client_watches_so_many_campaigns_and_no_more(master: Abused) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"running"}')
    with master.connect() as client:
        for n in range(64):
            file.write_text(f'{{"id":"c-{n}","state":"running"}}')
            assert client.ask("campaign.watch", campaign=f"c-{n}")["result"]["state"] == "running"
        assert client.ask("campaign.watch", campaign="c-64")["error"]["code"] == -32005
    file.unlink()


# ---- the log


def test_nothing_that_a_client_wrote_for_others_is_in_the_log_and_no_line_is_forged(tmp_path: Path) -> None:
    secret = "Geheimnis"
    forged = "x\n2026-01-02T15:04:05.678+08:00 master[1] stopped exit code 0"
    params = [
        {"content": secret, "flag": "soon"}, {"content": secret * 400}, {"content": [secret]}, {"phone": {"x": secret}},
        {"content": "x", "openids": [secret + "!"]}, {"content": "x", "data": {"colour": [secret]}},
        {"content": "x", "key": secret * 50}, {"content": "x", "message": "supply", "send_at": forged},
        {"content": "x", "message": forged}, {"content": "x", "message": "supply", forged: 1},
    ]
    with Abused(tmp_path) as master:
        before = len(master.ready().log())
        for each in params:
            with master.connect() as client:
                client.write(json.dumps({"message": "supply", **each}).encode())
        with master.connect() as client:
            client.write(b'{"content":"' + secret.encode())
        until(lambda: master.log()[before:].count("submission refused") == len(params) + 1, "all the lines")
        lines = master.log()[before:].splitlines()
        assert not any(secret in line for line in lines)
        assert all(f"master[{master.process.pid}]" in line for line in lines)


STRANGERS = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
for n in range(500):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        answer = s.makefile().readline()
        assert '-32001' in answer, answer
keep = []
for n in range(500):
    keep.append(socket.socket(socket.AF_UNIX))
    keep[-1].connect(sys.argv[1])
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_flood_of_strangers_is_told_and_takes_neither_places_nor_the_log() -> None:
    with tempfile.TemporaryDirectory() as folder, Abused(Path(folder)) as master:
        Path(folder).chmod(0o755)
        before, log = master.ready().descriptors(), len(master.log())
        master.socket.chmod(0o666)
        command = [sys.executable, "-c", STRANGERS, str(master.socket)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as strangers:
            assert strangers.stdout
            assert strangers.stdout.readline() == b"done\n"
            assert master.result("daemon.ping")
            assert master.descriptors() <= before + 70
            until(lambda: master.descriptors() <= before, "their descriptors back")
            assert strangers.stdin
            strangers.stdin.close()
        assert 0 < master.log()[log:].count("may not use the socket") <= 10


# ---- the end


def test_a_stop_comes_through_a_flood_of_connections(tmp_path: Path) -> None:
    with Abused(tmp_path, counted=False) as master, abusing("connect and close", master.ready().socket):
        master.process.terminate()
        assert master.process.wait(5) == 0
        assert "Traceback" not in master.log()
