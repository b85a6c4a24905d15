"""``fanoutd send``: submit a campaign, and with --wait see it through."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fanoutd import client
from fanoutd.away import keep
from fanoutd.cli import away
from fanoutd.cli import openids as people
from fanoutd.cli.common import Settings, connected, pass_settings, say
from fanoutd.client import FINAL, Client
from fanoutd.config import Config
from fanoutd.errors import BadInput, FanoutdError, NotNow, Unreachable

#: How long --wait bears a daemon that is away, being restarted for example, in seconds.
PATIENCE = 30.0
#: How long the daemon may count the people of a dry run, in seconds.
_DRY_RUN = 70.0


@click.command()
@click.argument("text", required=False)
@click.option("--file", "file", metavar="FILE|-", help="A submission as a JSON object.")
@click.option("--message", metavar="KIND", help="Which [message.…] to send.")
@click.option("--audience", metavar="NAME", help="Which [audience.…] to send it to.")
@click.option("--openids", metavar="FILE|-", help="Send to these instead: one openid a line, as many as there are.")
@click.option("--test", metavar="OPENID", help="Send to this one person, opt-out and quiet hours aside.")
@click.option("--page", type=int, metavar="K", help="Only the K-th page of the audience, from 0.")
@click.option("--phone", metavar="P", help="The value of {phone}.")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of the message; repeatable.")
@click.option("--at", "send_at", metavar="TIME", help="Not before this time, ISO 8601 with offset.")
@click.option("--cron", metavar="LINE", help='Again and again: five crontab fields like "0 9 * * 1".')
@click.option("--key", metavar="KEY", help="Idempotency key: the same key sends once only.")
@click.option("--reference", metavar="REF", help="Your own name for it.")
@click.option("--account", metavar="NAME", help="Which [account.…] sends.")
@click.option("--dry-run", is_flag=True, help="Send nothing: say how many people, calls and minutes it would be.")
@click.option("--wait", is_flag=True, help="Stay until it ends; exit 0 only if it is done and somebody was reached.")
@click.option("--spool", is_flag=True, help="Keep it if the daemon cannot be reached: it goes out when it is back.")
@click.option("--alert", is_flag=True, help="Mail if the daemon cannot be reached; goes without saying with --spool.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
@pass_settings
def send(
    settings: Settings, /, wait: bool, as_json: bool, dry_run: bool, spool: bool, alert: bool, **given: Any
) -> None:
    """Submit a campaign and print its id."""
    config = settings.reach()
    openids = given.pop("openids")
    params = submission(**given)
    if spool:
        _agree(wait or dry_run or bool(params.get("dry_run")))
        params = keep.with_key(params)
    if openids:
        try:
            params |= people.params(config, openids, _size(params), keep.adding(config) if spool else None)
        except Unreachable as e:  # a list longer than one line is not kept everywhere
            away.lost(config, e, alert or spool)
    if _size(params) > config.daemon.max_request - 200:
        raise BadInput(
            f"the submission is longer than [daemon] max_request = {config.daemon.max_request} bytes; "
            "raise it, or let an [audience.…] query name the people"
        )
    if wait and params.get("cron") is not None:
        raise click.UsageError("--wait waits for one campaign; with --cron there are many")
    if dry_run or params.get("dry_run"):
        _plan(config, params, as_json)
        return
    answer = _submitted(config, params, spool, alert)
    if not as_json:
        click.echo(answer["campaign"])
        if answer["duplicate"]:
            say("this key was used already: that campaign stands, and nothing is sent anew")
    if not wait:
        if as_json:
            click.echo(json.dumps(answer))
        return
    last = see_through(config, answer["campaign"])
    if as_json:
        click.echo(json.dumps({**last, **answer}, ensure_ascii=False))
    judge(last)


def _agree(waits: bool) -> None:
    if waits:
        raise click.UsageError("--spool keeps it when there is no daemon; --wait and --dry-run want one")


def _submitted(config: Config, params: dict[str, Any], spool: bool, alert: bool) -> dict[str, Any]:
    try:
        with connected(config) as connection:
            answer = connection.submit(**params)
    except Unreachable as e:
        if not spool:
            away.lost(config, e, alert)
        return away.kept(config, params, e, alert)
    return {**answer, "spooled": False} if spool else answer


def _plan(config: Config, params: dict[str, Any], as_json: bool) -> None:
    from fanoutd.view import plan, progress

    with connected(config, _DRY_RUN) as connection:
        answer = connection.submit(**{**params, "dry_run": True})
    if as_json:
        click.echo(json.dumps(answer))
    else:
        progress.console().print(plan.table(answer["plan"]))


def submission(*, text: str | None, file: str | None, variables: tuple[str, ...], **given: Any) -> dict[str, Any]:
    """The params of campaign.submit, people aside. Raises BadInput."""
    params: dict[str, Any] = _document(file) if file else {}
    if text is not None:
        params["content"] = text
    if variables:
        data = params.get("data") or {}
        if not isinstance(data, dict):
            raise BadInput("data: an object is wanted")
        params["data"] = {**data, **dict(_variable(each) for each in variables)}
    params |= {name: value for name, value in given.items() if value is not None}
    if text is None and not file and "data" not in params:
        raise BadInput('nothing to send: give a text, as in `fanoutd send "hello"`, or --file')
    return params


def _size(params: dict[str, Any]) -> int:
    """Bytes of the params as they are sent."""
    try:
        return len(json.dumps(params, ensure_ascii=False).encode())
    except UnicodeEncodeError:  # an argument in another encoding; "\\ud800" in a document
        raise BadInput("the submission is not UTF-8 text: look at its encoding") from None


def _document(file: str) -> dict[str, Any]:
    try:
        document = json.loads(_read(file))
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{people.name(file)}: no JSON ({e})") from None
    if not isinstance(document, dict):
        raise BadInput(f"{people.name(file)}: a JSON object is wanted, like {{\"content\": \"…\"}}")
    return document


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--set {text}: NAME=VALUE is wanted")
    return name, value


def _read(file: str) -> str:
    try:
        data: bytes = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{people.name(file)}: not UTF-8 text") from None


def see_through(config: Config, campaign: str) -> dict[str, Any]:
    """Show the campaign's progress on stderr until it ends or pauses; its last object."""
    from fanoutd.view.progress import follow

    return follow(_objects(config, campaign), Console(stderr=True))


def _objects(config: Config, campaign: str) -> Iterator[dict[str, Any]]:
    """The campaign's objects, over restarts of the daemon."""
    away_since: float | None = None
    while True:
        try:
            with Client(config.daemon.socket) as connection:
                for seen in connection.watch(campaign):
                    away_since = None
                    yield seen
            return
        except (client.Unreachable, client.TryAgain) as e:
            away_since = away_since or time.monotonic()
            if time.monotonic() > away_since + PATIENCE:
                raise Unreachable(f"{e}; {campaign} is safe and goes on when it is back") from None
            time.sleep(0.2)


def judge(last: dict[str, Any]) -> None:
    """Raise unless it is done and, if there were people, somebody was reached."""
    from fanoutd.view.progress import line, reached

    say(line(last))
    if last["state"] == "paused":
        raise NotNow(f"campaign {last['id']} is paused: {last['reason'] or 'no reason given'}")
    if last["state"] in FINAL and last["state"] != "done":
        raise FanoutdError(f"campaign {last['id']} is {last['state']}: {last['reason'] or 'no reason given'}")
    if last["total"] and not reached(last):
        raise FanoutdError(f"campaign {last['id']}: nobody was reached; see fanoutd campaign show {last['id']}")
