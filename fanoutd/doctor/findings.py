"""Findings, and the order in which they are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fanoutd.config import Config
from fanoutd.errors import FanoutdError


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` is ok, warn or fail; ``mend`` what to do about it, None when all is well."""

    level: str
    what: str
    words: str
    mend: str | None = None


Check = Callable[[Config], Iterator[Finding]]


def ok(what: str, words: str) -> Finding:
    return Finding("ok", what, words)


def warn(what: str, words: str, mend: str) -> Finding:
    return Finding("warn", what, words, mend)


def fail(what: str, words: str, mend: str) -> Finding:
    return Finding("fail", what, words, mend)


def examine(config: Config) -> Iterator[Finding]:
    """Everything, from the disk upwards."""
    from fanoutd.doctor import daemon, disk, network, store

    checks: tuple[tuple[str, Check], ...] = (
        ("state directory", disk.state_dir), ("fsync", disk.fsync), ("room", disk.room), ("limits", disk.limits),
        ("store", store.store), ("promise", disk.in_force), ("clock", network.clock), ("API", network.api),
        ("mail", network.mail), ("daemon", daemon.daemon),
    )  # fmt: skip
    for what, check in checks:
        try:
            yield from check(config)
        except FanoutdError as e:
            yield fail(what, str(e), "see above")
        except Exception as e:
            yield fail(what, f"cannot be examined: {type(e).__name__}: {e}", "look at it by hand")
