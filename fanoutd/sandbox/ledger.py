"""The ledger: one line of JSON for each message that was accepted, on disk before the answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fanoutd.lines import encode
from fanoutd.times import iso


class Ledger:
    """An append-only JSONL file. Each row is one unbuffered write: no row is ever half there for a reader
    that waits for its newline, and a killed sandbox loses none."""

    def __init__(self, path: Path | None) -> None:
        """``None`` keeps no ledger. Raises OSError when the file cannot be opened."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = None if path is None else os.open(path, flags, 0o600)

    def write(self, channel: str, body: dict[str, Any], now: float, msgid: int | None) -> None:
        """A message accepted at ``now``, seconds since 1970. ``body`` is what the client sent."""
        if self._fd is None:
            return
        row = {"at": iso(int(now * 1000)), "t": now, "channel": channel, "openid": body["touser"]}
        row["body"] = body
        if msgid is not None:
            row |= {"client_msg_id": body.get("client_msg_id"), "msgid": msgid}
        os.write(self._fd, encode(row))

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
