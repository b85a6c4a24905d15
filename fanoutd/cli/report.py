"""``fanoutd campaign report``: what became of a campaign, to be read, kept, or sent on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from fanoutd import __version__
from fanoutd.cli.common import Settings, connected, pass_settings
from fanoutd.errors import FanoutdError

#: Seconds: a million people are counted for some of them.
_PATIENCE = 70.0


@click.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--html", "file", metavar="FILE|-", help="As one page that needs nothing else, into FILE or on stdout.")
@click.option("--json", "as_json", is_flag=True, help="What the report is made of.")
@pass_settings
def report(settings: Settings, campaign_id: str, file: str | None, as_json: bool) -> None:
    """What became of a campaign: the receipt, why some failed, what to do, when it was sent."""
    if file is not None and as_json:
        raise click.UsageError("--html or --json, not both")
    with connected(settings.reach(), _PATIENCE) as connection:
        answer = connection.call("campaign.report", campaign=campaign_id)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    from fanoutd.report.build import build
    from fanoutd.report.page import page
    from fanoutd.report.text import text

    found = build(answer)
    if file is None:
        click.echo(text(found), nl=False)
    else:
        _write(file, page(found, f"Made by fanoutd {__version__}."))


def _write(file: str, document: str) -> None:
    """Whatever the terminal's encoding is, the page says that it is UTF-8. Raises FanoutdError."""
    if file == "-":
        sys.stdout.buffer.write(document.encode())
        sys.stdout.buffer.flush()
        return
    try:
        Path(file).write_bytes(document.encode())
    except OSError as e:
        raise FanoutdError(f"{file}: {e.strerror}; name a file that can be written") from None
