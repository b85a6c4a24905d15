"""``fanoutd subscriber``: who is in the embedded audience, and who takes messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings, say
from fanoutd.cli.people_files import Person, people
from fanoutd.errors import BadInput

#: Lines that are left out and named one by one; the others are counted.
_NAMED = 20

#: People in one request, if max_request allows; and what the request has beside them, in bytes.
_BATCH, _AROUND = 2000, 400

#: How long a sync is waited for, in seconds: a little longer than the daemon has its client wait.
_SYNC = 610.0

_ACCOUNT = click.option("--account", metavar="NAME", help="Of which [account.…].")


@click.group(cls=Group)
def subscriber() -> None:
    """The embedded audience: fill it, look at it, opt people out."""


@subscriber.command("import")
@click.argument("file", metavar="FILE|-")
@_ACCOUNT
@pass_settings
def import_(settings: Settings, file: str, account: str | None) -> None:
    """Take in people: CSV with a header, JSON lines, or one openid a line.

    What else a row says of a person are variables of messages. Whoever has opted out stays so.
    """
    config = settings.reach()
    report = Report("standard input" if file == "-" else file)
    done = 0
    with connected(config, 60.0) as connection, _opened(file) as stream:
        for rows in batches(people(stream, report.bad), config.daemon.max_request - _AROUND, report):
            done += connection.call("subscriber.import", rows=rows, account=account)["count"]
    click.echo(done)
    if report.count:
        raise BadInput(f"{report.file}: {report.count} lines were left out, {done} people imported; mend and repeat")


class Report:
    """Lines that were left out."""

    def __init__(self, file: str) -> None:
        self.file, self.count = file, 0

    def bad(self, line: int, why: str) -> None:
        self.count += 1
        if self.count <= _NAMED:
            say(f"{self.file}:{line}: {why}")


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from None
    with stream:
        yield stream


def batches(found: Iterable[Person], room: int, report: Report) -> Iterator[list[Person]]:
    """Lists that fit into one request each."""
    rows: list[Person] = []
    size = 0
    for person in found:
        own = len(json.dumps(person, ensure_ascii=False).encode()) + 2
        if own > room:
            report.bad(0, "a row that is longer than [daemon] max_request")
            continue
        if rows and (size + own > room or len(rows) == _BATCH):
            yield rows
            rows, size = [], 0
        rows.append(person)
        size += own
    if rows:
        yield rows


@subscriber.command()
@click.option("--tag", type=int, metavar="N", help="Only followers with this tag of WeChat's.")
@_ACCOUNT
@pass_settings
def sync(settings: Settings, tag: int | None, account: str | None) -> None:
    """Pull the followers from WeChat; one that was cut off goes on where it was."""
    with connected(settings.reach(), _SYNC) as connection:
        click.echo(connection.call("subscriber.sync", tag=tag, account=account)["count"])


@subscriber.command("list")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@_ACCOUNT
@pass_settings
def list_(settings: Settings, as_json: bool, account: str | None) -> None:
    """Everybody of whom something is known."""
    after = None
    with connected(settings.reach()) as connection:
        while True:
            page = connection.call("subscriber.list", after=after, account=account)
            for row in page["rows"]:
                click.echo(json.dumps(row, ensure_ascii=False) if as_json else _line(row))
            after = page["next"]
            if after is None:
                return


def _line(row: dict[str, Any]) -> str:
    return f"{row['openid']}  {row['state']:<9}  {row['since']}  {'listed' if row['listed'] else '-'}"


@subscriber.command()
@click.argument("openid")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@_ACCOUNT
@pass_settings
def show(settings: Settings, openid: str, as_json: bool, account: str | None) -> None:
    """One person: whether they take messages, and why not."""
    with connected(settings.reach()) as connection:
        row = connection.call("subscriber.get", openid=openid, account=account)
    if as_json:
        click.echo(json.dumps(row, ensure_ascii=False))
        return
    for name, value in row.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        click.echo(f"{name:<10}  {'-' if value in (None, {}) else shown}")


def _order(name: str, method: str, words: str) -> None:
    @subscriber.command(name, help=words)
    @click.argument("openid")
    @_ACCOUNT
    @pass_settings
    def order(settings: Settings, openid: str, account: str | None) -> None:
        with connected(settings.reach()) as connection:
            connection.call(method, openid=openid, account=account)


_order("opt-out", "subscriber.opt_out", "Nothing more is sent to this person, from the next window on.")
_order("opt-in", "subscriber.opt_in", "This person takes messages, whatever kept them out.")
_order("forget", "subscriber.forget", "Forget the person, their opt-out too.")
