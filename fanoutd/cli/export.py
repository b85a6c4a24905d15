"""``fanoutd campaign export``: everybody of a campaign, page by page, in memory that does not grow.

A daemon that goes away in the middle is waited for, and asked for what comes next: the place in the order is the
same after its restart. What cannot be completed is an error, never a short file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from fanoutd import client
from fanoutd.cli.common import Settings, connected, pass_settings
from fanoutd.client import Client
from fanoutd.errors import FanoutdError, NotPermitted

COLUMNS = ("openid", "state", "channel", "errcode", "msgid", "attempts", "updated_at")

#: Seconds that an answer may take, and that a daemon which went away is waited for.
_ANSWER, PATIENCE = 30.0, 60.0

#: Seconds between two tries, and between two looks at the progress.
_AGAIN, _SHOWN = 0.25, 0.2

#: Cells that begin so are formulas to a spreadsheet, in full width too; and what stands before them then.
_FORMULA = re.compile("[=+\\-@\t\r\n＝＋－＠']")

Page = list[dict[str, Any]]


@click.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--state", help="Only people in this state: sent, failed, skipped, unknown, pending.")
@click.option("--output", metavar="FILE", help="Into this file, which is there when it is complete; else on stdout.")
@pass_settings
def export(settings: Settings, campaign_id: str, form: str, state: str | None, output: str | None) -> None:
    """Everybody of a campaign, in sending order.

    In csv, whatever a spreadsheet would take for a formula has a ' before it; jsonl has every value as it is.
    """
    config = settings.reach()
    encode = _jsonl if form == "jsonl" else _csv
    with connected(config, _ANSWER) as connection:
        source = _Source(connection, str(config.daemon.socket))
        total = source.call("campaign.get", campaign=campaign_id)["total"]
        pages = _pages(source, campaign_id, state)
        first = next(pages)  # what is wrong with the question is known before a file is begun
        with _target(output) as file, _progress(None if state else total) as count:
            if form == "csv":
                _write(file, (",".join(COLUMNS) + "\n").encode())
            for page in _chain(first, pages):
                _write(file, encode(page))
                count(len(page))
            written = count(0)
        source.call("campaign.get", campaign=campaign_id)  # it was there to its end
        if state is None and written < total:
            raise FanoutdError(f"only {written:,} of {total:,} people were there; is the campaign being deleted?")


class _Source:
    """A daemon that may be restarted. Raises as ``Client`` does, when it does not come back."""

    def __init__(self, connection: Client, path: str) -> None:
        self._connection: Client | None = connection
        self._path = path
        self._answered = False

    def call(self, method: str, **params: Any) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self._connection is None:
                    self._connection = Client(self._path, _ANSWER)
                answer = self._connection.call(method, **params)
            except (client.Unreachable, client.TryAgain) as e:
                if not self._answered:
                    raise
                if time.monotonic() >= end:
                    raise client.Unreachable(f"{e}; what was exported is not all") from None
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                time.sleep(_AGAIN)
            else:
                self._answered = True
                return answer


def _pages(source: _Source, campaign: str, state: str | None) -> Iterator[Page]:
    """One at least, empty where nobody is."""
    after = None
    while True:
        page = source.call("campaign.deliveries", campaign=campaign, state=state, after=after)
        yield page["rows"]
        if (after := page["next"]) is None:
            return


def _chain(first: Page, rest: Iterator[Page]) -> Iterator[Page]:
    yield first
    yield from rest


def _jsonl(page: Page) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in page).encode("utf-8", "replace")


def _csv(page: Page) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(name, row[name]) for name in COLUMNS] for row in page)
    return text.getvalue().encode("utf-8", "replace")


def cell(column: str, value: Any) -> str:
    """As a spreadsheet shows it and never runs it. A leading ' is no part of the value: taking one off gives it back.

    An openid may begin with a dash, and what a query gave in its place with anything. An errcode is a number.
    """
    text = "" if value is None else str(value)
    return "'" + text if column != "errcode" and _FORMULA.match(text) else text


@contextmanager
def _target(output: str | None) -> Iterator[BinaryIO]:
    """Where the rows go: a file takes its name when it is complete and on disk."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        _write(sys.stdout.buffer, b"", flush=True)
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # a pipe, say: it cannot be replaced
        with _said(path, lambda: path.open("wb")) as file:
            yield file
        return
    # Who they are is for the eyes of whoever asked.
    fd, half = _said(path, lambda: tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            _said(path, file.flush)
            _said(path, lambda: os.fsync(file.fileno()))
        _said(path, lambda: os.replace(half, path))
    except BaseException:
        with suppress(OSError):
            os.unlink(half)
        raise


def _said(path: Path, step: Callable[[], Any]) -> Any:
    """What the step gives; its trouble in words."""
    try:
        return step()
    except PermissionError as e:
        raise NotPermitted(f"{path}: {e.strerror}; name a file that you may write") from None
    except OSError as e:
        raise FanoutdError(f"{path}: {e.strerror}; nothing was written there") from None


def _write(file: BinaryIO, data: bytes, flush: bool = False) -> None:
    try:
        file.write(data)
        if flush:
            file.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise FanoutdError(f"the export cannot be written: {e.strerror}") from None


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], int]]:
    """On a terminal; what it yields takes how many more there are, and says how many that makes."""
    terminal, written, shown = sys.stderr.isatty(), 0, time.monotonic()

    def count(more: int) -> int:
        nonlocal written, shown
        written += more
        if terminal and time.monotonic() - shown >= _SHOWN:
            shown = time.monotonic()
            of = f" of {total:,}" if total else ""
            click.echo(f"\r\x1b[K{written:,}{of} people", nl=False, err=True)
        return written

    try:
        yield count
    finally:
        if terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
