"""The daemon and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fanoutd.view.progress import ACCENT, duration


def show(status: dict[str, Any]) -> None:
    Console(highlight=False).print(picture(status))


def picture(status: dict[str, Any]) -> Group:
    return Group(*_head(status), "", _workers(status["workers"]), "", _facts(status))


def _head(status: dict[str, Any]) -> Iterator[Text]:
    style = ACCENT if status["state"] == "running" else "yellow"
    yield Text.assemble(
        ("fanoutd ", "bold"), status["version"], "  ", (status["state"], style),
        f"  generation {status['generation']}  node {status['node']}  pid {status['pid']}",
        f"  since {status['started_at']}",
    )  # fmt: skip
    for what in ("reload", "upgrade"):
        if status[what]["error"]:
            yield Text(f"the last {what} was refused: {status[what]['error']}", style="yellow")


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("slot", "right"), ("role", "left"), ("pid", "right"), ("state", "left"), ("sent", "right"),
                          ("failed", "right"), ("rate", "right"), ("memory", "right"), ("restarts", "right"),
                          ("campaign", "left")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for w in workers:
        memory = f"{w['rss_bytes'] / 2**20:.0f} MiB" if w["rss_bytes"] else "-"
        table.add_row(
            str(w["slot"]), w["role"], str(w["pid"] or "-"), w["state"], f"{w['sent']:,}", f"{w['failed']:,}",
            f"{w['rate'] or 0:.0f}/s", memory, str(w["restarts"]), w["campaign"] or "-",
        )  # fmt: skip
    return table


def _facts(status: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    store, spool, shards = status["store"], status["spool"], status["shards"]
    answer = f"{store['latency_ms']} ms" if store["ok"] else "does not answer"
    table.add_row("store", f"{store['kind'] or '-'}, {answer}")
    table.add_row("spool", f"{spool['files']} waiting")
    table.add_row("shards", f"{shards['pending']} waiting, {shards['leased']} being sent")
    for account in status["accounts"]:
        table.add_row("account", _account(account))
    for job in status["jobs"]:
        table.add_row("job", f"{job['name']}: {job['result'] or 'not run yet'}, next {job['next'] or '-'}")
    return table


def _account(account: dict[str, Any]) -> str:
    token = account["token"]
    words = f"{account['name']}, {account['rate']:g} calls a second, "
    if token["ok"]:
        return words + f"token good for {duration(token['expires_in'])}"
    return words + f"no good token: {token.get('error') or 'not fetched yet'}"
