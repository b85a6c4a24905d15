"""The postman of a dispatcher: told from any thread, sending in its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fanoutd.config import Config, load
from fanoutd.mail.event import Event
from fanoutd.mail.letter import letterhead
from fanoutd.mail.postman import NoMail, Postman
from support.bench import CONFIG, wait_for
from support.smtp import MailServer

EVENT = Event("e-0", "failures", "campaign c-0: sending fails", "failed", "It fails.", None, 1_764_246_000_000)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as found:
        yield found


def config(folder: Path, mail: str) -> Config:
    file = folder / "fanoutd.toml"
    file.write_text(mail + '[schedule]\nhealth_check = "1s"\n' + CONFIG.format(
        url="http://127.0.0.1:9", store="sqlite", concurrency=1, rate=1, keepalive="5s", timeout="1s"))  # fmt: skip
    file.chmod(0o600)
    return load(file)


def test_a_storm_told_by_many_threads_is_one_mail_and_an_alert_does_not_wait_for_it(
    tmp_path: Path, server: MailServer
) -> None:
    postman = Postman(config(tmp_path, server.table()), "web1")
    postman.tell(replace(EVENT, id="early", kind="", subject="told before its turn"))
    assert not server.connections  # another dispatcher may still be at work

    def tell(thread: int) -> None:
        for n in range(60):
            postman.tell(replace(EVENT, id=f"e-{thread}-{n}", line=f"failure {n}"))

    threads = [threading.Thread(target=tell, args=(n,)) for n in range(4)]
    for each in threads:
        each.start()
    postman.tell(replace(EVENT, id="a", kind="store", subject="ALERT: the store is away"))
    for each in threads:
        each.join()
    postman.start()
    found = server.wait_for(3)
    subjects = [each.subject.removeprefix("[fanoutd web1] ") for each in found]
    assert sorted(subjects[:2]) == ["ALERT: the store is away", "told before its turn"]
    assert subjects[2] == "campaign c-0: sending fails (and 239 more)"
    assert "240 events of one kind" in found[2].text
    wait_for(lambda: (postman.standing() or {})["waiting"] == 0, "all to be mailed")
    server.faults.silent = "connect"
    postman.tell(replace(EVENT, id="last", kind=""))
    wait_for(lambda: server.connections > 1, "another connection")
    postman.leave()
    postman.join(0.01)  # it hangs at the server, and holds up nobody
    server.down()


def test_what_is_secret_in_the_configuration_is_hidden_in_mails(tmp_path: Path, server: MailServer) -> None:
    audience = '[audience.other]\ndatabase = "mysql://u:of-the%20audience@h/d"\nquery = "SELECT openid FROM t"\n'
    known = config(tmp_path, server.table() + audience)
    assert known.mail is not None
    hidden = letterhead(known, known.mail, "web1").hidden
    assert set(hidden) == {"a-secret-of-the-tests", "of-the audience"}


def test_without_mail_nothing_is_kept_nothing_is_begun_and_a_test_says_so(tmp_path: Path) -> None:
    postman = Postman(config(tmp_path, ""), "web1")
    before = threading.active_count()
    postman.start()
    postman.tell(EVENT)
    postman.leave()
    postman.join(1)
    assert threading.active_count() == before and postman.standing() is None
    assert not (tmp_path / "state").exists()
    with pytest.raises(NoMail):
        postman.test()
