"""Every command and option that the documents show is one that the program has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fanoutd.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/*.sh"))]


def shown(document: Path) -> Iterator[str]:
    """What stands after ``fanoutd`` in code: in single backticks, and in blocks; a script is one block."""
    text = document.read_text(encoding="utf-8")
    fence = re.compile(r"^```[a-z ]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = "\n".join(fence.findall(text))
    if document.suffix == ".sh":
        blocks, text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE), ""
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    for code in (*(each.replace("\n", " ") for each in spans), *blocks.splitlines()):
        found = re.findall(r"(?:^|[\s(/])(?<!service )(?<!-[og] )fanoutd ([a-z-][^|&;)]*)", code.split(" #")[0])
        yield from (each.strip() for each in found)


def trouble(line: str) -> str | None:
    """Why it would be refused."""
    command: click.Command = main
    words = re.sub(r"-c \S+ ", "", line).split()
    while isinstance(command, click.Group):
        if not words or not re.fullmatch(r"[a-z-]+", words[0]):
            return None if not words or words[0].startswith("-") else f"{line}: no command"
        below = command.get_command(click.Context(command), words[0])
        if below is None:
            return f"fanoutd {line}: there is no {words[0]}"
        command, words = below, words[1:]
    known = {name for each in command.params for name in each.opts} | {"--help"}
    lacking = {each.partition("=")[0] for each in words if re.fullmatch(r"--[a-z-]+(?:=.*)?", each)} - known
    return f"fanoutd {line}: there is no {', '.join(sorted(lacking))}" if lacking else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_there(document: Path) -> None:
    troubles = [each for line in shown(document) if (each := trouble(line))]
    assert not troubles, "\n".join(troubles)


def test_they_are_found() -> None:
    assert sum(len(list(shown(each))) for each in DOCUMENTS) > 90
    assert trouble("campaign shows ID") and trouble("send hello --fail") and trouble("bottom")
    assert not trouble("-c /etc/x.toml campaign export ID --state unknown")


def test_commands_that_the_program_names_are_there() -> None:
    """In its errors, mails and help."""
    found = []
    for module in sorted((ROOT / "fanoutd").rglob("*.py")):
        text = re.sub(r'"\s*\n\s*f?"', "", module.read_text(encoding="utf-8"))  # literals that go on in the next line
        found += [each for each in re.findall(r"`fanoutd ([^`]+)`", text) if "{order}" not in each]
    assert len(found) > 50
    assert not [each for line in found if (each := trouble(line))]
