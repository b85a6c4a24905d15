"""The daemon and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fanoutd.times import duration, local_ms, parse_when
from fanoutd.view.progress import ACCENT, console, word


def show(status: dict[str, Any]) -> None:
    console().print(picture(status))


def picture(status: dict[str, Any]) -> Group:
    return Group(*_head(status), "", _workers(status["workers"]), "", _facts(status), "", _jobs(status["jobs"]))


def _head(status: dict[str, Any]) -> Iterator[Text]:
    style = ACCENT if status["state"] == "running" else "yellow"
    yield Text.assemble(
        ("fanoutd ", "bold"), word(status["version"]), "  ", (word(status["state"]), style),
        f"  generation {word(status['generation'])}  node {word(status['node'])}  pid {word(status['pid'])}",
        f"  since {word(status['started_at'])}",
    )  # fmt: skip
    for each in status.get("conditions") or ():  # a daemon of an earlier version has none
        if each["state"] == "broken":
            yield Text(f"{each['words']} (since {each['since']})", style="yellow")
    for what in ("reload", "upgrade"):
        if status[what] and status[what]["error"]:
            yield Text(f"the last {what} was refused: {status[what]['error']}", style="yellow")


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("slot", "right"), ("role", "left"), ("pid", "right"), ("state", "left"), ("sent", "right"),
                          ("failed", "right"), ("rate", "right"), ("memory", "right"), ("restarts", "right"),
                          ("campaign", "left")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for w in workers:
        memory = f"{w['rss_bytes'] / 2**20:.0f} MiB" if w["rss_bytes"] else "-"
        table.add_row(*map(Text, (
            word(w["slot"]), word(w["role"]), word(w["pid"]), word(w["state"]), word(w["sent"], "{:,}"),
            word(w["failed"], "{:,}"), word(w["rate"], "{:.0f}/s"), memory, word(w["restarts"]), word(w["campaign"]),
        )))  # fmt: skip
    return table


def _facts(status: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    store, spool, shards = status["store"], status["spool"], status["shards"]
    answer = word(store["latency_ms"], "{} ms") if store["ok"] else store.get("error") or "does not answer"
    lines = [
        ("promise", word(status["promise"])),
        ("store", f"{word(store['kind'])}, {answer}"),
        *([("mail", _mail(status["mail"]))] if status.get("mail") else []),
        ("spool", f"{word(spool['files'])} waiting"),
        ("shards", f"{word(shards['pending'])} waiting, {word(shards['leased'])} being sent"),
        *(("node", _node(node)) for node in status["nodes"] if len(status["nodes"]) > 1),
        *(("account", _account(account)) for account in status["accounts"]),
    ]  # fmt: skip
    for name, words in lines:
        table.add_row(name, Text(words))  # no markup: an error may begin with "[account.main]"
    return table


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    """Those that come next first, as the status has them."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in ("job", "left"), ("next in", "right"), ("took", "right"), ("last", "left"):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for job in jobs:
        left = None if job["next"] is None else max(0.0, (parse_when(job["next"]) - local_ms()) / 1000)
        took = word(job.get("duration_ms"), "{:,} ms")  # null, or a daemon of an earlier version
        table.add_row(*map(Text, (
            word(job["name"]), "-" if left is None else duration(left), took, job["result"] or "not run yet",
        )))  # fmt: skip
    return table


def _mail(mail: dict[str, Any]) -> str:
    words = f"{mail['waiting']} events wait, last sent {mail['last_sent'] or 'never'}"
    return f"{words}; {mail['last_error']}" if mail["last_error"] else words


def _node(node: dict[str, Any]) -> str:
    leads = ", leads" if node.get("leads") else ""
    return f"{word(node['node'])}, heard of {word(node['heartbeat_age'], '{:.0f}')} s ago{leads}"


def _account(account: dict[str, Any]) -> str:
    token = account["token"]
    words = f"{word(account['name'])}, {word(account['rate'], '{:g}')} calls a second, "
    if account.get("part", account["rate"]) != account["rate"]:
        words += f"{word(account['part'], '{:g}')} of them from this node, "
    if token["ok"]:
        expires = token["expires_in"]  # null for one that comes from a database
        return words + ("token good" if expires is None else f"token good for {duration(expires)}")
    return words + f"no good token: {token.get('error') or 'not fetched yet'}"
