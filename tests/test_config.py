"""The configuration: what is accepted, what is refused and in which words, what it comes to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import (
    Config,
    Health,
    TokenQuery,
    Window,
    fields,
    find,
    load,
    show,
    sqlite_path,
    write_starter,
)
from fanoutd.errors import BadConfig, BadInput

ETC = Path(__file__).parent.parent / "etc" / "fanoutd.toml"

ACCOUNT = """
[account.main]
app_id = "wx1"
app_secret = "s3cret"
"""
MESSAGE = """
[message.supply.custom]
msgtype = "text"
text.content = "{content}"
"""

Load = Callable[..., Config]
Refused = Callable[..., str]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Writes a text as fanoutd.toml, for the owner only, and loads it."""

    def write_and_load(text: str, mode: int = 0o600, environ: dict[str, str] | None = None) -> Config:
        file = tmp_path / "fanoutd.toml"
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)
        return load(file, environ or {})

    return write_and_load


@pytest.fixture
def refused(loaded: Load, tmp_path: Path) -> Refused:
    """Loads a text that must be refused; returns the one line without the file's name."""

    def load_and_catch(text: str, **more: Any) -> str:
        with pytest.raises(BadConfig) as error:
            loaded(text, **more)
        line = str(error.value)
        assert line.startswith(f"{tmp_path}/fanoutd.toml: ")
        assert "\n" not in line
        assert error.value.exit_code == 78
        return line.removeprefix(f"{tmp_path}/fanoutd.toml: ")

    return load_and_catch


# ---- what it comes to


def test_the_least_configuration_has_the_defaults_of_the_contract(loaded: Load, tmp_path: Path) -> None:
    config = loaded(ACCOUNT + MESSAGE)
    state = tmp_path / "state"
    assert config.daemon.state_dir == state
    assert config.daemon.socket == state / "fanoutd.sock"
    assert config.daemon.pidfile == state / "fanoutd.pid"
    assert config.daemon.log_file is None
    assert (config.daemon.socket_mode, config.daemon.max_request) == (0o660, 1 << 20)
    assert (config.workers.count, config.workers.concurrency) == (4, 64)
    assert config.workers.graceful_timeout == 30
    assert sqlite_path(config.store_url) == state / "fanoutd.db"
    account = config.accounts["main"]
    assert (account.api_base, account.token, account.rate) == ("https://api.weixin.qq.com", "stable", 100)
    assert (account.connect_timeout, account.keepalive, account.timeout) == (3, 5, 10)
    assert (account.timezone, account.on_unknown, account.max_failures) == ("Asia/Shanghai", "hold", 0.2)
    assert config.messages["supply"].channels == ("custom",)
    assert config.messages["supply"].placeholders == {"content"}
    assert (config.schedule.token_check, config.schedule.retention) == (60, 90 * 86400)
    assert (config.audiences, config.mail, config.metrics, config.warnings) == ({}, None, None, ())


FULL = r"""
[daemon]
state_dir = "s"
socket = "../run/f.sock"
socket_mode = "600"
socket_group = "fanoutd"
allow_users = ["www-data"]
admin_users = []
pidfile = "/run/f.pid"
user = "fanoutd"
log_file = "f.log"
log_format = "json"
max_request = "64KiB"
[workers]
count = 2
concurrency = 3
graceful_timeout = "1500ms"
hang_timeout = "1m"
max_memory = "1GiB"
max_messages = 7
[store]
url = "mysql://u:p%40ss@db.example:3306/fanout?ssl_ca=x"
[account.a-b]
app_id = "wx1"
app_secret = "s3cret"
api_base = "http://127.0.0.1:8080/"
token = "classic"
rate = 5
quiet_hours = "22:00-08:00"
daily_limit = { custom = 500000, template = 100000 }
timezone = "UTC"
on_unknown = "resend"
opt_out_reply = ""
max_failures = 1
connect_timeout = "2s"
keepalive = "4s"
timeout = "8s"
[account.shared]
app_id = "wx2"
token = { database = "mysql://u:pw@db.example/tp", query = "SELECT t FROM a WHERE n = %(account)s" }
[message.supply]
channels = ["template", "custom"]
too_long = "fail"
variables = ["city"]
[message.supply.on_finish]
database = "sqlite:///srv/tasks.db"
statement = "UPDATE task SET status = 2, sent = %(sent)s WHERE miaomu_id = %(reference)s AND city = %(city)s"
command = ["/usr/local/bin/done", "{campaign}", "{city} {{}}"]
[message.supply.custom]
msgtype = "news"
news.articles = [{ title = "{city} \"{content}\" {{}}", url = "https://example.com", n = 1.5 }]
"odd key".x = "\u007f\n"
[message.supply.template]
template_id = "T"
data.thing1.value = "{content} {reference}"
[audience.default]
database = "sqlite:///srv/tp.db"
query = "SELECT openid FROM t WHERE city = %(city)s AND at > %(now)s AND name LIKE '%%a'"
on_opt_out = "UPDATE t SET r = 0 WHERE openid = %(openid)s"
on_opt_in = "UPDATE t SET r = 1 WHERE openid = %(openid)s"
on_gone = "DELETE FROM t WHERE openid = %(openid)s"
[audience.followers]
source = "subscribers"
exclude = "default"
[windows]
message = { messages = 20, within = "48h" }
[mail]
smtp = "smtps://u:pw@smtp.example.com:465"
from = "fanoutd <fanoutd@example.com>"
to = ["ops@example.com"]
[metrics]
listen = "[::1]:9464"
[health]
api_errors = 0.5
api_latency = "1500ms"
clock_off = "1m"
disk_left = "1GiB"
memory_left = "1MiB"
off = ["clock", "node"]
quota_left = 0.05
record_lag = "1m"
restarts = 9
spool_age = "1h"
store_latency = "2s"
stuck = "10m"
token_left = "1m"
[schedule]
health_check = "5s"
token_check = "10s"
digest = ""
retention = "1d"
"""


