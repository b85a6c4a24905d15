"""What the recorder tells the sending side, and the inbox in which it finds it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from fanoutd.store import tokens
from fanoutd.store.deliveries import Person
from fanoutd.worker.holds import Hold


@dataclass(frozen=True, slots=True)
class Claimed:
    """People to send to."""

    hold: Hold
    people: list[Person]
    last: bool
    """Nobody more is to be claimed from this shard."""
    probe: int | None = None
    """A channel that rests, on which the one among them may be called: it tries whether the rest is over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing more of this shard may be started; hand its people back."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Dry:
    """There is no shard to be had, after ``asked`` calls for people."""

    asked: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The disk is full: nobody was claimed, after ``asked`` calls for people."""

    asked: int
    error: OSError


@dataclass(frozen=True, slots=True)
class TokenRead:
    account: str
    token: tokens.Token | None


@dataclass(frozen=True, slots=True)
class Resting:
    """The account's channels that have no calls left today, all of them, and until when (ms since 1970)."""

    account: str
    channels: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Broken:
    """The recorder failed in a way that it does not know: the worker must end."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything is recorded and given back."""


Word = Claimed | Lost | Dry | NoRoom | TokenRead | Resting | Broken | Finished


class Inbox(deque[Word]):
    """The recorder's thread appends with ``tell``, the sending side takes from the left; ``wake_fd`` is an eventfd."""

    def __init__(self) -> None:
        super().__init__()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def tell(self, word: Word) -> None:
        self.append(word)
        os.eventfd_write(self.wake_fd, 1)
