"""docs/errors.md against the code: each errcode, exit code and JSON-RPC error has its row, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fanoutd import client, errors
from fanoutd.errcodes import TABLE, Meaning, Row, Verdict, meaning
from fanoutd.master import rpc
from fanoutd.worker.verdicts import LIMITS

NAME = "docs/errors.md"
TEXT = (Path(__file__).parent.parent / NAME).read_text(encoding="utf-8")

#: The document's words for what is done, each with a heading that explains it.
WORDS = {
    Verdict.SENT: "sent", Verdict.NEXT_CHANNEL: "next channel", Verdict.RETRY: "again", Verdict.TOKEN: "token",
    Verdict.REST: "rest", Verdict.QUOTA: "quota", Verdict.ACCOUNT: "account waits",
    Verdict.STOP_CAMPAIGN: "campaign pauses", Verdict.STOP_ACCOUNT: "account pauses", Verdict.FAILED: "failed",
}  # fmt: skip


def sections(level: str) -> dict[str, str]:
    """The text under each heading, by its anchor."""
    parts = re.split(rf"^{level} (.*)$", TEXT, flags=re.MULTILINE)
    anchors = (re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[1::2])
    return dict(zip(anchors, parts[2::2], strict=True))


def rows(section: str) -> dict[str, list[str]]:
    """The cells of every row of the section whose first cell is a code, by that."""
    found: dict[str, list[str]] = {}
    for line in sections("##")[section].splitlines():
        cells = [each.strip() for each in line.strip("|").split(" | ")]
        if line.startswith("| ") and re.fullmatch(r"[−-]?\d+|`render`|other", cells[0]):
            code = cells[0].strip("`").replace("−", "-")
            assert code not in found, f"{NAME} has {code} twice"
            found[code] = cells[1:]
    return found


ROWS = rows("wechats-errcodes")


def does(of: Meaning) -> str:
    """The cell that tells what fanoutd does."""
    words = WORDS[of.verdict]
    for verdict in dict.fromkeys(of.on.values()):
        elsewhere = ", ".join(channel for channel, each in of.on.items() if each is verdict)
        words += f"; on {elsewhere}: {WORDS[verdict]}"
    if of.row is not Row.NONE:
        words += f"; {LIMITS[of.row]} in a row: campaign pauses"
    if of.personal:
        words += f"; where texts differ by person: failed, {LIMITS[Row.CONTENT]} in a row: campaign pauses"
    return words


@pytest.mark.parametrize("code", [*map(str, sorted(TABLE)), "render", "other"])
def test_an_errcode_has_its_row(code: str) -> None:
    of = meaning(code)
    assert code in ROWS, f"{NAME} lacks errcode {code}: | {code} | {of.zh} | {of.text} | {does(of)} | … |"
    chinese, english, done, mend = ROWS[code]
    assert (chinese, english, done) == (of.zh, of.text, does(of)), code
    link = re.fullmatch(r"\[.*\]\(#(.*)\)", mend)
    mended = sections("###")[link[1]].partition("\n## ")[0] if link else mend
    assert of.remedy.lower() in mended.replace("\n", " ").lower(), code
    assert len(mend) > 5


def test_no_row_is_of_a_code_that_nobody_knows() -> None:
    assert ROWS.keys() == {*map(str, TABLE), "render", "other"}


def test_whatever_is_done_is_explained() -> None:
    explained = sections("###").keys()
    assert {each.replace(" ", "-") for each in WORDS.values()} <= explained


def test_our_own_codes_have_their_rows() -> None:
    codes = {value for name, value in vars(rpc).items() if name.isupper() and isinstance(value, int) and value < 0}
    found = {int(code): cells[0] for code, cells in rows("on-the-socket").items()}
    assert found.keys() == codes > client._BY_CODE.keys()
    assert found == {code: client._BY_CODE.get(code, client.BadRequest).__name__ for code in codes}
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.FanoutdError)]
    # those of every program, of click, and of `check` alone
    assert {int(each) for each in rows("exit-codes")} == {0, 1, 2, 3} | {each.exit_code for each in kinds}


SOURCE = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(errors.__file__).parent.rglob("*.py")))


def test_lines_are_quoted_as_the_program_says_them() -> None:
    lines = re.findall(r"^\| `([^`]*)` \| ", sections("##")["one-line-errors"], re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        for part in (each.strip(" ;?") for each in line.split("…")):
            assert part in SOURCE, f"{NAME} quotes {part!r}, which nothing says"
