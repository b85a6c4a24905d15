"""What a forked child is given: the worker's and the dispatcher's ``run(child: Child) -> int``."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from fanoutd.board import Board
from fanoutd.config import Config


@dataclass(frozen=True, slots=True)
class Child:
    """One child's place in the daemon. The dispatcher is in slot 0, workers in 1 to N.

    ``sock`` is the child's end of a socketpair to the master: a blocking stream of JSON lines, whose
    end of file means that the master is gone. SIGTERM has its default action until the child sets a
    handler, and comes too when the master dies; INT, QUIT, HUP, USR1, USR2, TTIN and TTOU are ignored.
    """

    role: str
    slot: int
    generation: int
    config: Config
    node: str
    sock: socket.socket
    board: Board
    master_pid: int