def test_every_key_is_accepted_and_arrives_in_its_own_unit(loaded: Load, tmp_path: Path) -> None:
    config = loaded(FULL)
    assert config.daemon.state_dir == tmp_path / "s"
    assert config.daemon.socket == tmp_path.parent / "run" / "f.sock"
    assert config.daemon.pidfile == Path("/run/f.pid")
    assert config.daemon.log_file == tmp_path / "f.log"
    assert (config.daemon.socket_mode, config.daemon.max_request) == (0o600, 65536)
    assert (config.workers.graceful_timeout, config.workers.max_memory) == (1.5, 1 << 30)
    assert config.store_url == f"mysql://u:p%40ss@db.example:3306/fanout?ssl_ca={tmp_path}/x"
    assert config.accounts["a-b"].api_base == "http://127.0.0.1:8080"
    assert config.accounts["a-b"].quiet_hours == ("22:00", "08:00")
    assert config.accounts["a-b"].daily_limit == {"custom": 500000, "template": 100000}
    assert config.accounts["shared"].app_secret is None
    assert isinstance(config.accounts["shared"].token, TokenQuery)
    assert config.accounts["shared"].token.params == {"account"}
    supply = config.messages["supply"]
    assert (supply.channels, supply.too_long, supply.variables) == (("template", "custom"), "fail", ("city",))
    assert list(supply.bodies) == ["template", "custom"]
    assert supply.placeholders == {"city", "content", "reference"}
    assert config.audiences["default"].database == "sqlite:////srv/tp.db"
    assert config.audiences["default"].params == {"city", "now"}
    assert config.audiences["followers"].source == "subscribers"
    assert config.audiences["followers"].exclude == "default"
    assert config.windows["message"] == Window(20, 172_800) and config.windows["menu"] == Window(3, 60)
    assert config.accounts["a-b"].opt_out_reply == ""
    assert "回复0" in config.accounts["a-b"].opt_in_reply
    assert config.health == Health(
        0.5, 1.5, 60, 1 << 30, 1 << 20, ("clock", "node"), 0.05, 60, 9, 3600, 2, 600, 60,
    )
    assert config.metrics and (config.metrics.host, config.metrics.port) == ("::1", 9464)
    assert config.mail and (config.mail.sender, config.mail.to) == (
        "fanoutd <fanoutd@example.com>", ("ops@example.com",),
    )


def test_every_key_has_its_effect(loaded: Load) -> None:
    assert loaded(FULL).warnings == ()


@pytest.mark.parametrize(
    ("smtp", "words"),
    [
        ("smtp://u:pw@mx.example.com", "the password crosses the network in the clear; write smtp+starttls://"),
        ("smtps://u:pw@mx.example.com?ssl_verify=off", "gives the password to whoever answers; name the authority"),
        ("smtps://u:pw@mx.example.com", None), ("smtp://u:pw@127.0.0.1", None), ("smtp://mx.example.com", None),
    ],
)  # fmt: skip
def test_a_password_that_others_may_read_on_the_way_is_one_warning(loaded: Load, smtp: str, words: str | None) -> None:
    mail = f'[mail]\nsmtp = "{smtp}"\nfrom = "a@example.com"\nto = ["b@example.com"]\n'
    config = loaded(mail + ACCOUNT + MESSAGE)
    assert [words in line for line in config.warnings if words] == ([True] if words else [])
    assert (config.warnings == ()) == (words is None)


