"""``fanoutd migrate``: the store into another database."""

from __future__ import annotations

import json
import sys

import click

from fanoutd.cli.common import Settings, pass_settings, say
from fanoutd.config import Config, mysql_url, values

_HELP = "mysql://user:password@host:3306/database, or sqlite:///path; - reads it from stdin, where ps does not see it."


@click.command()
@click.option("--to", "url", metavar="URL", help=_HELP)
@click.option("--undo", is_flag=True, help="Let the moved store be served again, if nothing was sent from the other.")
@click.option("--json", "as_json", is_flag=True, help="What was copied, as one object.")
@pass_settings
def migrate(settings: Settings, url: str | None, undo: bool, as_json: bool) -> None:
    """Move a stopped daemon's store into another database. The old one stays, marked, and is served no more."""
    from fanoutd import moving

    if undo == (url is not None):
        raise click.UsageError("where to? --to URL; or --undo alone")
    config = settings.load()
    if url is None:
        before = moving.undo(config)
        say("it was not moved: nothing to undo" if before is None else f"this store may be used again; not {before}")
        return
    url = _target(sys.stdin.readline().strip() if url == "-" else url, config)
    on_terminal = sys.stderr.isatty()

    def progress(table: str, rows: int) -> None:
        if on_terminal:
            click.echo(f"\r\x1b[K{table}: {rows:,} rows", nl=False, err=True)

    try:
        moved = moving.move(config, url, progress)
    finally:
        if on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        told = {"from": moved.source, "to": moved.target, "tables": moved.tables, "seconds": round(moved.seconds, 3)}
        click.echo(json.dumps(told))
        return
    rows = sum(moved.tables.values())
    click.echo(f"{rows:,} rows were copied from {moved.source} to {moved.target}, read back and found the same:")
    for table, count in moved.tables.items():
        click.echo(f"  {table:<20} {count:>12,}")
    click.echo(f"Now change [store] in {config.path} (on every node), and then start the daemon:")
    click.echo(f'  url = "{values.masked(url)}"')
    say(f"{moved.source} is kept, with a mark: no daemon serves it any more (`fanoutd migrate --undo` takes it off)")
    for name in _readers(config):
        say(f"[audience.{name}] has no database of its own and uses the store's: its tables were not copied, "
            "give it a line `database = …`")  # fmt: skip


def _target(url: str, config: Config) -> str:
    """As the same words in the configuration would be understood."""
    try:
        return mysql_url.below(values.in_full(values.store_url(url), config.daemon.state_dir), config.path.parent)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--to") from None


def _readers(config: Config) -> list[str]:
    return [
        each.name for each in config.audiences.values()
        if each.database is None and (each.query or each.on_opt_out or each.on_opt_in or each.on_gone)
    ]  # fmt: skip
