"""The daemon and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fanoutd.times import duration, local_ms, parse_when
from fanoutd.view import workers
from fanoutd.view.columns import clean
from fanoutd.view.progress import ACCENT, UNFOLDED, console, word
from fanoutd.view.quota import calls_today
from fanoutd.view.receipt import local

#: Results of jobs that nobody needs to hear of, and characters of the others where there is little room.
_NO_NEWS = (None, "ok", "not the leader")
_SAID = 40


def show(status: dict[str, Any]) -> None:
    screen = console()
    screen.print(picture(status, screen.width))


def picture(status: dict[str, Any], width: int = UNFOLDED) -> Group:
    return Group(
        *_head(status, width), *conditions(status), *refusals(status), "", *workers.table(status["workers"], width), "",
        _facts(status), "", _jobs(status["jobs"]),
    )  # fmt: skip


def _head(status: dict[str, Any], width: int) -> Iterator[Text]:
    head = Text.assemble(
        ("fanoutd ", "bold"), word(status["version"]), "  ", state(status),
        f"  generation {word(status['generation'])}  node {word(status['node'])}  pid {word(status['pid'])}",
    )  # fmt: skip
    since = f"since {word(status['started_at'])}"
    if head.cell_len + 2 + len(since) <= width:
        yield head.append(f"  {since}")
    else:
        yield from (head, Text(since))


def state(status: dict[str, Any]) -> Text:
    return Text(word(status["state"]), ACCENT if status["state"] == "running" else "yellow")


def conditions(status: dict[str, Any]) -> Iterator[Text]:
    """What health has found broken, the worst first."""
    for each in status.get("conditions") or ():  # a daemon of an earlier version has none
        if each["state"] == "broken":
            yield Text(clean(f"{each['words'] or word(each['name'])} (since {local(each['since'], None)})"), "red")


def refusals(status: dict[str, Any]) -> Iterator[Text]:
    for what in ("reload", "upgrade"):
        if status[what] and status[what]["error"]:
            yield Text(f"the last {what} was refused: {clean(status[what]['error'])}", "yellow")


def facts(status: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    """Store, mail, spool, shards, nodes and accounts, each in a line: what it is, and its words."""
    store, spool, shards = status["store"], status["spool"], status["shards"]
    answer = word(store["latency_ms"], "{} ms") if store["ok"] else clean(store.get("error") or "does not answer")
    yield "store", Text(f"{word(store['kind'])}, {answer}", "" if store["ok"] else "red")
    if status.get("mail"):
        yield "mail", _mail(status["mail"])
    oldest = spool["oldest_seconds"] if spool["files"] else None
    yield "spool", Text(f"{word(spool['files'])} waiting{'' if oldest is None else f', for {duration(oldest)}'}")
    yield "shards", Text(f"{word(shards['pending'])} waiting, {word(shards['leased'])} being sent")
    yield from (("node", Text(_node(node))) for node in status["nodes"] if len(status["nodes"]) > 1)
    for account in status["accounts"]:
        yield "account", _account(account)
        if account["quota"]:
            yield "quota", _quota(account)


def _facts(status: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, words in ("promise", Text(word(status["promise"]))), *facts(status):
        table.add_row(name, words)  # a Text has no markup: an error may begin with "[account.main]"
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


def jobs_line(jobs: list[dict[str, Any]], now_ms: int) -> Text:
    """In one line: what they have to say, then what comes next."""
    said = [f"{word(job['name'])}: {clean(job['result'])[:_SAID]}" for job in jobs if job["result"] not in _NO_NEWS]
    due = [f"{word(job['name'])} in {duration(max(0, parse_when(job['next']) - now_ms) / 1000)}"
           for job in jobs if job["next"] is not None]  # fmt: skip
    return Text("; ".join(filter(None, (", ".join(said), ", ".join(due)))) or "none")


def clock(ms: int) -> str:
    """``15:04:05``, by this machine's time zone."""
    return f"{datetime.fromtimestamp(ms / 1000):%H:%M:%S}"


def _mail(mail: dict[str, Any]) -> Text:
    last = local(mail["last_sent"], None) if mail["last_sent"] else "never"
    error = f"; {clean(mail['last_error'])}" if mail["last_error"] else ""
    return Text(f"{word(mail['waiting'])} events wait, last sent {last}{error}", "yellow" if error else "")


def _node(node: dict[str, Any]) -> str:
    leads = ", leads" if node.get("leads") else ""
    return f"{word(node['node'])}, heard of {word(node['heartbeat_age'], '{:.0f}')} s ago{leads}"


def _account(account: dict[str, Any]) -> Text:
    token = account["token"]
    words = f"{word(account['name'])}, {word(account['rate'], '{:g}')} calls a second, "
    if account.get("part", account["rate"]) != account["rate"]:
        words += f"{word(account['part'], '{:g}')} of them from this node, "
    if not token["ok"]:
        return Text(f"{words}no good token: {clean(token.get('error') or 'not fetched yet')}", "red")
    expires = token["expires_in"]  # null for one that comes from a database
    words += "token good" if expires is None else f"token good for {duration(expires)}"
    return Text(words)


def _quota(account: dict[str, Any]) -> Text:
    ended = any(each["left"] == 0 for each in account["quota"].values())
    return Text(f"{word(account['name'])}, {calls_today(account['quota'])}", "yellow" if ended else "")