def test_keeping_next_to_nothing_is_one_warning(loaded: Load) -> None:
    [words] = loaded('[schedule]\nretention = "10s"\n' + ACCOUNT + MESSAGE).warnings
    assert words.startswith("[schedule] retention: ") and "sent again" in words


def test_a_mail_servers_password_is_hidden_in_each_of_its_forms_and_its_ca_lies_beside_the_file(
    loaded: Load, tmp_path: Path
) -> None:
    mail = '[mail]\nsmtp = "smtps://user:p%40ss@h?ssl_ca=ca.pem"\nfrom = "扇出 <a@b>"\nto = ["c@d"]\n'
    config = loaded(mail + ACCOUNT + MESSAGE)
    assert config.mail and config.mail.relay.ssl_ca == f"{tmp_path}/ca.pem"
    assert {"p@ss", "p%40ss", "AHVzZXIAcEBzcw==", "cEBzcw=="} <= set(config.secrets())
    assert "user" not in config.secrets()
    assert "AKIA0123456789" in loaded(mail.replace("user:", "AKIA0123456789:") + ACCOUNT + MESSAGE).secrets()
    assert "p%40ss" not in show(config) + repr(config) and "p@ss" not in repr(config)


def test_values_that_have_their_effect_give_no_warning(loaded: Load) -> None:
    text = '[daemon]\nlog_format = "text"\n[store]\nurl = "sqlite:///srv/f.db"\n' + ACCOUNT
    assert loaded(text + 'token = "stable"\non_unknown = "hold"\n' + MESSAGE).warnings == ()


@pytest.mark.parametrize("url", ["sqlite:///srv/f.db", "sqlite:////srv/f.db"])
def test_three_and_four_slashes_mean_the_same_file(loaded: Load, url: str) -> None:
    config = loaded(f'[store]\nurl = "{url}"\n' + ACCOUNT + MESSAGE)
    assert config.store_url == "sqlite:////srv/f.db"
    assert sqlite_path(config.store_url) == Path("/srv/f.db")


def test_a_file_saved_by_a_windows_editor_is_read(loaded: Load) -> None:
    assert loaded("\ufeff" + (ACCOUNT + MESSAGE).replace("\n", "\r\n")).accounts["main"].app_id == "wx1"


# ---- what is refused


CUSTOM = 'custom.msgtype = "text"\ncustom.text.content = "x"\n'

