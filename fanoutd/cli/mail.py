"""``fanoutd mail test``: whether mails leave this daemon, in the mail server's own words."""

from __future__ import annotations

import json

import click

from fanoutd.cli.common import Group, Settings, connected, pass_settings
from fanoutd.client import ClientError
from fanoutd.errors import FanoutdError

#: Seconds: longer than the daemon waits for the mail server.
_PATIENCE = 70.0


@click.group(cls=Group)
def mail() -> None:
    """The daemon's own mails."""


@mail.command()
@click.option("--json", "as_json", is_flag=True, help="What the daemon answered.")
@pass_settings
def test(settings: Settings, as_json: bool) -> None:
    """Have one sent now, and print what the mail server said."""
    with connected(settings.reach(), _PATIENCE) as connection:
        try:
            found = connection.call("mail.test")
        except ClientError as e:
            if e.data != {"field": "mail"}:
                raise
            raise FanoutdError(str(e)) from None
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else found["answer"])
