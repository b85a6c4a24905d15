"""docs/configuration.md against the code: every key has its row, and what stands in the row is true."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fanoutd.config import fields, load
from fanoutd.config import values as v
from fanoutd.config.fields import REQUIRED, Field, Fields
from fanoutd.config.msgtypes import KINDS
from fanoutd.master.fixed import changed

NAME = "docs/configuration.md"
TEXT = (Path(__file__).parent.parent / NAME).read_text(encoding="utf-8")

#: Every table of a file by the heading that it has in the document.
TABLES: Mapping[str, Fields] = {
    **fields.SINGLE,
    **{f"{name}.NAME": keys for name, keys in fields.NAMED.items()},
    "account.NAME.token": fields.TOKEN_QUERY,
    "message.NAME.on_finish": fields.ON_FINISH,
}
KEYS = [(table, key) for table, keys in TABLES.items() for key in keys]

#: The document's words for the parsers that have one; ``choice`` and the like are told by their own.
TYPES: Mapping[str, v.Parser] = {
    "duration": v.duration, "size": v.size, "path": v.path, "mode": v.mode, "line": v.word, "lines": v.words,
    "text": v.text, "crontab": v.crontab, "time zone": v.timezone, "address": v.listen, "database": v.database_url,
    "window": v.window,
}  # fmt: skip
#: The other way round, with those whose rest is told in the row's words.
NAMES: Mapping[v.Parser, str] = {
    **{parser: name for name, parser in TYPES.items()}, v.api_base: "line", v.reply: "text",
}  # fmt: skip

#: What a file must have besides what an example shows.
ACCOUNT = '[account.main]\napp_id = "wx0123456789abcdef"\napp_secret = "a-secret-of-the-tests"\n'
MESSAGE = '[message.supply]\n[message.supply.custom]\nmsgtype = "text"\ntext.content = "{content}"\n'


class Row(NamedTuple):
    kind: str
    default: str
    when: str
    words: str


def sections() -> dict[str, str]:
    """The text under each ``## [TABLE]``, by table."""
    parts = re.split(r"^##+ (.*)$", TEXT, flags=re.MULTILINE)
    return {title.strip("[]"): text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title[0] == "["}


def rows() -> dict[tuple[str, str], Row]:
    found = {}
    for table, text in sections().items():
        for line in text.splitlines():
            cells = [each.strip() for each in line.strip("|").split(" | ")]
            key = re.fullmatch(r"`([a-z_]+)`", cells[0])
            if line.startswith("|") and len(cells) == 5 and key:
                assert (table, key[1]) not in found, f"{NAME} has [{table}] {key[1]} twice"
                found[table, key[1]] = Row(*cells[1:])
    return found


ROWS = rows()
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", TEXT + README, re.MULTILINE | re.DOTALL)


def toml(text: str) -> Any:
    """A value as it stands in backticks."""
    return tomllib.loads(f"x = {text.strip('`')}")["x"]


def test_every_key_has_its_row_and_every_row_its_key() -> None:
    lacking = [f"[{table}] {key}" for table, key in KEYS if (table, key) not in ROWS]
    assert not lacking, f"{NAME} lacks {', '.join(lacking)}"
    strange = [f"[{table}] {key}" for table, key in ROWS if (table, key) not in KEYS]
    assert not strange, f"{NAME} has {', '.join(strange)}, which the configuration does not know"


def field_of(table: str, key: str) -> tuple[Field, Row]:
    assert (table, key) in ROWS, f"{NAME} lacks [{table}] {key}"
    return TABLES[table][key], ROWS[table, key]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_row_tells_the_truth(table: str, key: str) -> None:
    field, row = field_of(table, key)
    if field.default is REQUIRED:
        assert row.default == "required"
    elif field.default is None:
        assert row.default == "none"
    else:
        assert field.parse(toml(row.default)) == field.default, f"{NAME}: [{table}] {key}: another default"
    assert len(row.words) > 3, f"{NAME}: [{table}] {key}: says nothing about it"
    assert row.when in ("HUP", "restart", "HUP, for new campaigns")
    if field.parse in (v.token, v.daily_limit, v.subtable):
        assert "table" in row.kind
    elif field.parse in NAMES:
        assert row.kind == NAMES[field.parse]
    for option in re.findall(r'`("[^`]*")`', row.kind):
        field.parse(toml(option))
    limits = re.fullmatch(r"(?:whole )?number ([0-9.]+)–([0-9.]+)", row.kind)
    if limits:
        low, high = toml(limits[1]), toml(limits[2])
        for good in (low, high):
            field.parse(good)
        for bad in (low - 1, high + 1, str(low)):
            with pytest.raises(ValueError):
                field.parse(bad)