@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[wrkers]\ncount = 1", 'wrkers: unknown table; did you mean "workers"?'),
        ("count = 1", "count: unknown table; it belongs under [workers]"),
        ("[workers]\nrate = 5", "[workers] rate: unknown key; it belongs under [account.NAME]"),
        ("[workers]\ncuont = 1", '[workers] cuont: unknown key; did you mean "count"?'),
        ("[workers]\nzzz = 1", "[workers] zzz: unknown key; there are: concurrency, count,"),
        ('[workers]\n"a\\nb" = 1', '[workers] "a\\nb": unknown key'),
        ("workers = 3", "[workers]: wants a table"),
        ('[workers]\ncount = "4"', "[workers] count: wants a whole number from 1 to 1000, not a string"),
        ("[workers]\ncount = true", "[workers] count: wants a whole number from 1 to 1000, not true"),
        ("[workers]\ncount = 1.0", "[workers] count: wants a whole number from 1 to 1000, not a number"),
        ("[workers]\ncount = 0", "[workers] count: wants a whole number from 1"),
        ("[workers]\ncount = 2026-01-02", "[workers] count: wants a whole number from 1 to 1000, not a date"),
        ("[workers]\ngraceful_timeout = 30", '[workers] graceful_timeout: wants a duration like "30s"'),
        ('[workers]\ngraceful_timeout = "30"', '[workers] graceful_timeout: wants a duration like "30s"'),
        ('[workers]\ngraceful_timeout = "0s"', "[workers] graceful_timeout: wants a duration"),
        ('[workers]\nmax_memory = "1GB"', '[workers] max_memory: wants a size like "64KiB"'),
        ('[daemon]\nmax_request = "1B"', "[daemon] max_request: wants a size"),
        ("[daemon]\nsocket_mode = 660", '[daemon] socket_mode: wants file permissions like "0660" (in'),
        ('[daemon]\nsocket_mode = "0680"', "[daemon] socket_mode: wants file permissions"),
        ('[daemon]\nstate_dir = ""', "[daemon] state_dir: must not be empty"),
        ('[daemon]\nstate_dir = "a\\u0000b"', "[daemon] state_dir: wants one line"),
        ('[daemon]\nlog_format = "xml"', '[daemon] log_format: wants "text" or "json", not \'xml\''),
        ('[daemon]\nallow_users = "me"', "[daemon] allow_users: wants a list of strings, not a string"),
        ("[daemon]\nallow_users = [1]", "[daemon] allow_users: wants a string, not a whole number"),
        ('[store]\nurl = "postgres://x/y"', "[store] url: wants sqlite:///path or mysql://"),
        ('[store]\nurl = "sqlite://f.db"', "[store] url: wants sqlite:///path or mysql://"),
        ('[store]\nurl = "sqlite:///"', "[store] url: wants sqlite:///path or mysql://"),
        ('[store]\nurl = "mysql://u:topsecret@db.example"', "[store] url: wants sqlite:///path or mysql://"),
        ('[store]\nurl = "mysql://u:p@topsecret@db.example/x"', "[store] url: has a # or an @ where none belongs"),
        ('[store]\nurl = "mysql://u@db.example/x#topsecret"', "[store] url: has a # or an @ where none belongs"),
        ('[store]\nurl = "mysql://u@db.example/x?ssl_verify_name=off"', "[store] url: says something of the server's"),
        ('[store]\nurl = "mysql://u:top/secret@db.example/x"', "[store] url: wants sqlite:///path"),
        ('[schedule]\ndigest = "daily"', "[schedule] digest: wants five crontab fields"),
        ('[schedule]\ndigest = "0 24 * * *"', "[schedule] digest: "),
        ('[schedule]\nsync = "0 4 31 2 *"', "[schedule] sync: '0 4 31 2 *' never comes"),
        ('[schedule]\ntimezone = "Asia"', "[schedule] timezone: no time zone"),
        ('[metrics]\nlisten = "9464"', "[metrics] listen: wants an address"),
        ("[metrics]", "[metrics] listen: is missing"),
        ('[mail]\nfrom = "a"\nto = ["b"]', "[mail] smtp: is missing"),
        ('[mail]\nsmtp = "http://x"\nfrom = "a"\nto = ["b"]', "[mail] smtp: wants smtp://"),
        ('[mail]\nsmtp = "smtp://x"\nfrom = "a@b"\nto = []', "[mail] to: wants at least one address"),
        ('[mail]\nsmtp = "smtp://x"\nfrom = "ops"\nto = ["a@b"]', "[mail] from: wants a mail address like"),
        ('[mail]\nsmtp = "smtp://x"\nfrom = "a@b"\nto = ["a@b, c@d"]', "[mail] to: wants a mail address like"),
        ('[mail]\nsmtp = "smtp://x"\nfrom = "a@b"\nto = ["a@b", "A <A@b>"]', "[mail] to: has a@b twice"),
        ('[mail]\nsmtp = "smtps://u@x"\nfrom = "a@b"\nto = ["a@b"]', "[mail] smtp: wants user and password, or"),
        ('[mail]\nsmtp = "smtp://x?ca=y"\nfrom = "a@b"\nto = ["a@b"]', "[mail] smtp: has no option 'ca'; there are"),
        ('[audience.x]\nquery = "SELECT 1"\nsource = "subscribers"', "[audience.x] query: wants either"),
        ('[audience.x]\ndatabase = "sqlite:///x"', "[audience.x] query: wants either"),
        ('[audience.x]\nsource = "subscribers"\nexclude = "x"', "[audience.x] exclude: wants the name of another"),
        ('[audience.x]\nsource = "subscribers"\nexclude = "y"', "[audience.x] exclude: wants the name of another"),
        ('[windows]\nmenu = { messages = 3 }', "[windows] menu: wants { messages"),
        ('[windows]\ntap = { messages = 3, within = "1m" }', "[windows] tap: unknown key"),
        ('[audience.x]\nsource = "all"', '[audience.x] source: wants "subscribers"'),
        ('[audience.x]\nsource = "subscribers"\ndatabase = "sqlite:///x"', "[audience.x] database: goes"),
        ('[audience.x]\ndatabase = "sqlite"\nquery = "SELECT 1"', "[audience.x] database: wants sqlite:///"),
        ('[audience.x]\nquery = "SELECT %(nwo)s"', "[audience.x] query: unknown placeholder %(nwo)s; there"),
        ('[audience.x]\nquery = "SELECT %(openid)s"', "[audience.x] query: unknown placeholder %(openid)s"),
        ('[audience.x]\nquery = "LIKE \'a%\'"', "[audience.x] query: stray percent"),
        ('[audience.x]\nquery = "DELETE FROM t"', "[audience.x] query: wants one SELECT, and begins with DELETE"),
        ('[audience.x]\nquery = "SELECT a FROM t INTO OUTFILE \'x\'"', "[audience.x] query: wants one SELECT without"),
        ('[audience.x]\ndatabase = "mysql://u:topsecret@h/d"\nquery = "SELECT \'a %(now)s b\'"',
         "[audience.x] query: %(now)s must not stand in quotes"),
        ('[audience.x]\nquery = "SELECT 1"\non_gone = "%(x)s"', "[audience.x] on_gone: unknown"),
        ('[audience."a b"]\nquery = "SELECT 1"', '[audience] "a b": wants a name'),
        ('[audience]\nquery = "SELECT 1"', "[audience] query: wants a table of its own, like"),
    ],
)
def test_what_is_wrong_is_named_with_table_and_key(refused: Refused, text: str, words: str) -> None:
    line = refused(f"{text}\n{ACCOUNT}{MESSAGE}")
    assert line.startswith(words)
    assert "secret" not in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate = 0", "[account.main] rate: wants a number from 0.001"),
        ("rate = nan", "[account.main] rate: wants a number"),
        ("rate = inf", "[account.main] rate: wants a number"),
        ("rate = true", "[account.main] rate: wants a number from 0.001 to 1e+06, not true or false"),
        ("max_failures = 2", "[account.main] max_failures: wants a number from 0 to 1"),
        ('api_base = "api.weixin.qq.com"', "[account.main] api_base: wants an address like https://"),
        ('api_base = "https://x/?y"', "[account.main] api_base: wants an address like https://"),
        ('api_base = "https://x:99999"', "[account.main] api_base: wants an address like https://"),
        ('timezone = "Asia/Shanghia"', "[account.main] timezone: no time zone 'Asia/Shanghia'"),
        ('timezone = "Asia"', "[account.main] timezone: no time zone 'Asia'"),
        ('timezone = "../../etc/passwd"', "[account.main] timezone: no time zone"),
        ('quiet_hours = "22-08"', "[account.main] quiet_hours: wants two different times"),
        ("daily_limit = 5", "[account.main] daily_limit: wants a table like { custom = 500000"),
        ("daily_limit = { mail = 5 }", '[account.main] daily_limit: unknown channel "mail"; there are: custom'),
        ("daily_limit = { custom = 0 }", "[account.main] daily_limit: wants a whole number from 1"),
        ('quiet_hours = "24:00-08:00"', "[account.main] quiet_hours: wants two different times"),
        ('on_unknown = "drop"', '[account.main] on_unknown: wants "hold" or "resend"'),
        ('token = "t0psecret"', '[account.main] token: wants "stable", "classic" or {'),
        ('token = { query = "SELECT 1" }', "[account.main.token] database: is missing"),
        ('token = { databse = "x" }', '[account.main.token] databse: unknown key; did you mean "database"?'),
        ('token = { database = "sqlite:///x", query = "%(now)s" }', "[account.main.token] query: unknown"),
        ('token = { database = "sqlite:///x", query = "CALL t()" }', "[account.main.token] query: wants one SELECT"),
    ],
)
def test_a_wrong_account_is_named(refused: Refused, text: str, words: str) -> None:
    line = refused(f"{ACCOUNT}{text}\n{MESSAGE}")
    assert line.startswith(words)
    assert "secret" not in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "[message.default]: is missing"),
        ("[message.m]", "[message.m] channels: wants each channel once, at least one"),
        ('[message.m]\nchannels = ["sms"]', '[message.m] channels: unknown channel "sms"; there are:'),
        ('[message.m]\nchannels = ["custom"]', "[message.m] channels: custom has no body; write it as"),
        ("[message.m.sms]\nx = 1", "[message.m] sms: unknown channel; there are: custom, subscribe, template"),
        ("[message.m.custm]\nx = 1", '[message.m] custm: unknown channel; did you mean "custom"?'),
        ('[message.m]\ncustom = "hello"', "[message.m.custom]: wants a table"),
        ('[message.m]\nchanels = ["custom"]', '[message.m] chanels: unknown key; did you mean "channels"?'),
        ('[message.m]\ntoo_long = "cat"', '[message.m] too_long: wants "cut" or "fail"'),
        ('[message.m]\nvariables = ["a b"]\ncustom = {}', '[message.m] variables: "a b" is no name'),
        ('[message.m]\nvariables = ["now"]\ncustom = {}', '[message.m] variables: "now" is built in'),
        ("[message.m]\non_finish = 5", "[message.m] on_finish: wants a table, not a whole number"),
        *((f"[message.m]\n{CUSTOM}[message.m.on_finish]\n{text}", f"[message.m.on_finish] {words}") for text, words in [
            ("", "statement: is missing, and so is a command"),
            ('statement = "x"', "database: is missing; the statement goes with one"),
            ('database = "sqlite:///x"\ncommand = ["x"]', "statement: is missing; the database goes with one"),
            ('database = "sqlite:///x"\nstatement = "%(openid)s"', "statement: unknown placeholder %(openid)s"),
            ('command = ["x", "{nobody}"]', "command: unknown placeholder {nobody}; there are"),
            ('command = ["{"]', "command: lone {"),
            ('command = "x y"', "command: wants a list of strings"),
            ('comand = ["x"]', 'comand: unknown key; did you mean "command"?'),
            ('database = "mysql://u:topsecret@db.example"', "database: wants sqlite:///path"),
            ('database = "mysql://u:topsecret@db.example/x"\nstatement = "UPDATE t SET a = \'x %(content)s\'"',
             "statement: %(content)s must not stand in quotes"),
            ('database = "mysql://u:topsecret@db.example/x?charset=utf-8"', "database: option charset: MySQL knows no"),
        ]),
        ("[message.m.custom]\nx = 1", "[message.m.custom] msgtype: is missing"),
        ('[message.m.custom]\nmsgtype = "text"', "[message.m.custom] text: is missing"),
        ('[message.m.custom]\ntouser = "x"', "[message.m.custom] touser: is filled in by fanoutd"),
        ('[message.m.template]\nclient_msg_id = "x"', "[message.m.template] client_msg_id: is filled in"),
        ('[message.m.template]\nurl = "x"', "[message.m.template] template_id: is missing"),
        ('[message.m.template]\ntemplate_id = "T"\ndata = "x"', "[message.m.template] data: wants a table"),
        ('[message.m.template]\ntemplate_id = "T"\ndata.thing1 = "x"', "[message.m.template] data.thing1: "),
    ],
)
def test_a_wrong_message_is_named(refused: Refused, text: str, words: str) -> None:
    assert refused(f"{ACCOUNT}{text}\n").startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('"{contnet}"', "unknown placeholder {contnet}; there are campaign, content, now, phone, reference"),
        ('"{account}"', "unknown placeholder {account}"),
        ('"a { b"', "lone { at"),
        ('"}"', "lone } at"),
        ('"{}"', "'{}' is no placeholder"),
        ("2026-01-02", "a date has no form in JSON"),
        ("nan", "this number has no form in JSON"),
    ],
)
def test_a_wrong_text_in_a_body_is_named(refused: Refused, content: str, words: str) -> None:
    body = f'[message.m.custom]\nmsgtype = "text"\ntext.content = {content}\n'
    assert refused(ACCOUNT + body).startswith(f"[message.m.custom] text.content: {words}")


