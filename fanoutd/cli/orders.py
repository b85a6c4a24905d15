"""``fanoutd campaign pause``, ``resume``, ``cancel``, ``retry``, ``resolve`` and ``repair``: orders to one campaign."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from fanoutd.cli import openids as people
from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.config import Config

#: Beyond hang_timeout, in seconds: a worker that does not obey is killed first.
_MORE = 15.0

_AT_RISK = (
    "Of {count} people nobody knows whether they have the message: the answers were never seen. Whoever has it gets "
    "it a second time; only a template message of the last minutes is recognized by WeChat as a repeat."
)

json_option = click.option("--json", "as_json", is_flag=True, help="What the daemon answered: campaign and state.")
campaign_argument = click.argument("campaign_id", metavar="ID")


def _order(config: Config, method: str, campaign: str, as_json: bool, **params: Any) -> None:
    with connected(config, config.workers.hang_timeout + _MORE) as connection:
        answer = connection.call(f"campaign.{method}", campaign=campaign, **params)
    click.echo(json.dumps(answer) if as_json else f"{answer['campaign']} {answer['state']}")


@click.command()
@campaign_argument
@json_option
@pass_settings
def pause(settings: Settings, campaign_id: str, as_json: bool) -> None:
    """Stop sending until it is resumed; returns when no request starts any more."""
    _order(settings.reach(), "pause", campaign_id, as_json)


@click.command()
@campaign_argument
@json_option
@pass_settings
def resume(settings: Settings, campaign_id: str, as_json: bool) -> None:
    """Go on where it was paused."""
    _order(settings.reach(), "resume", campaign_id, as_json)


@click.command()
@campaign_argument
@json_option
@pass_settings
def cancel(settings: Settings, campaign_id: str, as_json: bool) -> None:
    """End it for good; returns when no request starts any more. The untried stay pending."""
    _order(settings.reach(), "cancel", campaign_id, as_json)


@click.command()
@campaign_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_settings
def repair(settings: Settings, campaign_id: str, yes: bool, as_json: bool) -> None:
    """After the store came back from a backup: learn from the journals what was sent, and go on."""
    config = settings.reach()
    with connected(config) as connection:
        reason = connection.campaign(campaign_id)["reason"]
    if reason:
        say(reason)
    _ask("Nobody else sends this campaign, and it may go on?", yes)
    _order(config, "repair", campaign_id, as_json)


@click.command()
@campaign_argument
@click.option("--failed", is_flag=True, help="Those whom WeChat refused.")
@click.option("--unknown", is_flag=True, help="Those whose answer was never seen; asks first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_settings
def retry(settings: Settings, campaign_id: str, failed: bool, unknown: bool, yes: bool, as_json: bool) -> None:
    """Send again to those who failed or are unknown."""
    if not (failed or unknown):
        raise click.UsageError("whom? --failed, --unknown, or both")
    config = settings.reach()
    if unknown:
        with connected(config) as connection:
            count = connection.campaign(campaign_id)["counts"]["unknown"]
        if count:
            say(_AT_RISK.format(count=count))
            _ask("Send to them again?", yes)
    _order(config, "retry", campaign_id, as_json, failed=failed, unknown=unknown)


@click.command()
@campaign_argument
@click.option("--sent", "word", flag_value="sent", help="They have it.")
@click.option("--failed", "word", flag_value="failed", help="They do not have it.")
@click.option("--openids", "file", metavar="FILE|-", help="Only these of them, one openid a line.")
@json_option
@pass_settings
def resolve(settings: Settings, campaign_id: str, word: str | None, file: str | None, as_json: bool) -> None:
    """Say what became of the unknown ones."""
    if word is None:
        raise click.UsageError("what became of them? --sent or --failed")
    config = settings.reach()
    openids = None if file is None else list(people.read(file))
    _order(config, "resolve", campaign_id, as_json, **{"as": word, "openids": openids})


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked; --yes if it is what you want")
    click.confirm(question, abort=True, err=True)


ORDERS = (pause, resume, cancel, retry, resolve, repair)