def test_units_are_read_by_the_parsers_of_the_keys() -> None:
    found = dict(re.findall(r"^\| ([a-z ]+) \| (.*) \|$", TEXT.partition("## Units")[2].partition("\n## ")[0], re.M))
    found.pop("type")
    assert found.keys() == TYPES.keys()
    for kind, words in found.items():
        examples = re.findall(r'`((?:"[^"`]|\[|\{)[^`]*|"")`', words)
        assert examples, kind
        for each in examples:
            TYPES[kind](toml(each))


def test_what_needs_a_restart_is_what_a_reload_refuses(tmp_path: Path) -> None:
    """Each key changed by itself, in a file that is otherwise the same."""
    def config(table: str = "", line: str = "") -> Any:
        return loaded(tmp_path, f"[{table or 'daemon'}]\n{line}\n")

    before = config()
    other = {
        "state_dir": '"elsewhere"', "socket": '"s"', "socket_mode": '"0600"', "socket_group": '"g"', "pidfile": '"p"',
        "user": '"u"', "url": '"sqlite:////elsewhere.db"', "allow_users": '["a"]', "admin_users": '["a"]',
        "log_file": '"l"', "log_format": '"json"', "max_request": '"2MiB"', "drop": '"d"',
    }  # fmt: skip
    for table, key in KEYS:
        if table in ("daemon", "store"):
            refused = changed(before, config(table, f"{key} = {other[key]}")) is not None
            assert refused == (ROWS[table, key].when == "restart"), (table, key)
    assert {table for (table, _), row in ROWS.items() if row.when == "restart"} == {"daemon", "store"}


def loaded(folder: Path, text: str) -> Any:
    (folder / "main.secret").touch(0o600)
    (folder / "main.secret").write_text("a-secret-of-the-tests")
    file = folder / "fanoutd.toml"
    file.write_text(
        text + ("" if "[account." in text else ACCOUNT) + ("" if "[message." in text else MESSAGE), encoding="utf-8"
    )
    file.chmod(0o600)
    return load(file, {})


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_loads(example: str, tmp_path: Path) -> None:
    loaded(tmp_path, example)


def test_every_key_stands_in_an_example() -> None:
    shown = Counter[tuple[str, str]]()
    for example in EXAMPLES:
        for table, content in tomllib.loads(example).items():
            if table in fields.SINGLE:
                shown.update((table, key) for key in content)
                continue
            for each in content.values():
                shown.update((f"{table}.NAME", key) for key in each)
                for key, below in each.items():
                    if isinstance(below, dict):
                        shown.update((f"{table}.NAME.{key}", name) for name in below)
    lacking = [f"[{table}] {key}" for table, key in KEYS if not shown[table, key]]
    assert not lacking, f"{NAME} has no example of {', '.join(lacking)}"


def test_kinds_of_custom_messages_are_those_that_are_taken() -> None:
    found = {
        kind: (re.findall(r"`(\w+)`", needs), re.findall(r"`(\w+)`", may))
        for kind, needs, may in re.findall(r"^\| `(\w+)` \| ((?:`\w+`[, ]*)+) \| ((?:`\w+`[, ]*)*)\|$", TEXT, re.M)
    }
    lists = {"news": "articles", "msgmenu": "list"}  # what the check of their items wants
    assert found == {
        name: (
            [*kind.required, *([lists[name]] if name in lists else [])],
            [each for each in kind.optional if each != lists.get(name)],
        )
        for name, kind in KINDS.items()
    }


def test_the_contents_lead_somewhere() -> None:
    titles = re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert links and set(links) <= anchors
    lacking = [table for table in TABLES if table.count(".") < 2 and table.lower().replace(".", "") not in links]
    assert not lacking, f"{NAME}: its contents lack {', '.join(lacking)}"
