"""``fanoutd sandbox``: the local stand-in for the WeChat API."""

from __future__ import annotations

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from fanoutd.errors import NotNow, NotPermitted
from fanoutd.sandbox.app import Sandbox
from fanoutd.sandbox.ledger import Ledger
from fanoutd.sandbox.options import Options, flag


def _option(switch: Field[Any]) -> click.Option:
    """The option for one of the sandbox's switches."""
    parse, name = switch.metadata["parse"], f"--{switch.name.replace('_', '-')}"
    if parse is flag:
        return click.Option([name], is_flag=True, help=switch.metadata["help"])

    def convert(context: click.Context, parameter: click.Parameter, value: object) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return click.Option(
        [name],
        default=switch.default,
        type=click.UNPROCESSED,
        callback=convert,
        metavar=parse.__name__.upper(),
        help=switch.metadata["help"],
        show_default=True,
    )


@click.command(params=[_option(switch) for switch in fields(Options)])
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free port.")
@click.option("--ledger", type=click.Path(path_type=Path), help="Accepted messages go here, as JSON lines.")
def sandbox(port: int, ledger: Path | None, **switches: Any) -> None:
    """Run a local stand-in for the WeChat API.

    Prints its URL, for api_base, and runs until it is stopped. Any app_id and secret are good.
    """
    import asyncio  # the rest of the command line does without

    from fanoutd.sandbox.server import serve

    try:
        book = Ledger(ledger)
    except OSError as error:
        raise NotPermitted(f"cannot write the ledger {ledger}: {error.strerror}") from None
    try:
        asyncio.run(serve(Sandbox(Options(**switches), book), port, click.echo))
    except OSError as error:
        raise NotNow(f"cannot listen on port {port}: {error.strerror}; choose another --port") from None
    finally:
        book.close()
