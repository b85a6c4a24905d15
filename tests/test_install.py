"""scripts/install: staged below a folder, and for real on a host of its own."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.config import load
from support.master import alive, until
from support.program import status_of

ROOT = Path(__file__).parent.parent
INSTALL = str(ROOT / "scripts" / "install")

#: Our own folders of the host, as they are but with changes that nobody else sees: overlays in a mount namespace. /run
#: is empty, as where no systemd runs.
HOST = """
mount -t tmpfs none "$1"
for folder in etc opt usr/local var; do
  mkdir -p "$1/upper/$folder" "$1/work/$folder"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$1/upper/$folder,workdir=$1/work/$folder" "/$folder"
done
mount -t tmpfs -o mode=0755 none /run
echo ready
exec cat
"""


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def files(folder: Path) -> dict[str, str]:
    """Paths and modes of all files below."""
    return {str(path.relative_to(folder)): mode(path) for path in folder.rglob("*") if path.is_file()}


def install(*arguments: str) -> str:
    done = subprocess.run([INSTALL, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- staged


def test_staged_files_have_their_places_and_modes_and_installing_again_changes_nothing(tmp_path: Path) -> None:
    said = install("--root", str(tmp_path))
    there = files(tmp_path)
    assert there == {
        "etc/fanoutd/fanoutd.toml": "0640", "etc/init.d/fanoutd": "0755", "etc/default/fanoutd": "0644",
        "etc/systemd/system/fanoutd.service": "0644", "etc/systemd/system/fanoutd.socket": "0644",
        "etc/tmpfiles.d/fanoutd.conf": "0644", "etc/logrotate.d/fanoutd": "0644", "etc/cron.d/fanoutd": "0644",
    }
    assert [path for path in there if f"/{path}" not in said] == []
    assert [mode(tmp_path / name) for name in ("etc/fanoutd", "var/lib/fanoutd", "var/log/fanoutd")] == [
        "0750", "0700", "0750",
    ]
    configuration, defaults = tmp_path / "etc/fanoutd/fanoutd.toml", tmp_path / "etc/default/fanoutd"
    configuration.write_text("# mine")
    defaults.write_text("# mine too")
    (tmp_path / "etc/init.d/fanoutd").write_text("of an older version")
    install("--root", str(tmp_path))
    assert files(tmp_path) == there
    assert (configuration.read_text(), defaults.read_text()) == ("# mine", "# mine too")
    assert (tmp_path / "etc/init.d/fanoutd").read_text() == (ROOT / "etc/init.d/fanoutd").read_text()


def test_removing_leaves_what_is_the_administrators(tmp_path: Path) -> None:
    install("--root", str(tmp_path))
    (tmp_path / "var/lib/fanoutd/fanoutd.db").write_text("data")
    (tmp_path / "etc/default/fanoutd").write_text("# changed")
    said = install("--remove", "--root", str(tmp_path))
    assert set(files(tmp_path)) == {"etc/fanoutd/fanoutd.toml", "etc/default/fanoutd", "var/lib/fanoutd/fanoutd.db"}
    for name in ("/etc/fanoutd", "/var/lib/fanoutd", "/var/log/fanoutd", "/etc/default/fanoutd"):
        assert f"{name} stays" in said
    assert install("--remove", "--root", str(tmp_path)).count("is gone") == 0


def test_wrong_words_are_usage_and_only_root_installs() -> None:
    for arguments in (["--help"], ["--root"], ["--root", ""], ["now"]):
        assert subprocess.run([INSTALL, *arguments], capture_output=True).returncode == 2
    if os.geteuid() == 0:
        return
    refused = subprocess.run([INSTALL], capture_output=True, text=True)
    assert (refused.returncode, "only root" in refused.stderr) == (1, True)


def test_the_installed_configuration_wants_no_more_than_the_secret(tmp_path: Path) -> None:
    install("--root", str(tmp_path))
    config = load(tmp_path / "etc/fanoutd/fanoutd.toml", {"FANOUTD_MAIN_APP_SECRET": "x"})
    daemon = config.daemon
    assert (str(daemon.state_dir), str(daemon.log_file), daemon.user) == (
        "/var/lib/fanoutd", "/var/log/fanoutd/fanoutd.log", "fanoutd",
    )
    assert (str(daemon.socket), str(daemon.pidfile)) == ("/run/fanoutd/fanoutd.sock", "/run/fanoutd/fanoutd.pid")
    assert all("is still that of `fanoutd init`" in each for each in config.warnings), "what nobody has put in yet"


# ---- for real


class Host:
    """A mount namespace, kept by a process that waits for our end. ``/`` of it is ``root``."""

    def __init__(self, scratch: Path) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-ec", HOST, "sh", str(scratch)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        assert self._holder.stdout is not None
        self.there = self._holder.stdout.readline() == "ready\n"
        self.root = Path(f"/proc/{self._holder.pid}/root")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self._holder.pid), "-m", "--wd=/", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=300)

    def uid(self, user: str) -> int:
        return int(self.run("id", "-u", user).stdout)

    def close(self) -> None:
        if self.there:
            self.run("/etc/init.d/fanoutd", "stop")
        self._holder.communicate()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can have a host of its own")
    made = Host(tmp_path_factory.mktemp("host"))
    try:
        if not made.there:
            pytest.skip("no overlays in a mount namespace here")
        yield made
    finally:
        made.close()


def give_secret(host: Host) -> None:
    file = host.root / "etc/fanoutd/fanoutd.toml"
    text = file.read_text().replace('app_secret_file = "/etc/fanoutd/main.secret"', 'app_secret = "s3cret"')
    text = text.replace('"https://api.weixin.qq.com"', '"http://127.0.0.1:9"')
    file.write_text(text.replace('database = "sqlite:////var/lib/shop/followers.db"', ""))


def test_a_host_from_nothing_to_a_daemon_and_back(host: Host) -> None:
    first = host.run(INSTALL)
    assert first.returncode == 0, first.stderr
    assert "Now put app_id and secret into /etc/fanoutd/fanoutd.toml" in first.stdout
    assert host.run("/etc/init.d/fanoutd", "start").returncode == 6
    give_secret(host)

    started = host.run("/etc/init.d/fanoutd", "start")
    assert started.returncode == 0, started.stdout + started.stderr
    uid = host.uid("fanoutd")
    pid = int((host.root / "run/fanoutd/fanoutd.pid").read_text())
    status = status_of(pid)
    assert status["Uid"].split() == [str(uid)] * 4
    assert (status["CapEff"], status["CapPrm"]) == ("0" * 16, "0" * 16)
    sock = (host.root / "run/fanoutd/fanoutd.sock").stat()
    assert (sock.st_uid, f"{stat.S_IMODE(sock.st_mode):04o}") == (uid, "0660")
    log = host.root / "var/log/fanoutd/fanoutd.log"
    until(lambda: "worker 4 ready" in log.read_text(), "all workers, of which start waits for the first")
    assert host.run("fanoutd", "status").returncode == 0
    assert host.run("runuser", "-u", "nobody", "--", "fanoutd", "status").returncode != 0

    again = host.run(INSTALL)
    assert again.returncode == 0, again.stderr
    assert "fanoutd.toml stays as it is" in again.stdout
    assert "bring the new program into force" in again.stdout
    assert host.run("fanoutd", "upgrade").returncode == 0
    assert host.run("/etc/init.d/fanoutd", "reload").returncode == 0
    assert int((host.root / "run/fanoutd/fanoutd.pid").read_text()) == pid

    removed = host.run(INSTALL, "--remove")
    assert removed.returncode == 0, removed.stderr
    assert not alive(pid)
    for name in ("opt/fanoutd", "usr/local/bin/fanoutd", "etc/init.d/fanoutd", "etc/cron.d/fanoutd", "run/fanoutd"):
        assert not os.path.lexists(host.root / name), name
    assert list((host.root / "etc").glob("rc*.d/*fanoutd")) == []
    for name in ("etc/fanoutd/fanoutd.toml", "var/lib/fanoutd/fanoutd.db", "var/log/fanoutd/fanoutd.log"):
        assert (host.root / name).exists(), name
    assert "user fanoutd stays" in removed.stdout
    assert host.run(INSTALL, "--remove").returncode == 0