def test_a_variable_of_any_message_may_stand_in_a_query(loaded: Load) -> None:
    text = '[message.supply]\nvariables = ["city"]\n' + MESSAGE + ACCOUNT
    query = '[audience.x]\nquery = "SELECT openid FROM t WHERE c = %(city)s AND a = %(account)s"\n'
    assert loaded(text + query).audiences["x"].params == {"city", "account"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[daemon\n", "not valid TOML: Expected ']' at the end of a table declaration (at line 1,"),
        ("\n\nx = ", "not valid TOML: Invalid value (at line 3, the end of the file)"),
        ("[daemon]\n[daemon]\n", "not valid TOML: Cannot declare ('daemon',) twice (at line 2,"),
        ("a = " + "[" * 5000, "not valid TOML: nested too deeply"),
        ("a = " + "1" * 5000, "not valid TOML: "),
    ],
)
def test_broken_toml_is_named_with_its_line(refused: Refused, text: str, words: str) -> None:
    assert refused(text).startswith(words)


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b'[mail]\nfrom = "M\xfcller"\n')
    with pytest.raises(BadConfig, match=r"latin\.toml: line 2: not UTF-8"):
        load(file, {})


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig, match=f"{tmp_path}.*`fanoutd init`"):
        load(tmp_path / name, {})


