"""What systemd is told, datagram by datagram, and that its silence or absence harms nobody."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.master.launch import Launcher
from fanoutd.master.notify import Notify


class Systemd:
    """Its end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind(address)

    def heard(self) -> list[list[str]]:
        """The datagrams since the last call, each as its lines."""
        found = []
        while True:
            try:
                found.append(self.sock.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    yield made
    made.sock.close()


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def test_each_word_is_one_datagram(tmp_path: Path, systemd: Systemd) -> None:
    notify = Notify(environ(tmp_path))
    before = time.monotonic_ns() // 1000
    notify.ready("generation 1\nserves")
    notify.reloading()
    notify.status("all\twell")
    notify.stopping()
    ready, reloading, status, stopping = systemd.heard()
    assert ready == ["READY=1", "STATUS=generation 1 serves"]  # a line break would be another assignment
    assert reloading[0] == "RELOADING=1"
    assert before <= int(reloading[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert (status, stopping) == (["STATUS=all well"], ["STOPPING=1", "STATUS=stopping"])


def test_an_abstract_address_is_one_too() -> None:
    name = f"fanoutd-test-{os.getpid()}"
    systemd = Systemd(f"\0{name}")
    Notify({"NOTIFY_SOCKET": f"@{name}"}).stopping()
    assert systemd.heard() == [["STOPPING=1", "STATUS=stopping"]]
    systemd.sock.close()


def test_the_watchdog_is_fed_at_half_its_time_and_only_by_whom_it_watches(tmp_path: Path, systemd: Systemd) -> None:
    notify = Notify(environ(tmp_path, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid())))
    for now in (100.0, 100.1, 101.4, 101.5, 102.9, 103.0):
        assert (now >= notify.deadline()) == (now in (100.0, 101.5, 103.0))
        notify.watchdog(now)
    assert systemd.heard() == [["WATCHDOG=1"]] * 3
    for more in ({}, {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}):
        other = Notify(environ(tmp_path, **more))
        other.watchdog(100.0)
        assert other.deadline() == float("inf")
    assert systemd.heard() == []


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket"])
def test_nobody_to_tell_is_no_error(address: str) -> None:
    notify = Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    notify.ready("well")
    notify.watchdog(1.0)
    notify.close()
    notify.stopping()


def test_one_who_does_not_listen_is_not_waited_for(tmp_path: Path, systemd: Systemd) -> None:
    notify = Notify(environ(tmp_path))
    begun = time.monotonic()
    for _ in range(10_000):  # far more than its queue takes
        notify.status("x" * 100)
    assert time.monotonic() - begun < 5
    assert systemd.heard()
    notify.ready("again")
    assert systemd.heard() == [["READY=1", "STATUS=again"]]


def test_the_launcher_hears_the_first_ready_alone(tmp_path: Path, systemd: Systemd) -> None:
    read, write = os.pipe()
    notify = Notify(environ(tmp_path), Launcher(write))
    assert write in notify.descriptors()
    notify.ready("one")
    notify.ready("two")
    assert os.read(read, 100) == b'[0, ""]'
    assert os.read(read, 100) == b""
    assert write not in notify.descriptors()
    assert len(systemd.heard()) == 2
    os.close(read)


def test_the_environment_is_kept_for_a_program_that_takes_over(tmp_path: Path, systemd: Systemd) -> None:
    kept = environ(tmp_path, WATCHDOG_USEC="3000000")
    Notify(kept).close()
    Notify(kept).stopping()
    assert len(systemd.heard()) == 1
