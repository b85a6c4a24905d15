"""``on_finish``: what the operator wants done when a campaign has ended, a statement and a command."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

from fanoutd import message
from fanoutd.errors import FanoutdError
from fanoutd.store.campaigns import Campaign
from fanoutd.store.counters import Counts
from fanoutd.times import sql_now
from fanoutd.values import query_values

#: How long a command may take, in seconds.
TIMEOUT = 60.0
#: Bytes of what it wrote last that are looked at for its words, and characters of these that are told.
_TAIL, _WORDS = 2000, 200

Facts = dict[str, str | int | None]

_NOTHING: dict[str, Any] = {"content": None, "phone": None, "data": {}}


class CommandFailed(FanoutdError):
    """It could not be started, took too long, or ended with another code than 0."""


def facts(campaign: Campaign, counts: Counts, timezone: str) -> Facts:
    """The values of ``%(name)s`` and ``{name}``: the submission's, and how the campaign ended. None: was not given.

    An empty text in its place would be 0 to an old MySQL that compares it with a number, and to a new one an error.
    """
    by_state = counts.by_state
    definition = _NOTHING | campaign.definition
    given = query_values(replace(campaign, definition=definition), timezone)
    return {
        **given,
        "content": definition["content"],
        "phone": definition["phone"],
        "reference": campaign.reference,
        "message": campaign.message,
        "page": campaign.definition.get("page"),
        "state": campaign.state,
        "finished_at": sql_now(campaign.finished_at or campaign.created_at, timezone),
        "total": counts.total,
        "sent": sum(count for name, count in by_state.items() if name.startswith("sent_")),
        **{name: by_state[name] for name in ("failed", "skipped", "unknown", "pending")},
    }


#: What a command finds in its environment, as FANOUTD_CAMPAIGN and so on. Not what people wrote.
_TOLD = (
    "campaign", "reference", "account", "message", "state", "finished_at", "total", "sent", "failed", "skipped",
    "unknown", "pending",
)


def environment(known: Facts, inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours without what begins with FANOUTD_, secrets among it, and with the facts."""
    ours = {name: value for name, value in inherited.items() if not name.startswith("FANOUTD_")}
    told = {name: "" if known[name] is None else str(known[name]) for name in _TOLD}
    return ours | {f"FANOUTD_{name.upper()}": value for name, value in told.items()}


def arguments(command: Sequence[str], known: Facts) -> list[str]:
    """The command with its placeholders filled in, each argument by itself: no shell sees it."""
    return ["".join(_filled(part, known) for part in message.parse(each)) for each in command]


def _filled(part: str | message.Name, known: Facts) -> str:
    if isinstance(part, str):
        return part
    value = known.get(part.text)
    return "" if value is None else str(value).replace("\0", " ")  # which cannot stand in an argument


def run(command: Sequence[str], known: Facts, timeout: float = TIMEOUT) -> None:
    """Run it to its end, or kill it and its children. Raises CommandFailed with its last words."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                arguments(command, known), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=environment(known, os.environ), cwd="/",
            )  # fmt: skip
        except OSError as e:
            raise CommandFailed(f"{command[0]}: {e.strerror}") from None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise CommandFailed(f"{command[0]} took longer than {timeout:g} s, and was killed") from None
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            raise CommandFailed(f"{command[0]} {how}{_last_words(said)}")


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TAIL))
    lines = said.read().decode("utf-8", "replace").split("\n")
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {words[:_WORDS]}" if words else ""
