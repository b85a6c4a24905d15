"""Asking what may never answer: each question in a thread of its own, and nobody waits longer than he wants to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """``value``, or the ``error`` that came instead; or neither, and the question is ``late`` by so many seconds."""

    value: T | None = None
    error: Exception | None = None
    late: float | None = None


class Inquiry(Generic[T]):
    """One question, asked again and again, never a second time while it is under way. For one thread."""

    def __init__(self, step: Callable[[], T], name: str) -> None:
        self._step, self._name = step, name
        self._thread: threading.Thread | None = None
        self._asked = 0.0
        self._answers: list[Answer[T]] = []

    def ask(self) -> None:
        """Begin, unless an earlier question is still under way. An answer that nobody has waited for is dropped."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._answers, self._asked = [], time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(self._answers,), name=self._name, daemon=True)
        self._thread.start()

    def answer(self, patience: float) -> Answer[T]:
        """What came of it, at the latest when it has been under way for so many seconds."""
        assert self._thread is not None
        self._thread.join(max(0.0, self._asked + patience - time.monotonic()))
        return self._answers[0] if self._answers else Answer(late=time.monotonic() - self._asked)

    def _run(self, answers: list[Answer[T]]) -> None:
        try:
            answers.append(Answer(value=self._step()))
        except Exception as e:
            answers.append(Answer(error=e))
