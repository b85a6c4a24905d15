"""What a forked child is given: the worker's and the dispatcher's ``run(child: Child) -> int``."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fanoutd.board import Board
from fanoutd.config import Config

#: A child's first words to the master, once it can be spoken to.
READY = b'{"t":"ready"}\n'


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all children of a generation have in common: given to its mold, which makes them.

    ``entries`` are the modules that children run, by role. ``sock`` is the mold's end of a
    SOCK_SEQPACKET pair to the master: JSON lines, a request with the child's own socket beside it.
    """

    generation: int
    config: Config
    node: str
    entries: Mapping[str, str]
    board: Board
    master_pid: int
    sock: socket.socket


@dataclass(frozen=True, slots=True)
class Child:
    """One child's place in the daemon. The dispatcher is in slot 0, workers in 1 to N.

    ``row`` is its own on the board: while one worker of a slot replaces another, both have one.
    ``sock`` is the child's end of a socketpair to the master: a blocking stream of JSON lines, whose
    end of file means that the master is gone. SIGTERM has its default action until the child sets a
    handler: it asks to end, and comes too when the master dies; INT, QUIT, HUP, USR1, USR2, TTIN and TTOU are ignored.
    """

    role: str
    slot: int
    generation: int
    config: Config
    node: str
    sock: socket.socket
    board: Board
    row: int
    master_pid: int

    @property
    def name(self) -> str:
        """As in the log: ``dispatcher``, ``worker 3``."""
        return self.role if self.role == "dispatcher" else f"{self.role} {self.slot}"