def test_a_socket_path_of_a_hundred_bytes_works_and_one_more_does_not(loaded: Load, refused: Refused) -> None:
    longest = "/" + "é" * 49 + "s"
    assert loaded(f'[daemon]\nsocket = "{longest}"\n{ACCOUNT}{MESSAGE}').daemon.socket == Path(longest)
    line = refused(f'[daemon]\nsocket = "{longest}x"\n{ACCOUNT}{MESSAGE}')
    assert line.startswith("[daemon] socket: a path of 101 bytes, at most 100 work")
    assert refused(f'[daemon]\nstate_dir = "{"d" * 99}"\n{ACCOUNT}{MESSAGE}').startswith("[daemon] socket:")


# ---- secrets


def test_the_environment_comes_before_the_file_before_the_key(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of-the-file\n")
    (tmp_path / "secret").chmod(0o600)
    key = ACCOUNT.replace("main", "my-main")
    both = key + 'app_secret_file = "secret"\n'
    environ = {"FANOUTD_MY_MAIN_APP_SECRET": "of-the-environment"}
    assert loaded(both + MESSAGE, environ=environ).accounts["my-main"].app_secret == "of-the-environment"
    assert loaded(both + MESSAGE).accounts["my-main"].app_secret == "of-the-file"
    assert loaded(key + MESSAGE).accounts["my-main"].app_secret == "s3cret"


def test_with_the_environment_the_secret_file_need_not_be_there(loaded: Load) -> None:
    text = '[account.main]\napp_id = "wx1"\napp_secret_file = "gone"\n' + MESSAGE
    assert loaded(text, environ={"FANOUTD_MAIN_APP_SECRET": "x"}).accounts["main"].app_secret == "x"


def test_an_account_wants_its_id_and_a_secret(refused: Refused) -> None:
    assert refused(MESSAGE).startswith("[account.main]: is missing")
    line = refused('[account.main]\napp_secret = "x"\n' + MESSAGE)
    assert line.startswith("[account.main] app_id: is missing")
    line = refused('[account.main]\napp_id = "wx1"\n' + MESSAGE)
    assert line.startswith("[account.main] app_secret_file: is missing")
    assert line.endswith("set FANOUTD_MAIN_APP_SECRET")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"good", 0o604, "may be read by everybody; chmod o= "),
        (b"", 0o600, "wants the secret on one line"),
        (b"two words", 0o600, "wants the secret on one line"),
        (b"\xff", 0o600, "not a text file"),
        (None, 0o600, "No such file or directory"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_named(
    refused: Refused, tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    file = tmp_path / "main.key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    line = refused('[account.main]\napp_id = "wx1"\napp_secret_file = "main.key"\n' + MESSAGE)
    assert line.startswith("[account.main] app_secret_file: ")
    assert words in line
    assert "two words" not in line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (ACCOUNT, "[account.main] app_secret"),
        ('[audience.x]\ndatabase = "mysql://u:p@w@h/d"\n', "[audience.x] database"),
        ('[account.x]\ntoken = { database = "mysql://u:pw@h/d" }\n', "[account.x.token] database"),
        ('[mail]\nsmtp = "smtps://u:pw@h"\n', "[mail] smtp"),
    ],
)
def test_a_secret_that_the_world_may_read_is_refused(refused: Refused, text: str, place: str) -> None:
    line = refused(text, mode=0o644)
    assert line.startswith(f"{place}: is a secret, and everybody may read this file; chmod o= ")
    assert "pw" not in line


