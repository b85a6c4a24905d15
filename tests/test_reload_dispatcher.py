"""A reload whose new dispatcher cannot start, code that is newer than the master, dispatchers that die young."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import fanoutd
from fanoutd import on_disk
from fanoutd.config import model
from support.master import MasterProcess, alive, running, until

HUP = signal.SIGHUP

DIES = "def run(child): return child.config.schedule.{}"
HANGS = "import time\ndef run(child): time.sleep(600)"
DIES_AT_WORK = """
from support.fake_events import say, told
def run(child):
    say(child, {"t": "ready"})
    for message in told(child):
        return 5
"""


def started(master: MasterProcess) -> int:
    """How many dispatchers have been forked."""
    return len(re.findall(r"dispatcher started", master.log()))


def rows(master: MasterProcess, role: str) -> list[dict[str, Any]]:
    return [row for row in master.status()["workers"] if row["role"] == role]


def refused(master: MasterProcess, said: str, count: int, before: set[int]) -> None:
    """The last reload was, for this reason, and the daemon is as it was before it."""
    status = master.reloaded(count)
    assert (status["generation"], status["state"], status["reload"]["stage"]) == (1, "degraded", "refused")
    assert status["reload"]["error"].endswith(said), status["reload"]["error"]
    until(lambda: set(master.children()) == before, "the end of all that was new, and of nothing else")
    assert {row["generation"] for row in master.status()["workers"]} == {1}


def reloads(master: MasterProcess, generation: int) -> None:
    """The next one goes well."""
    assert master.result("daemon.reload") == {"generation": generation}
    until(lambda: len(master.children()) == 4, "the old ones to leave")
    [dispatcher] = rows(master, "dispatcher")
    assert (dispatcher["generation"], dispatcher["state"], master.status()["state"]) == (generation, "idle", "running")


def test_a_dispatcher_that_cannot_start_or_hangs_refuses_the_reload_and_the_old_generation_goes_on(
    tmp_path: Path,
) -> None:
    with running(tmp_path, graceful="1s") as master:
        before = set(master.children())
        assert len(before) == 4
        master.write_dispatcher(DIES.format("nonsense"))
        error = master.error("daemon.reload")
        words = (
            "dispatchers of generation 2 do not boot: 3 died, the last one with AttributeError: 'Schedule' object has "
            "no attribute 'nonsense'; the log says why"
        )
        assert (error["code"], error["message"]) == (-32003, f"not reloaded: {words}")
        refused(master, words, 1, before)
        assert started(master) == 4 and len(re.findall(r"worker \d started", master.log())) == 2
        assert "reason=\"AttributeError: 'Schedule' object" in master.log()
        assert master.result("campaign.get", campaign="c-7")["state"] == "done"
        victim = master.pid_of(1)
        os.kill(victim, signal.SIGKILL)
        until(lambda: master.pid_of(1) not in (None, victim), "its replacement, of the old code")
        before = set(master.ready().children())

        master.write_dispatcher("def run(child): raise RuntimeError('s3cret\\nin two lines')")
        master.signal(HUP)
        refused(master, "RuntimeError: *** in two lines; the log says why", 2, before)

        # It hangs: the test does after a moment what the master does when it is not ready after 30 s.
        master.write_dispatcher(HANGS)
        master.signal(HUP)
        hung: set[int] = set()
        for _ in range(3):
            [pid] = until(lambda: {
                row["pid"] for row in rows(master, "dispatcher") if row["generation"] == 4 and row["pid"]
            } - hung, "one that hangs")  # fmt: skip
            assert master.result("campaign.get", campaign="c-8")["state"] == "done", "the old one serves meanwhile"
            os.kill(pid, signal.SIGABRT)
            hung.add(pid)
        refused(master, "dispatchers of generation 4 do not boot: 3 died, the last one with SIGABRT; the log says why",
                3, before)  # fmt: skip

        # Another HUP while it hangs begins anew, with what is there then.
        master.signal(HUP)
        [_, late] = until(lambda: len(rows(master, "dispatcher")) == 2 and rows(master, "dispatcher"), "one that hangs")
        master.write_dispatcher()
        reloads(master, 6)
        assert not late["pid"] or not alive(late["pid"])
        assert [row["restarts"] for row in rows(master, "dispatcher")] == [0]


def test_one_that_dies_at_work_is_begun_more_and_more_seldom(tmp_path: Path) -> None:
    with running(tmp_path) as master, master.connect() as asker:
        master.write_dispatcher(DIES_AT_WORK)
        begun = time.monotonic()
        assert master.result("daemon.reload") == {"generation": 2}, "that it dies when its turn comes nobody can know"
        asker.begin("daemon.status")  # it waits 2 s for a dispatcher's part
        until(lambda: started(master) >= 6, "the fifth of the new code")
        assert time.monotonic() - begun > 0.75 * (0.1 + 0.2 + 0.4), "the waits between them"
        status = asker.line()["result"]
        assert status["state"] == "degraded" and status["workers"][0]["restarts"] >= 4
        master.write_dispatcher()
        reloads(master, 3)


def test_a_first_generation_without_a_dispatcher_takes_submissions_until_there_is_one(tmp_path: Path) -> None:
    with MasterProcess(tmp_path, dispatcher=DIES.format("nonsense")) as master:
        begun = time.monotonic()
        asker = master.connect()
        asker.begin("daemon.status")
        until(lambda: len(re.findall(r"worker \d ready", master.log())) == 2, "both workers")
        until(lambda: started(master) >= 5, "several tries")
        assert time.monotonic() - begun > 0.75 * (0.1 + 0.2 + 0.4), "the waits between them"
        assert "result" in master.ask("campaign.submit", content="x", openids=["o12345678"], message="fixed")
        with asker:
            assert asker.line()["result"]["state"] == "degraded"
        master.write_dispatcher()
        reloads(master, 2)


def test_code_that_is_newer_than_the_configuration_in_force_wants_an_upgrade_first(tmp_path: Path) -> None:
    shutil.copytree(Path(fanoutd.__file__).parent, tmp_path / "fanoutd", ignore=shutil.ignore_patterns("__pycache__"))
    with running(tmp_path) as master:
        before = set(master.children())
        file = tmp_path / "fanoutd" / "config" / "model.py"
        text = file.read_text()
        more = text.replace("\n    retention: float\n", '\n    retention: float\n    season: str = "spring"\n')
        assert more != text
        file.write_text(more)
        master.write_dispatcher("fake = run\n" + DIES.format("season and fake(child)"))
        master.signal(HUP)
        words = (
            "the program on disk is newer than the running master in what only an upgrade replaces (Schedule.season): "
            "fanoutd upgrade, then fanoutd reload"
        )
        refused(master, words, 1, before)
        assert master.status()["reload"]["error"] == words and started(master) == 1
        master.signal(signal.SIGUSR2)
        until(lambda: master.status()["upgrade"]["stage"] == "done", "the upgrade", 20)
        reloads(master, 3)


def loaded(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("a_model", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODEL = "class A:\n    a: int\n    def b(self): ...\n"


@pytest.mark.parametrize(
    ("now", "missing"),
    [
        (MODEL, None),
        (MODEL + "    c: int\n", "A.c"),
        (MODEL + "    def c(self): ...\n", "A.c"),
        (MODEL + "class B:\n    a: int\n", "B.a"),
        (MODEL + "    def _c(self): ...\ndef d(): ...\n", None),
        ("class A:\n    a: int\n", None),
        ("class A(:\n", None),
        (None, None),
    ],
)
def test_what_the_program_on_disk_wants_more_is_named(tmp_path: Path, now: str | None, missing: str | None) -> None:
    file = tmp_path / "a_model.py"
    file.write_text(MODEL)
    module = loaded(file)
    file.unlink()
    if now is not None:
        file.write_text(now)
    said = on_disk.newer(module)
    assert said is None if missing is None else said is not None and f"({missing})" in said


def test_the_configuration_of_this_program_is_no_newer_than_itself() -> None:
    assert on_disk.newer(model) is None
