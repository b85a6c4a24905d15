"""Lines for a terminal of so many columns: what does not fit is left out, and nothing is folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text


@dataclass(frozen=True, slots=True)
class Column:
    """``leave``: who has the highest is left out first where there is no room; 0 stays."""

    head: str
    cells: Sequence[Text]
    right: bool = False
    leave: int = 0

    @property
    def width(self) -> int:
        return max(Text(self.head).cell_len, *(each.cell_len for each in self.cells), 0)


def width_of(columns: Sequence[Column], gap: int = 1) -> int:
    return sum(each.width for each in columns) + gap * (len(columns) - 1)


def lines(columns: Sequence[Column], width: int) -> list[Text]:
    """The heads and a line for each row, at most ``width`` columns wide."""
    kept = list(columns)
    while width_of(kept) > width and (gone := max(kept, key=lambda each: each.leave)).leave:
        kept.remove(gone)
    gap = " " * (2 if width_of(kept, 2) <= width else 1)
    widths = [each.width for each in kept]
    rows: list[Sequence[Text]] = [[Text(each.head, "dim") for each in kept]]
    rows += [[each.cells[at] for each in kept] for at in range(len(kept[0].cells))]
    return [fit(Text(gap).join(_padded(row, kept, widths)), width) for row in rows]


def _padded(row: Sequence[Text], columns: Sequence[Column], widths: Sequence[int]) -> Iterator[Text]:
    for cell, column, width in zip(row, columns, widths, strict=True):
        space = " " * (width - cell.cell_len)
        yield Text.assemble(space, cell) if column.right else Text.assemble(cell, space)


def fit(line: Text, width: int) -> Text:
    """The line cut to the width, the cut marked."""
    line = line.copy()
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def clean(words: str) -> str:
    """In one line: what others wrote must not move the cursor or break the picture."""
    return " ".join("".join(each if each.isprintable() else " " for each in words).split())
