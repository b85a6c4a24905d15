"""How the fake children read, answer and write down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from fanoutd.child import Child
from fanoutd.lines import LineBuffer, encode


def say(child: Child, *messages: dict[str, Any]) -> None:
    try:
        child.sock.sendall(b"".join(map(encode, messages)))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the end of file follows


def told(child: Child) -> Iterator[dict[str, Any]]:
    """What the master says, until it is gone."""
    lines = LineBuffer()
    while True:
        try:
            data = child.sock.recv(1 << 16)
        except ConnectionResetError:
            return
        if not data:
            return
        yield from lines.messages(data)


def note(child: Child, message: dict[str, Any]) -> None:
    """A line in the file ``events`` of the state directory."""
    line = json.dumps({"role": child.role, "slot": child.slot, "pid": os.getpid(), **message}) + "\n"
    fd = os.open(child.config.daemon.state_dir / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line.encode())
    os.close(fd)
