"""`config check --online`: what WeChat says of a configuration, without a daemon, and without a trace."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support import mariadb
from support.listing import LIST, TOKEN, Listing, template

CONFIG = """
[account.main]
app_id = "wx1"
app_secret = "s3cret-of-the-tests"
api_base = "{url}"
token = {token}
[message.order]
[message.order.template]
template_id = "TPL"
data.thing1.value = "{{content}}"
[message.text.custom]
msgtype = "text"
text.content = "{{content}}"
"""


@pytest.fixture
def api() -> Iterator[Listing]:
    with Listing(template("TPL", "thing1"), template("OTHER", "thing2")) as listing:
        yield listing


def check(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = folder / "fanoutd.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    command = [sys.executable, "-m", "fanoutd", "-c", str(file), "config", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "s3cret" not in done.stdout + done.stderr and "the-token" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(each.name for each in folder.iterdir()) == ["fanoutd.toml"]  # nothing is kept
    return done


def online(folder: Path, api: Listing, text: str = CONFIG, token: str = '"stable"') -> tuple[int, list[str]]:
    done = check(folder, text.format(url=api.url, token=token), "--online")
    first, *lines = done.stdout.splitlines()
    assert first == f"{folder}/fanoutd.toml: ok"
    return done.returncode, lines


def test_without_online_nobody_is_asked(tmp_path: Path, api: Listing) -> None:
    done = check(tmp_path, CONFIG.format(url=api.url, token='"stable"'))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/fanoutd.toml: ok\n")
    assert api.asked == []


@pytest.mark.parametrize("token", ['"stable"', '"classic"'])
def test_a_good_configuration_is_ok_and_its_token_is_never_forced(tmp_path: Path, api: Listing, token: str) -> None:
    code, lines = online(tmp_path, api, token=token)
    assert code == 0
    assert lines[0].startswith("ok    API of main: 127.0.0.1:")
    assert lines[1].startswith("warn  store: ") and "is not there yet" in lines[1]
    assert lines[-3:] == [
        "ok    token of main: given, and thrown away again", "ok    templates of main: there are 2",
        "ok    template of order: fits, main has it",
    ]
    assert [what["force_refresh"] for path, what in api.asked if path == TOKEN] == [False]
    assert {path for path, _ in api.asked} == {"/", TOKEN, LIST}


def test_a_template_that_does_not_fit_is_78_and_says_what_to_do(tmp_path: Path, api: Listing) -> None:
    api.list(template("TPL", "thing1", "time2"))
    code, lines = online(tmp_path, api)
    assert code == 78
    assert lines[-2:] == [
        "fail  template of order: of account main: data.time2 is in the template but not in the message",
        "      → correct [message.order.template], or the template in WeChat's console",
    ]
    api.list(template("OTHER", "thing1"))
    code, lines = online(tmp_path, api)
    assert code == 78
    assert lines[-2] == "fail  template of order: main: template_id 'TPL' is not among the account's 1 templates"


def test_a_secret_that_wechat_refuses_is_78(tmp_path: Path, api: Listing) -> None:
    api.answers[TOKEN] = {"errcode": 40125, "errmsg": "invalid appsecret"}
    code, lines = online(tmp_path, api)
    assert code == 78
    [refused] = [line for line in lines if line.startswith("fail")]
    assert refused.startswith("fail  token of main: ") and "40125" in refused
    assert api.times(LIST) == 0


@pytest.mark.parametrize("answer", [404, {"errcode": 48001, "errmsg": "no"}, {"template_list": []}])
def test_a_list_that_tells_nothing_is_a_warning(tmp_path: Path, api: Listing, answer: object) -> None:
    api.answers[LIST] = answer
    code, lines = online(tmp_path, api)
    assert code == 0
    assert "warn  template of order: cannot be compared: no list of templates has it" in lines


def test_an_api_that_cannot_be_reached_is_78(tmp_path: Path) -> None:
    text = CONFIG.format(url="http://127.0.0.1:9", token='"stable"')
    done = check(tmp_path, text, "--online")
    assert done.returncode == 78
    assert "fail  API of main: 127.0.0.1:9 does not answer" in done.stdout
    assert "fail  token of main: " in done.stdout


def test_of_several_accounts_one_with_the_template_is_enough(tmp_path: Path, api: Listing) -> None:
    with Listing(template("ANOTHER", "thing7")) as other:
        second = f'[account.second]\napp_id = "wx2"\napp_secret = "s3cret-too"\napi_base = "{other.url}"\n'
        code, lines = online(tmp_path, api, CONFIG + second)
        assert code == 0
        assert [line for line in lines if "template of" in line] == ["ok    template of order: fits, main has it"]
        api.list(template("OTHER", "thing1"))
        code, lines = online(tmp_path, api, CONFIG + second)
    assert code == 78
    assert any("main: template_id 'TPL'" in line and "second: template_id 'TPL'" in line for line in lines)


def test_a_token_from_a_database_is_not_asked_of_wechat(tmp_path: Path, api: Listing) -> None:
    table = f'{{ database = "sqlite:///{tmp_path}/none.db", query = "SELECT token FROM t" }}'
    code, lines = online(tmp_path, api, token=table)
    assert code == 0
    assert any(line.startswith("warn  token of main: not to be had from its database") for line in lines)
    assert api.times(TOKEN) == 0


def test_a_wrong_configuration_is_78_before_anybody_is_asked(tmp_path: Path, api: Listing) -> None:
    done = check(tmp_path, CONFIG.format(url=api.url, token='"stable"') + "[nonsense]\n", "--online")
    assert (done.returncode, done.stdout, api.asked) == (78, "", [])


AUDIENCES = """
[message.order.on_finish]
database = "{url}"
statement = "DELETE FROM people WHERE %(reference)s IS NULL"
[audience.good]
database = "{url}"
query = "SELECT id, openid FROM people WHERE name <> %(content)s AND %(now)s > '2026'"
[audience.nobody]
database = "{url}"
query = "SELECT openid FROM people WHERE 0"
[audience.other]
database = "{url}"
query = "SELECT name, id FROM people"
[audience.wrong]
database = "{url}"
query = "SELECT openid FROM nowhere"
[audience.store]
query = "SELECT openid FROM nowhere"
"""


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_each_database_of_the_operator_s_is_one_line_and_nothing_is_changed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, api: Listing, kind: str
) -> None:
    rows = ("CREATE TABLE people (id INT, openid VARCHAR(64), name VARCHAR(9))",
            "INSERT INTO people VALUES (1, 'oPERSON0000000000000000000001', 'x')")  # fmt: skip
    if kind == "sqlite":
        file = tmp_path_factory.mktemp("site") / "site.db"
        url, place = f"sqlite:///{file}", str(file)
        with closing(sqlite3.connect(file)) as link, link:
            for each in rows:
                link.execute(each)
    else:
        url = mariadb.server().database()
        place = f"mysql://127.0.0.1:{mariadb.server().port}/{url.rpartition('/')[2]}"
        with mariadb.server().root(database=url.rpartition("/")[2]) as root, root.cursor() as cursor:
            for each in rows:
                cursor.execute(each)
    code, lines = online(tmp_path, api, CONFIG + AUDIENCES.replace("{url}", url))
    assert code == 0
    assert [line for line in lines if "audience" in line or "on_finish" in line] == [
        "ok    audience good: its query is answered",
        "ok    audience nobody: its query is answered, and finds nobody now",
        "warn  audience other: column name holds no openid",
        next(line for line in lines if line.startswith("warn  audience wrong: ")),
        "ok    on_finish of order: its database answers; the statement was not run",
    ]
    (wrong,) = [line for line in lines if "audience wrong" in line]
    assert f": {place}: " in wrong and "nowhere" in wrong and mariadb.QUOTED not in wrong
    again = online(tmp_path, api, CONFIG + AUDIENCES.replace("{url}", url))[1]
    assert again[1:] == lines[1:]  # the statement was not run
