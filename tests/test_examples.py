"""Everything in examples/, and the snippets of README.md, against a daemon and a sandbox."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from support.bench import wait_for
from support.daemon import Daemon, follower

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FOLLOWERS = 40


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("examples"), FOLLOWERS, workers=1)
    yield daemon
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0
    daemon.sandbox.close()


def php() -> str:
    found = shutil.which("php")
    assert found, "php is missing: scripts/set-up test installs it, or sudo apt-get install php-cli"
    return found


def run(daemon: Daemon, *command: str, code: int = 0, **environ: str) -> str:
    """What it prints; ``environ``: other than usual."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**os.environ, "FANOUTD_SOCKET": str(daemon.socket), "FANOUTD_CONFIG": str(daemon.config), "PATH": path,
             **environ},
    )  # fmt: skip
    assert done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
    assert code or not done.stderr, done.stderr  # PHP's warnings, say
    return done.stdout


def test_php(daemon: Daemon, tmp_path: Path) -> None:
    folder = EXAMPLES / "php"

    def example(name: str, *arguments: str, code: int = 0) -> str:
        return run(daemon, php(), "-d", "display_errors=stderr", str(folder / name), *arguments, code=code)

    campaign, words = example("submit.php", "4711", "求购香樟100棵", "13800000000").split(maxsplit=1)
    assert words == "accepted\n"
    assert example("submit.php", "4711", "求购香樟100棵", "13800000000") == f"{campaign} known already\n"
    seen = daemon.until(campaign)
    assert (seen["key"], seen["reference"], seen["total"]) == ("order-4711", "4711", FOLLOWERS)
    assert example("status.php", campaign) == f"done: {FOLLOWERS} of {FOLLOWERS} sent, 0 failed, 0 unknown\n"

    before = len(daemon.campaigns())
    example("hang_up.php", "出售桂花20棵", "0", "110")
    wait_for(lambda: len(daemon.campaigns()) > before, "the one that hung up")
    assert daemon.until(daemon.campaigns()[0]["id"])["total"] == FOLLOWERS

    people = tmp_path / "people.txt"
    people.write_text("".join(f"oUPLOAD{i:021d}\n" for i in range(10_003)))
    campaign, words = example("upload.php", str(people), "致各位").split(maxsplit=1)
    assert words == "for 10003 people\n"
    assert wait_for(lambda: daemon.call("campaign.get", campaign=campaign)["total"] == 10_003, "the plan")
    daemon.call("campaign.cancel", campaign=campaign)

    assert example("reply.php", follower(1), "0") == "已取消接收信息。回复1重新接收。\n"
    assert daemon.call("subscriber.get", openid=follower(1))["state"] == "opted_out"
    assert example("reply.php", follower(1), "1") == "已重新接收信息。回复0取消接收。\n"
    assert example("reply.php", follower(1), "有货吗") == "success\n"
    row = daemon.call("subscriber.get", openid=follower(1))
    assert (row["state"], row["window"]["kind"], row["window"]["open"]) == ("active", "message", True)

    refused = example("submit.php", "4712", "x" * 2049, "1", code=65)
    assert refused == "", "a text that WeChat would not take"
    nobody = str(tmp_path / "nobody.sock")
    run(daemon, php(), str(folder / "submit.php"), "4713", "hello", "1", code=75, FANOUTD_SOCKET=nobody)
    assert len({path.name for path in folder.glob("*.php")}) == 6, "each of them has its test here"


def test_python(daemon: Daemon) -> None:
    folder = EXAMPLES / "python"
    campaign, words = run(daemon, sys.executable, str(folder / "submit.py"), "815", "hello", "110").split(maxsplit=1)
    assert words == "accepted\n"
    again = run(daemon, sys.executable, str(folder / "submit.py"), "815", "hello", "110")
    assert again == f"{campaign} known already\n"
    lines = run(daemon, sys.executable, str(folder / "watch.py"), "hello", follower(2), follower(3)).splitlines()
    assert lines[-3].startswith("done ")
    assert lines[-2:] == [f"{follower(i)} sent custom 0" for i in (2, 3)]
    assert {path.name for path in folder.glob("*.py")} == {"submit.py", "watch.py"}


def test_shell(daemon: Daemon, tmp_path: Path) -> None:
    folder = EXAMPLES / "shell"
    shown = run(daemon, str(folder / "submit.sh"), "周报", "110")
    newest = daemon.campaigns()[0]
    assert (newest["key"], newest["id"] in shown) == (f"daily-{date.today()}", True)
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "daemon.ping"})
    (tmp_path / "python3").symlink_to(sys.executable)
    for path in (os.environ["PATH"], str(tmp_path)):  # with nc where there is one, and without
        answer = run(daemon, "/bin/sh", str(folder / "socket.sh"), ping, PATH=path)
        assert json.loads(answer)["result"]["pid"] == daemon.process.pid
    bare = json.loads(run(daemon, str(folder / "socket.sh"), '{"content": "hello", "flag": "0", "phone": "110"}'))
    assert bare["ok"] and daemon.until(bare["campaign"])["total"] == FOLLOWERS


def snippet(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(found) == 1, f"README.md has {len(found)} blocks of {language}"
    text: str = found[0]
    return text


@pytest.mark.parametrize("language", ["php", "python"])
def test_the_lines_of_the_readme(daemon: Daemon, language: str, tmp_path: Path) -> None:
    path = re.search(r'[\'"](?:unix://)?(/[^\'"]*\.sock)[\'"]', snippet(language))
    assert path
    file = tmp_path / f"snippet.{language}"
    file.write_text(("<?php\n" if language == "php" else "") + snippet(language).replace(path[1], str(daemon.socket)))
    answer = run(daemon, php() if language == "php" else sys.executable, str(file))
    campaign = daemon.until(re.search(r"c-[a-z0-9-]+", answer)[0])  # type: ignore[index]
    assert campaign["total"] == FOLLOWERS


def test_the_list_of_examples_is_whole() -> None:
    listed = re.findall(r"^\| `([^`]*)` \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    there = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.*")}
    assert there - {"php/fanoutd.php"} == set(listed)
