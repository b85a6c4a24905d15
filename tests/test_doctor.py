"""`fanoutd doctor`: each trouble is found, in one line with its mend, and nothing is an exception."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import load
from fanoutd.doctor import network
from fanoutd.promise import EXACT, file_system, promise
from support import disk
from support.daemon import Daemon
from support.smtp import MailServer, certificate

CONFIG = """
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
api_base = "http://127.0.0.1:9"
[message.supply]
channels = ["custom"]
[message.supply.custom]
msgtype = "text"
text.content = "{content}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fanoutd.toml"
    file.write_text(CONFIG)
    file.chmod(0o600)
    return file


def run(config: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "fanoutd", "-c", str(config), "doctor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "a-secret-of-the-tests" not in done.stdout + done.stderr
    return done


def findings(config: Path, **more: Any) -> dict[str, dict[str, Any]]:
    """The worst finding of each subject."""
    found: dict[str, dict[str, Any]] = {}
    for line in run(config, "--json", **more).stdout.splitlines():
        each = json.loads(line)
        assert each["level"] == "ok" or each["mend"]
        known = found.get(each["what"])
        if known is None or ("ok", "warn", "fail").index(each["level"]) > ("ok", "warn", "fail").index(known["level"]):
            found[each["what"]] = each
    return found


def test_a_living_daemon_is_examined_to_its_workers_and_tokens(tmp_path: Path) -> None:
    d = Daemon(tmp_path, 3)
    try:
        d.until(d.call("campaign.submit", content="x", phone="1")["campaign"])
        found = findings(d.config)
        assert not [each for each in found.values() if each["level"] == "fail"]
        assert found["daemon"]["level"] == found["token of main"]["level"] == found["store"]["level"] == "ok"
        assert found["quota of main"]["words"].startswith("calls today: custom 3")
        assert found["API of main"]["level"] == found["clock"]["level"] == found["durability"]["level"] == "ok"
        assert "2 of 2 workers" in run(d.config).stdout
        assert run(d.config).returncode == 0
        campaign = d.call("campaign.submit", content="x", phone="1", send_at="2099-01-01T00:00:00+08:00")["campaign"]
        d.call("campaign.pause", campaign=campaign)
        assert findings(d.config)["campaign"]["level"] == "warn"
        os.kill(d.process.pid, signal.SIGSTOP)
        try:
            assert findings(d.config)["daemon"]["level"] != "ok"
        finally:
            os.kill(d.process.pid, signal.SIGCONT)
    finally:
        d.close()


def test_without_a_daemon_the_rest_is_examined_and_what_was_not_is_said(config: Path) -> None:
    found = findings(config)
    assert found["daemon"]["level"] == "warn" and "not examined" in found["daemon"]["words"]
    assert found["API of main"]["level"] == "fail"
    assert run(config).returncode == 1
    (config.parent / "state").mkdir(mode=0o700, exist_ok=True)
    (config.parent / "state" / "fanoutd.pid").write_text("4711\n")
    found = findings(config)
    assert found["daemon"]["level"] == "fail" and found["daemon"]["words"].startswith("it has died: ")


def test_files_that_others_may_read_and_a_store_that_is_none_fail(config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    (state / "fanoutd.db").write_text("this is no database, but a text of some length")
    found = findings(config)
    assert found["state directory"]["level"] == "fail" and "chmod" in found["state directory"]["mend"]
    assert found["store"]["level"] == "fail" and "not a database" in found["store"]["words"]


def test_a_store_of_a_newer_version_fails(config: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with sqlite3.connect(tmp_path / "state" / "fanoutd.db") as link:
        link.execute("PRAGMA journal_mode = WAL")
        link.execute("CREATE TABLE fanout_meta (name TEXT, value TEXT)")
        link.execute("INSERT INTO fanout_meta VALUES ('version', '99')")
    assert "newer" in findings(config)["store"]["words"]


@pytest.mark.skipif(not disk.available(), reason="needs root or user namespaces for a disk of its own")
def test_a_full_disk_and_one_that_is_gone_with_the_power_are_told(config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    found = findings(config, prefix=disk.mounted(state, "size=64k"))
    assert found["promise"]["level"] == "warn" and "not a power cut" in found["promise"]["words"]
    assert found["room"]["level"] == "fail"


@pytest.mark.parametrize(
    ("url", "level", "words", "mend"),
    [
        ("smtp+starttls://user:hush-hush@127.0.0.1:{port}?ssl_ca={ca}", "ok", "connect, STARTTLS, login; nothing", ""),
        ("smtp+starttls://user:hush-hush@127.0.0.1:{port}?ssl_verify=off", "ok", "STARTTLS, login", ""),
        ("smtp+starttls://user:hush-hush@127.0.0.1:{port}", "fail", "certificate is not trusted", "ssl_ca"),
        ("smtp+starttls://user:hush-wrong@127.0.0.1:{port}?ssl_ca={ca}", "fail", "login: 535", "percent-encoded"),
        ("smtp://127.0.0.1:9", "fail", "Connection refused", "the way there"),
        (None, "warn", "there is no [mail]", "write one"),
    ],
)
def test_the_mail_server_is_greeted_and_sent_nothing(
    config: Path, tmp_path: Path, url: str | None, level: str, words: str, mend: str
) -> None:
    made = certificate(tmp_path)
    with MailServer("starttls", made, ("user", "hush-hush")) as server:
        if url:
            smtp = url.format(port=server.port, ca=made[0].name)
            config.write_text(f'{CONFIG}[mail]\nsmtp = "{smtp}"\nfrom = "a@example.com"\nto = ["b@example.com"]\n')
        found = list(network.mail(load(config)))
    assert not server.received
    (finding,) = [each for each in found if each.level != "ok"] or found
    assert (finding.level, words in finding.words) == (level, True), finding
    assert mend in (finding.mend or "") and "hush" not in str(found)


def test_the_promise_is_exact_on_a_disk_and_less_on_tmpfs(tmp_path: Path) -> None:
    assert file_system(Path("/proc")) == "proc"
    assert file_system(Path("/dev/shm")) in ("tmpfs", "")
    if file_system(Path("/dev/shm")) == "tmpfs":
        assert "power cut" in promise(Path("/dev/shm"), None)
    if file_system(tmp_path) not in ("tmpfs", "overlay"):
        assert promise(tmp_path, tmp_path / "gone.db") == EXACT
