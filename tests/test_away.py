"""What becomes of a submission when there is no daemon: kept once, taken up once, told of once; never by half."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.away import alert as alerts
from fanoutd.away import drop, keep
from fanoutd.client import Client, Unreachable
from fanoutd.config import Config
from fanoutd.dispatcher.drop_box import DropBox
from fanoutd.errors import BadInput, FanoutdError
from fanoutd.ids import keyed_campaign_id
from fanoutd.mail.event import Event
from fanoutd.spool import Spool
from support.bench import wait_for
from support.daemon import Daemon
from support.program import Program, program
from support.reach import reaching
from support.smtp import MailServer

# ---- the drop folder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Program(tmp_path, "max_request = '64KiB'").config


class Box:
    """A drop box over a spool, and what it refused."""

    def __init__(self, config: Config) -> None:
        self.folder = config.daemon.drop
        self.spool = Spool(config.daemon.state_dir / "spool")
        self.spool.prepare()
        self.folder.mkdir(mode=0o700)
        self.refused: list[dict[str, Any]] = []
        self.box = DropBox(config, self.spool, self.refused.append)

    def empty(self) -> list[str]:
        """The errors of those that were refused by it."""
        self.refused.clear()
        self.box.empty()
        return [each["error"] for each in self.refused]

    def put(self, data: bytes, name: str | None = None, mode: int = 0o644) -> Path:
        file = self.folder / (name or os.urandom(16).hex())
        file.write_bytes(data)
        file.chmod(mode)
        return file

    def left(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest.fixture
def box(config: Config) -> Box:
    return Box(config)


def line(**params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "campaign.submit", "params": params}).encode()


def test_what_is_left_is_accepted_once_as_from_whom_it_is(box: Box) -> None:
    for _ in range(2):
        drop.leave(box.folder, {"content": "供应", "key": "k"})
    box.put(b'{"content":"bare","flag":"1","key":"b"}')
    assert all(stat.S_IMODE((box.folder / name).stat().st_mode) == 0o644 for name in box.left())
    assert (box.empty(), box.left()) == ([], [])
    bare, kept = sorted((box.spool.read(each) or {} for each in box.spool.pending()), key=lambda each: each["key"])
    assert kept["campaign"] == keyed_campaign_id("main", "k") == drop.campaign_of("main", {"key": "k"})
    assert (kept["content"], kept["uid"], kept["pid"]) == ("供应", os.geteuid(), os.getpid())
    assert (bare["content"], bare["page"], bare["pid"]) == ("bare", 1, 0)
    box.spool.remove(kept["campaign"])  # the store has it now
    drop.leave(box.folder, {"content": "again", "key": "k"})
    assert (box.empty(), box.left(), box.spool.knows(kept["campaign"])) == ([], [], True)
    assert box.spool.pending() == [bare["campaign"]]
    recurring = {"content": "x", "key": "r", "cron": "0 9 * * 1"}
    drop.leave(box.folder, recurring)
    assert box.empty() == []
    assert drop.campaign_of("main", recurring) in box.spool.pending()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not one JSON value"),
        (b"\xff{}", "not one JSON value in UTF-8"),
        (b"[" * 60_000, "nested too deeply"),
        (line(content="x"), "key is missing"),
        (line(content="x", key="\ud800"), "not one JSON value"),
        (line(content="x", key=""), "must not be empty"),
        (line(content="x", key="k", message="nope"), "no message 'nope' is configured"),
        (line(content="x", key="k", colour="red"), "colour"),
        (line(content="x", key="k", dry_run=True), "only campaign.submit can be left here"),
        (line(content="x", key="k", upload="u-" + "0" * 20), "no upload"),
        (b"[" + line(content="x", key="k") + b"]", "only campaign.submit can be left here"),
        (line(content="x", key="k").replace(b"submit", b"cancel"), "only campaign.submit can be left here"),
    ],
)
def test_what_is_no_submission_is_refused_and_kept_for_people(box: Box, data: bytes, words: str) -> None:
    file = box.put(data)
    [error] = box.empty()
    assert words in error
    assert box.refused[0]["uid"] == os.geteuid()
    assert (box.left(), box.spool.pending()) == ([], [])
    if data:
        assert (box.spool.path / "bad" / f"drop-{file.name}").read_bytes() == data
    assert box.empty() == []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_what_others_may_write_to_is_not_its_owners_word(box: Box, mode: int) -> None:
    file = box.put(line(content="x", key="lent"), mode=mode)
    [error] = box.empty()
    assert "may be written by others: it wants the mode 0644" in error
    assert (box.left(), box.spool.pending(), box.empty()) == ([file.name], [], [])


def test_links_folders_and_what_is_too_long_hinder_nobody(
    box: Box, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box.folder)
    secret = tmp_path / "secret"
    secret.write_bytes(line(content="x", key="stolen"))
    names = [f"{number:032x}" for number in range(6)]
    (box.folder / names[0]).symlink_to(secret)
    os.link(secret, box.folder / names[1])
    (box.folder / names[2]).mkdir()
    os.mkfifo(box.folder / names[3])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(names[4])
    box.put(b" " * (config.daemon.max_request + 1), names[5])
    box.put(line(content="x", key="odd"), "odd name")
    fresh, old = (box.put(b"{", f"{each}{'0' * 31}.half") for each in "ab")
    os.utime(old, (time.time() - 4000,) * 2)
    drop.leave(box.folder, {"content": "x", "key": "good"})
    errors = box.empty()
    assert len(errors) == 6, errors
    assert sum("is no file of its own" in each for each in errors) == 3
    assert sum("cannot be read" in each for each in errors) == 2
    assert sum("is longer than max_request" in each for each in errors) == 1
    assert box.spool.pending() == [keyed_campaign_id("main", "good")]
    assert box.left() == [names[2], fresh.name, "odd name"]  # a folder cannot be taken away, and is told of once
    assert (box.empty(), secret.exists()) == ([], True)


def test_a_disk_that_takes_nothing_loses_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    drop.leave(box.folder, {"content": "x", "key": "k"})
    with monkeypatch.context() as patched:
        patched.setattr(Spool, "accept", full)
        assert [box.empty(), box.empty()] == [[], []]
        assert [each.levelname for each in caplog.records] == ["ERROR"]  # told once
        with pytest.raises(OSError), patched.context() as worse:
            worse.setattr(drop, "_sync_file_system", full)
            drop.leave(box.folder, {"content": "x", "key": "l"})
    assert len(box.left()) == 1
    assert (box.empty(), len(box.spool.pending()), box.left()) == ([], 1, [])


def test_a_spool_that_is_being_prepared_takes_it_in_the_end(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(config.daemon.state_dir / "spool")
    with pytest.raises(FanoutdError, match="not kept"):
        keep.keep(config, {"content": "x", "key": "k"})
    spool.prepare()
    rename, swept = os.rename, []

    def sweeping(source: Path, target: Path) -> None:
        if not swept:
            swept.append(source)
            Spool(spool.path).prepare()  # a daemon starts, and takes our half file for a dead one's
        rename(source, target)

    monkeypatch.setattr(os, "rename", sweeping)
    kept = keep.keep(config, {"content": "x", "key": "k"})
    assert (len(swept), kept.duplicate, spool.pending()) == (1, False, [kept.campaign])
    assert keep.keep(config, {"content": "other", "key": "k"}).duplicate
    with pytest.raises(BadInput, match="content must not be empty"):
        keep.keep(config, {"content": " ", "key": "k2"})
    assert keep.with_key({})["key"] != keep.with_key({})["key"]
    assert keep.with_key({"key": "mine"}) == {"key": "mine"}


def test_the_php_of_the_document_leaves_what_is_taken(box: Box) -> None:
    text = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text(encoding="utf-8")
    _, code = re.findall(r"```php\n(.*?)```", text, re.DOTALL)
    assert "'/var/spool/fanoutd/'" in code
    code = code.replace("/var/spool/fanoutd", str(box.folder))
    notice = "$notice = ['content' => '供应', 'phone' => '110', 'reference' => 7, 'key' => 'task-7'];"
    for state, left in (("$s = false; $answer = ['ok' => false];", 1), ("$s = STDIN; $answer = null;", 1),
                        ("$s = STDIN; $answer = ['ok' => false];", 0)):  # fmt: skip
        done = subprocess.run(["php", "-r", f"umask(077); {state} {notice} {code}"], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr, len(box.left())) == (0, b"", b"", left)
        assert (box.empty(), box.left()) == ([], [])
    assert box.spool.pending() == [keyed_campaign_id("main", "task-7")]


# ---- the client library


def hanging_up(path: Path, seen: list[dict[str, Any]]) -> None:
    """A daemon that takes one request and dies before it answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            seen.append(json.loads(connection.recv(1 << 16)))
    path.unlink()


