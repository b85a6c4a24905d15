"""``fanoutd doctor``: what could go wrong on this machine, and the mend."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fanoutd.cli.common import Settings, pass_settings

_STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The findings, one a line.")
@click.pass_context
@pass_settings
def doctor(settings: Settings, ctx: click.Context, as_json: bool) -> None:
    """Examine disk, store, clocks, network and daemon. Exit 1 when something must be mended."""
    from fanoutd.doctor import examine

    failed = False
    for finding in examine(settings.load()):
        failed = failed or finding.level == "fail"
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
            continue
        level = click.style(f"{finding.level:<4}", fg=_STYLE[finding.level])
        click.echo(f"{level}  {finding.what}: {finding.words}")
        if finding.mend:
            click.echo(f"      → {finding.mend}")
    ctx.exit(1 if failed else 0)
