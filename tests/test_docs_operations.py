"""The commands of docs/operations.md, run in their order as they stand there, on a daemon in the midst of its work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.health.conditions import CONDITIONS
from support.bench import wait_for
from support.daemon import Daemon, follower

ROOT = Path(__file__).parent.parent
NAME = "docs/operations.md"
TEXT = (ROOT / NAME).read_text(encoding="utf-8")
FOLLOWERS = 300
PROGRAM = Path(sys.executable).parent / "fanoutd"


def sections() -> dict[str, list[str]]:
    """The runnable blocks under each heading."""
    parts = re.split(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    return {
        title: re.findall(r"^```sh run\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, FOLLOWERS, rate=200, concurrency=8)  # slow enough to be interrupted
    yield daemon
    subprocess.run([PROGRAM, "-c", daemon.config, "stop"], check=False, timeout=60, capture_output=True)
    daemon.process.wait(30)
    daemon.sandbox.close()


class Host:
    """A shell in which the document's places are the test's."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        folder = daemon.folder
        (folder / "backups").mkdir()
        (folder / "defaults").write_text(f"FANOUTD={PROGRAM}\nCONFIG={daemon.config}\n")
        self._places = {
            "/var/lib/fanoutd": str(folder / "state"), "/var/backups": str(folder / "backups"),
            "/var/log/fanoutd": str(folder), "service fanoutd": str(ROOT / "etc/init.d/fanoutd"),
            "install -o fanoutd -g fanoutd": "install", "OPENID": follower(7),
        }  # fmt: skip
        self._environ = {
            **os.environ, "FANOUTD_CONFIG": str(daemon.config), "FANOUTD_DEFAULTS": str(folder / "defaults"),
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.left = {title: list(blocks) for title, blocks in sections().items()}

    def run(self, title: str, campaign: str = "") -> str:
        """The next block of this section; what it prints."""
        text = self.left[title].pop(0)
        for place, ours in self._places.items():
            text = text.replace(place, ours)
        text = re.sub(r"\bID\b", campaign or "ID", text)
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", text], env=self._environ, capture_output=True, text=True, timeout=90,
            stdin=subprocess.DEVNULL, cwd=self._daemon.folder,
        )  # fmt: skip
        assert done.returncode == 0, (title, text, done.stdout, done.stderr)
        return done.stdout


def test_the_commands_of_the_document(daemon: Daemon) -> None:
    host = Host(daemon)
    assert str(FOLLOWERS) in host.run("The first configuration")
    test = host.run("The first configuration").split()[0]
    assert daemon.call("campaign.get", campaign=test)["counts"]["sent_custom"] == 1
    assert test in host.run("Every day", test)
    host.run("Every day")
    assert daemon.call("daemon.status")["generation"] == 2

    # a backup in mid-campaign, the rest of the campaign, and then the backup is put back
    campaign = daemon.call("campaign.submit", content="notice", phone="110")["campaign"]
    wait_for(lambda: len(daemon.accepted()) > 50, "the first fifty")
    daemon.call("campaign.pause", campaign=campaign)
    host.run("Back up")
    daemon.call("campaign.resume", campaign=campaign)
    daemon.until(campaign)
    assert campaign in host.run("Restore")
    assert "earlier" in daemon.call("campaign.get", campaign=campaign)["reason"]
    host.run("Restore", campaign)
    seen = daemon.until(campaign)
    assert seen["counts"]["sent_custom"] == FOLLOWERS
    assert daemon.accepted() - Counter([follower(7)]) == Counter(map(follower, range(FOLLOWERS)))

    look = host.run("Monitor")
    assert re.match(r"(OK|DEGRADED): ", look) and 'fanoutd_workers{state="idle"}' in look
    assert host.run("Unknowns", campaign).endswith("updated_at\n"), "nobody is unknown"
    count, troubles = host.run("Logs").split("\n", 1)
    assert int(count) > 4 and "put back to an earlier state" in troubles
    assert f"{FOLLOWERS + 1} deliveries" in host.run("How large it gets")
    assert not any(host.left.values()), "a block that was not run"


def test_every_condition_has_its_section() -> None:
    titles = re.findall(r"^### (.*)$", TEXT, re.MULTILINE)
    lacking = [name for name in CONDITIONS if name not in titles]
    assert not lacking, f"{NAME} lacks {', '.join(lacking)}"


def test_the_contents_and_links_lead_somewhere() -> None:
    for name in ("operations", "configuration", "errors", "design"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for path, _, anchor in re.findall(r"\]\(([a-z./_-]*)(#?)([^)]*)\)", text):
            there = (ROOT / "docs" / path) if path else ROOT / "docs" / f"{name}.md"
            assert there.is_file(), (name, path)
            titles = re.findall(r"^##+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in anchors, (name, path, anchor)


def test_files_that_the_documents_name_are_there() -> None:
    """Of the program by their path below fanoutd/, of the rest by that below the checkout."""
    found = 0
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"):
        text = document.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:[a-z_.]+/)+[a-z_]+\.(?:py|md|php|sh))`", text):
            places = (ROOT / path, ROOT / "fanoutd" / path, document.parent / path)
            assert any(each.is_file() for each in places), f"{document.name} names {path}, which is not there"
            found += 1
    assert found > 30

