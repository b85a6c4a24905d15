"""Started as root: who the daemon becomes, whose its files are, and that there is no way back."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.errors import FanoutdError
from fanoutd.master import lock, privileges
from support.activation import listening, passing
from support.bench import wait_for
from support.program import Program, program, status_of
from support.reach import as_nobody, reaching

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY = pwd.getpwnam("nobody")
#: A group of every Debian, in which nobody is a member.
GAMES = grp.getgrnam("games").gr_gid


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody can pass through: pytest's own is root's alone."""
    made = Path(tempfile.mkdtemp(prefix="fanoutd-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def daemon(folder: Path) -> Iterator[Program]:
    with program(folder, prefix=reaching()) as made:
        # Who is not root may not write coverage's files, and would say so.
        made.environment = {name: value for name, value in made.environment.items() if "COVERAGE" not in name}
        configure(made)
        yield made


def configure(daemon: Program, *lines: str, user: str | None = "nobody", group: int = NOBODY.pw_gid) -> None:
    daemon.configure("\n".join([f"log_file = '{daemon.folder}/log/f.log'", *lines, f"user = '{user}'" if user else ""]))
    os.chown(daemon.file, 0, group)
    daemon.file.chmod(0o640)


def refused(daemon: Program, code: int, *words: str) -> None:
    """In one line, with nothing started or left."""
    done = daemon.run("serve")
    [line] = done.stderr.splitlines()
    assert (done.returncode, [word for word in words if word not in line]) == (code, []), line
    assert daemon.left() == []


def owner(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_every_process_is_the_user_with_no_group_or_capability_of_roots(daemon: Program) -> None:
    daemon.started()
    pids = daemon.pids()
    assert len(pids) == 4
    for pid in pids:
        status = status_of(pid)
        assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4
        assert status["Groups"].split() == [str(NOBODY.pw_gid)]
        assert [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]
        assert status["Umask"] == "0027"
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]


def test_missing_folders_are_made_for_the_user_and_files_are_not_for_others(daemon: Program) -> None:
    configure(daemon, f"socket = '{daemon.folder}/run/one/f.sock'", f"pidfile = '{daemon.folder}/run/two/f.pid'")
    daemon.started()
    nobody = NOBODY.pw_uid, NOBODY.pw_gid
    assert owner(daemon.folder / "state") == (*nobody, 0o700)
    for name in ("run/one", "run/two", "log"):
        assert owner(daemon.folder / name) == (*nobody, 0o755)
    assert owner(daemon.folder / "run") == (0, 0, 0o755)
    assert owner(daemon.folder / "run/one/f.sock") == (*nobody, 0o660)
    for file in (daemon.folder / "log/f.log", daemon.config.daemon.pidfile, daemon.folder / "state/fanoutd.db"):
        assert owner(file)[0] == NOBODY.pw_uid
        assert not owner(file)[2] & 0o007, file


def test_a_store_is_moved_as_the_user_and_no_file_becomes_roots(daemon: Program) -> None:
    daemon.started()
    wait_for(lambda: daemon.call("daemon.status")["store"]["ok"], "the store")
    assert daemon.run("stop").returncode == 0
    done = daemon.run("migrate", "--to", f"sqlite:///{daemon.folder}/state/another.db")
    assert done.returncode == 0, done.stderr
    there = {path.name: owner(path)[0] for path in (daemon.folder / "state").iterdir()}
    assert "another.db" in there and "epoch" in there
    assert set(there.values()) == {NOBODY.pw_uid}
    done = daemon.run("migrate", "--to", f"sqlite:///{daemon.folder}/elsewhere.db")  # root's own folder
    assert done.returncode == 69 and done.stderr.count("\n") == 1 and "writable" in done.stderr
    assert not (daemon.folder / "elsewhere.db").exists()


def test_a_folder_that_is_there_stays_whose_it_is(daemon: Program) -> None:
    (daemon.folder / "state").mkdir(0o700)
    refused(daemon, 77, f"{daemon.folder}/state", "nobody")
    assert owner(daemon.folder / "state") == (0, 0, 0o700)
    os.chown(daemon.folder / "state", NOBODY.pw_uid, -1)
    daemon.started()


def test_what_the_user_could_not_read_again_is_refused_at_once(daemon: Program) -> None:
    daemon.file.chmod(0o600)
    refused(daemon, 78, "nobody", "reload", str(daemon.file))
    secret = daemon.folder / "main.secret"
    secret.write_text("s3cret-of-a-file")
    secret.chmod(0o600)
    configure(daemon)
    text = daemon.file.read_text().replace('app_secret = "s3cret-of-the-tests"', f'app_secret_file = "{secret}"')
    daemon.file.write_text(text)
    refused(daemon, 78, "nobody", "reload", str(secret))
    os.chown(secret, NOBODY.pw_uid, -1)
    daemon.started()
    assert daemon.run("reload").returncode == 0


def test_unknown_users_and_groups_are_bad_configuration(daemon: Program) -> None:
    configure(daemon, user="nemo-")
    refused(daemon, 78, "[daemon] user", "nemo-")
    configure(daemon, "socket_group = 'nautilus-'")
    refused(daemon, 78, "[daemon] socket_group", "nautilus-")
    assert not (daemon.folder / "state").exists()


def test_the_socket_is_given_to_its_group(daemon: Program) -> None:
    configure(daemon, "socket_group = 'games'", "socket_mode = '0620'")
    daemon.started()
    assert owner(daemon.config.daemon.socket) == (NOBODY.pw_uid, GAMES, 0o620)
    assert set(status_of(daemon.pids()[0])["Groups"].split()) == {str(NOBODY.pw_gid), str(GAMES)}


def test_who_is_not_root_becomes_nobody_else_and_gives_no_group_away(daemon: Program) -> None:
    daemon.prefix += as_nobody()
    for lines, user, words in (((), "daemon", "only root can become daemon"),
                               (("socket_group = 'games'",), None, "user nobody is not in group games")):
        configure(daemon, *lines, user=user)
        done = daemon.run("serve")
        assert (done.returncode, words in done.stderr) == (77, True), done.stderr


def test_the_user_himself_may_start_it(daemon: Program) -> None:
    os.chown(daemon.folder, NOBODY.pw_uid, -1)
    daemon.prefix += as_nobody()
    daemon.started()
    assert daemon.run("stop").returncode == 0
    assert daemon.left() == []


def test_a_program_that_the_user_does_not_get_at_is_refused(daemon: Program) -> None:
    copy = daemon.folder / "code"
    shutil.copytree(Path(privileges.__file__).parents[1], copy / "fanoutd")
    daemon.environment["PYTHONPATH"] = str(copy)
    copy.chmod(0o700)
    refused(daemon, 77, "nobody", str(copy))


def test_root_without_a_user_is_warned(daemon: Program) -> None:
    configure(daemon, user=None)
    daemon.started()
    assert [line for line in daemon.log().splitlines() if "warning" in line and "runs as root" in line]


def test_a_link_in_the_logs_place_leads_root_nowhere(daemon: Program) -> None:
    precious = daemon.folder / "precious"
    precious.write_text("root's")
    precious.chmod(0o600)
    (daemon.folder / "log").mkdir()
    os.chown(daemon.folder / "log", NOBODY.pw_uid, -1)
    (daemon.folder / "log" / "f.log").symlink_to(precious)
    refused(daemon, 77, "log_file", "f.log")
    assert (precious.read_text(), owner(precious)) == ("root's", (0, 0, 0o600))


def test_a_link_put_in_a_new_folders_place_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user would do between two calls of ours, if he may write in the folder above."""
    precious = folder / "precious"
    precious.mkdir(0o700)
    mkdir = Path.mkdir

    def overtaken(path: Path, mode: int = 0o777) -> None:
        mkdir(path, mode)
        path.rmdir()
        path.symlink_to(precious)

    monkeypatch.setattr(Path, "mkdir", overtaken)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        privileges.make_folder(folder / "new", 0o755, (NOBODY.pw_uid, NOBODY.pw_gid))
    assert owner(precious) == (0, 0, 0o700)


def _in_a_child(act: Callable[[], None]) -> int:
    """Its exit code: 0 when nothing was raised. There is no way back for who has given up root."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            act()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_there_is_no_way_back() -> None:
    def try_to() -> None:
        privileges.become(NOBODY, GAMES)
        assert (os.getresuid(), os.getresgid()) == ((NOBODY.pw_uid,) * 3, (NOBODY.pw_gid,) * 3)
        assert set(os.getgroups()) == {NOBODY.pw_gid, GAMES}
        for way in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.seteuid(0)):
            with pytest.raises(PermissionError):
                way()

    assert _in_a_child(try_to) == 0


@pytest.mark.parametrize(("call", "instead"), [
    ("setresuid", lambda *ids: os.seteuid(ids[1])),  # the saved one is still root's
    ("setresgid", lambda *_: None),
    ("setgroups", lambda _: None),
])  # fmt: skip
def test_a_root_that_stays_is_found_out(call: str, instead: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def try_to() -> None:
        os.setgroups([0, GAMES])
        monkeypatch.setattr(os, call, instead)
        with pytest.raises(FanoutdError, match="not given up"):
            privileges.become(NOBODY, None)

    assert _in_a_child(try_to) == 0


def test_nobody_but_the_owner_holds_the_pidfiles_lock(daemon: Program) -> None:
    """A lock needs no more than reading: for others it would be a way to keep the daemon from starting."""
    daemon.started()
    for path in lock.files(daemon.config.daemon):
        tried = subprocess.run(["flock", "-n", "-s", str(path), "true"], user="daemon", capture_output=True)
        assert tried.returncode != 0
        assert b"denied" in tried.stderr


def test_it_can_replace_itself_and_reload_when_it_is_root_no_more(daemon: Program) -> None:
    daemon.started()
    before = daemon.pids()
    assert daemon.run("upgrade").returncode == 0
    assert daemon.pids() == before
    assert daemon.run("reload").returncode == 0
    assert {status_of(pid)["Uid"].split()[0] for pid in daemon.pids()} == {str(NOBODY.pw_uid)}
    assert daemon.run("stop").returncode == 0
    assert daemon.left() == []


def test_a_socket_that_was_given_wants_no_group_of_ours(daemon: Program) -> None:
    """As under systemd: the user's own process, and a group that he is not in."""
    os.chown(daemon.folder, NOBODY.pw_uid, -1)
    path = daemon.folder / "given.sock"
    configure(daemon, "socket_group = 'games'", f"socket = '{path}'")
    daemon.prefix += as_nobody()
    with listening(path) as sock:
        daemon.started(**passing(sock))
        assert daemon.run("stop").returncode == 0
    assert path.exists()