def test_a_file_without_secrets_may_be_read_by_everybody(loaded: Load) -> None:
    text = '[account.main]\napp_id = "wx1"\n[store]\nurl = "mysql://user@h/d"\n' + MESSAGE.replace(
        "{content}", "https://a:b@example.com"
    )
    config = loaded(text, mode=0o644, environ={"FANOUTD_MAIN_APP_SECRET": "x"})
    assert config.accounts["main"].app_secret == "x"


def test_the_group_may_read_a_secret(loaded: Load) -> None:
    assert loaded(ACCOUNT + MESSAGE, mode=0o640).accounts["main"].app_secret == "s3cret"


def test_no_repr_gives_a_secret_away(loaded: Load) -> None:
    shown = repr(loaded(FULL))
    assert not [secret for secret in ("s3cret", "p%40ss", ":pw@") if secret in shown]


# ---- show


def test_show_is_toml_that_comes_to_the_same_with_the_secrets_masked(loaded: Load) -> None:
    text = show(before := loaded(FULL))
    assert not [secret for secret in ("s3cret", "p%40ss", ":pw@") if secret in text]
    assert tomllib.loads(text)["account"]["a-b"]["app_secret"] == "***"
    after = loaded(text)
    assert after.messages == before.messages
    assert show(after) == text
    assert (after.daemon, after.workers, after.schedule) == (before.daemon, before.workers, before.schedule)
    assert (after.audiences, after.metrics) == (before.audiences, before.metrics)


def test_show_spells_out_the_defaults(loaded: Load) -> None:
    shown = tomllib.loads(show(loaded(ACCOUNT + MESSAGE)))
    assert shown["workers"]["graceful_timeout"] == "30s"
    assert shown["daemon"]["max_request"] == "1MiB"
    assert shown["schedule"]["retention"] == "90d"
    assert shown["account"]["main"]["app_id"] == "wx1"
    assert shown["message"]["supply"]["custom"]["text"] == {"content": "{content}"}