def test_a_client_repeats_under_the_key_that_the_daemon_may_have_seen(box: Box, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    said: list[tuple[str, bool]] = []
    path = tmp_path / "hangs.sock"
    thread = threading.Thread(target=hanging_up, args=(path, seen))
    thread.start()
    wait_for(path.exists, "the socket")
    with Client(path, spool=box.folder, alert=lambda why, kept: said.append((why, kept))) as client:
        first = client.submit(content="x", account="main")
        thread.join(20)
        assert (first["spooled"], first["duplicate"]) == (True, False)
        assert seen[0]["params"]["key"] == first["key"]
        assert first["campaign"] == keyed_campaign_id("main", first["key"])
        second = client.submit(content="y", key="mine")  # it tries again, and finds nobody
        assert second == {"campaign": None, "duplicate": False, "spooled": True, "key": "mine"}
        with pytest.raises(Unreachable):
            client.call("daemon.ping")
    assert [kept for _, kept in said] == [True, True]
    assert "hung up" in said[0][0]
    assert box.empty() == []
    assert sorted(box.spool.pending()) == sorted([first["campaign"], keyed_campaign_id("main", "mine")])


def test_a_client_says_what_is_not_kept_and_an_alert_that_fails_harms_nothing(tmp_path: Path, box: Box) -> None:
    def fails(why: str, kept: bool) -> None:
        said.append((why, kept))
        raise OSError("no mail server")

    said: list[tuple[str, bool]] = []
    with pytest.raises(Unreachable):
        Client(tmp_path / "none.sock")
    with Client(tmp_path / "none.sock", alert=fails) as client, pytest.raises(Unreachable):
        client.submit(content="x")
    nowhere = Client(tmp_path / "none.sock", spool=tmp_path / "none", alert=fails)
    with pytest.raises(Unreachable, match=r"not kept in .*none: No such file"):
        nowhere.submit(content="x")
    with Client(tmp_path / "none.sock", spool=box.folder, alert=fails) as client:
        assert client.submit(content="x")["spooled"]
    assert [kept for _, kept in said] == [False, False, True]
    assert len(box.left()) == 1


def test_equal_alerts_within_a_minute_make_one_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[Event] = []
    clock = [1_700_000_000_000]
    monkeypatch.setattr(alerts, "local_ms", lambda: clock[0])

    def refusing(_: Event) -> None:
        raise FanoutdError("not mailed")

    def tell(kept: bool, post: Callable[[Event], None] = went.append) -> bool:
        return alerts.alert(tmp_path, "no daemon answers on /run/f.sock (refused)", kept, post)

    with pytest.raises(FanoutdError):
        tell(True, refusing)
    assert [tell(True), tell(True), tell(False), tell(False)] == [True, False, True, False]
    clock[0] += 59_999
    assert not tell(True)
    clock[0] += 1
    assert [tell(True), tell(True)] == [True, False]
    clock[0] -= 3_600_000  # set back
    assert tell(True)
    assert [each.subject for each in went] == [
        f"ALERT: daemon not reachable, submission {kept}kept" for kept in ("", "NOT ", "", "")
    ]  # fmt: skip
    assert "who does so under the same key sends nothing twice" in went[0].text
    assert "must be submitted again" in went[1].text
    (tmp_path / "alerts.json").write_text("[")
    assert tell(True)


# ---- send, on a real daemon


def test_send_keeps_what_the_daemon_then_sends_once(tmp_path: Path) -> None:
    with MailServer() as mails:
        daemon = Daemon(tmp_path, followers=5, workers=1)
        try:
            with daemon.config.open("a") as file:
                file.write(mails.table())
            drop_folder = tmp_path / "state" / "spool" / "drop"
            assert stat.S_IMODE(drop_folder.stat().st_mode) == 0o700
            live = json.loads(daemon.cli("send", "live", "--spool", "--json").stdout)
            assert (live["duplicate"], live["spooled"]) == (False, False)
            daemon.process.kill()
            daemon.process.wait()
            # Killed half-way it is not there, and may be repeated.
            half = subprocess.run(
                [sys.executable, "-m", "fanoutd", "-c", str(daemon.config), "send", "hello", "--spool", "--key", "k"],
                env={**os.environ, "FANOUTD_FAIL": "before_accept"}, capture_output=True, timeout=60,
            )  # fmt: skip
            assert (half.returncode, half.stdout) == (-9, b"")
            kept = daemon.cli("send", "hello", "--spool", "--key", "k")
            assert (kept.returncode, kept.stdout) == (0, keyed_campaign_id("main", "k") + "\n")
            assert "The submission is kept in " in kept.stderr
            again = json.loads(daemon.cli("send", "hello", "--spool", "--key", "k", "--json").stdout)
            assert again == {"campaign": kept.stdout.strip(), "duplicate": True, "spooled": True}
            assert daemon.cli("send", "x", "--spool", "--message", "nope").returncode == 65
            assert daemon.cli("send", "x", "--spool", "--wait").returncode == 2
            lost = daemon.cli("send", "x", "--alert")
            assert (lost.returncode, lost.stdout) == (69, "")
            with Client(daemon.socket, spool=drop_folder) as client:
                assert all(client.submit(content="left", key="d")["spooled"] for _ in range(2))
                client.submit(content="left", key="e", message="nope")
            daemon.serve()
            duplicate = json.loads(daemon.cli("send", "hello", "--spool", "--key", "k", "--json").stdout)
            assert duplicate == {"campaign": kept.stdout.strip(), "duplicate": True, "spooled": False}
            left = keyed_campaign_id("main", "d")
            wait_for(lambda: {each["id"] for each in daemon.campaigns()} == {live["campaign"], again["campaign"], left},
                     "the three campaigns")  # fmt: skip
            for campaign in (live["campaign"], again["campaign"], left):
                daemon.until(campaign)
            assert set(daemon.accepted().values()) == {3}
            assert os.listdir(drop_folder) == []
            [bad] = os.listdir(tmp_path / "state" / "spool" / "bad")
            assert "nope" in (tmp_path / "state" / "spool" / "bad" / bad).read_text()
            assert "no message 'nope' is configured" in (tmp_path / "fanoutd.log").read_text()
            alerted = [each.subject.partition("] ")[2] for each in mails.received if "reachable" in each.subject]
            assert alerted == [f"ALERT: daemon not reachable, submission {kept}kept" for kept in ("", "NOT ")]
        finally:
            daemon.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody can pass through: pytest's own is root's alone."""
    made = Path(tempfile.mkdtemp(prefix="fanoutd-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


#: Of every Debian.
NOBODY, BIN, SYS, GAMES_GROUP = 65534, 2, 3, 60


def as_user(uid: int, groups: list[int], code: str, *arguments: str) -> str:
    """The last line of what Python code says, run by this user."""
    done = subprocess.run(
        [*reaching(), sys.executable, "-c",
         f"import os; os.setgroups({groups}); os.setgid({uid}); os.setuid({uid})\n{code}", *arguments],
        capture_output=True, text=True, timeout=60, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LEAVE = """
import os, sys
from pathlib import Path
from fanoutd.away import drop
folder = Path(sys.argv[1])
try:
    drop.leave(folder, {"content": "x", "key": sys.argv[2], "openids": ["oFOLLOW1"]})
    print("left", end=" ")
    os.listdir(folder)
    print("listed")
except OSError as e:
    print(type(e).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_others_leave_it_in_the_drop_folder_and_root_as_the_daemons_user(open_folder: Path) -> None:
    lines = [
        f"log_file = '{open_folder}/log/f.log'", f"state_dir = '{open_folder}/state'", "max_request = '64KiB'",
        f"drop = '{open_folder}/in/drop'", "user = 'nobody'", "socket_group = 'games'", "allow_users = ['bin']",
    ]  # fmt: skip
    with program(open_folder, "\n".join(lines), prefix=reaching()) as daemon:
        daemon.environment = {name: value for name, value in daemon.environment.items() if "COVERAGE" not in name}
        os.chown(daemon.file, 0, NOBODY)
        daemon.file.chmod(0o640)
        never = daemon.run("send", "x", "--spool")
        assert (never.returncode, "start the daemon once" in never.stderr) == (69, True), never.stderr
        daemon.started()
        folder = open_folder / "in" / "drop"
        found = folder.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, GAMES_GROUP, 0o1730)
        assert daemon.run("stop").returncode == 0
        assert as_user(BIN, [GAMES_GROUP], LEAVE, str(folder), "ours") == "left PermissionError"
        assert as_user(SYS, [GAMES_GROUP], LEAVE, str(folder), "theirs") == "left PermissionError"
        assert as_user(SYS, [], LEAVE, str(folder), "no") == "PermissionError"
        kept = daemon.run("send", "x", "--spool", "--key", "roots", "--test", "oFOLLOW1")
        assert kept.returncode == 0, kept.stderr
        people = open_folder / "people"
        people.write_text("".join(f"oFOLLOW{number:021d}\n" for number in range(5000)))
        people.chmod(0o600)
        listed = daemon.run("send", "x", "--spool", "--key", "listed", "--openids", str(people))
        assert listed.returncode == 0, listed.stderr
        spool = open_folder / "state" / "spool"
        assert {path.stat().st_uid for path in spool.rglob("*")} == {NOBODY}
        assert [json.loads(path.read_bytes())["uid"] for path in (spool / "new").iterdir()] == [0, 0]
        daemon.started()
        wait_for(lambda: {each["key"] for each in daemon.call("campaign.list")["campaigns"]} == {
            "ours", "roots", "listed"}, "the three campaigns")  # fmt: skip
        wait_for(lambda: daemon.call("campaign.get", campaign=listed.stdout.strip())["total"] == 5000, "its people")
        wait_for(lambda: not os.listdir(folder), "an empty folder")
        assert f"uid {SYS} may not submit; see allow_users" in daemon.log()