# ---- the files that are delivered


def test_the_starter_passes_as_it_stands_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = write_starter(tmp_path / "new")
    config = load(file, {})
    assert file.stat().st_mode & 0o777 == 0o600
    assert config.messages["default"].channels == ("custom", "template")
    where = "[account.main] app_id", "[account.main] app_secret", "[message.default.template] template_id"
    assert config.warnings == tuple(f"{each} is still that of `fanoutd init`: put in yours" for each in where)
    practice = file.read_text().replace("# api_base", "api_base")
    assert load(file, {}, practice.encode()).warnings == ()  # the sandbox takes any
    own = practice.replace("wx0000000000000000", "wx1").replace("put-yours-here", "s").replace("put-your-t", "t")
    assert load(file, {}, own.replace("\napi_base", "\n# api_base").encode()).warnings == ()


def test_the_starter_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "fanoutd.toml").write_text("mine")
    with pytest.raises(BadInput, match=r"fanoutd\.toml: is there already"):
        write_starter(tmp_path)
    assert (tmp_path / "fanoutd.toml").read_text() == "mine"
    with pytest.raises(BadInput, match="is no folder"):
        write_starter(tmp_path / "fanoutd.toml")


def test_the_starters_audience_works_when_its_comment_signs_are_taken_away(
    loaded: Load, tmp_path: Path
) -> None:
    head, mark, rest = write_starter(tmp_path / "new").read_text().partition("# [audience.default]")
    config = loaded(head + (mark + rest).replace("# ", ""))
    assert config.audiences["default"].params == {"now"}


def test_so_does_the_starters_mail(loaded: Load, tmp_path: Path) -> None:
    head, mark, rest = write_starter(tmp_path / "new").read_text().partition("# [mail]")
    table, gap, rest = rest.partition("\n\n")
    config = loaded(head + re.sub("^# ", "", mark + table, flags=re.MULTILINE) + gap + rest)
    assert config.mail and config.mail.to == ("ops@example.com",)


def test_the_example_in_etc_loads_with_no_warning_but_of_what_is_to_be_filled_in(tmp_path: Path) -> None:
    config = load(ETC, {"FANOUTD_MAIN_APP_SECRET": "x"})
    assert len(config.warnings) == 2 and all("is still that of" in each for each in config.warnings)
    assert config.audiences["default"].params == {"now"}
    assert str(tmp_path) not in show(config)


def test_the_example_in_etc_names_every_key() -> None:
    text = ETC.read_text(encoding="utf-8")
    tables = {**fields.SINGLE, **fields.NAMED}
    assert not [key for keys in tables.values() for key in keys if key not in text]
    assert not [name for name in tables if f"[{name}" not in text]


# ---- find and pick


def test_the_configuration_is_looked_for_in_the_contracts_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path / "home")}
    with pytest.raises(BadConfig, match=r"no configuration: .*home/.config.*`fanoutd init`"):
        find(None, environ)
    at_home = tmp_path / "home/.config/fanoutd/fanoutd.toml"
    at_home.parent.mkdir(parents=True)
    at_home.touch()
    assert find(None, environ) == at_home
    (tmp_path / "fanoutd.toml").touch()
    assert find(None, environ) == Path("fanoutd.toml")
    assert find(None, environ | {"FANOUTD_CONFIG": "of-the-environment"}) == Path("of-the-environment")
    assert find("of-the-option", environ | {"FANOUTD_CONFIG": "x"}) == Path("of-the-option")


def test_the_only_one_or_the_default_one_need_not_be_named(loaded: Load) -> None:
    one = loaded(ACCOUNT + MESSAGE)
    assert one.pick("message", None).name == "supply"
    assert one.pick("account", "main").name == "main"
    two = loaded(ACCOUNT + MESSAGE + MESSAGE.replace("supply", "default"))
    assert two.pick("message", None).name == "default"
    assert two.pick("message", "supply").name == "supply"


def test_a_pick_that_fails_says_what_there_is(loaded: Load) -> None:
    config = loaded(ACCOUNT + MESSAGE + MESSAGE.replace("supply", "alarm"))
    with pytest.raises(BadInput, match="no message 'x' is configured; there is: alarm, supply"):
        config.pick("message", "x")
    with pytest.raises(BadInput, match=r"which message.*alarm, supply"):
        config.pick("message", None)
    with pytest.raises(BadInput, match=r"audience.*none; add \[audience\.default\]"):
        config.pick("audience", None)
