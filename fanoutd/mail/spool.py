"""Events on disk until they are mailed: a file each, named by its id, complete or not there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fanoutd.mail.event import Event, decode

_log = logging.getLogger(__name__)


class MailSpool:
    """The folder ``path``, usually state_dir/mail. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tmp, self._new = path / "tmp", path / "new"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.path, self._tmp, self._new):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, event: Event) -> None:
        """Keep it. On return it outlives a power failure; one that is there already is replaced by its like."""
        half = self._tmp / f"{event.id}.{os.getpid()}"
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(event.encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(half, self._new / event.id)
        folder = os.open(self._new, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def events(self) -> list[Event]:
        """Those that are not mailed yet, oldest first. What cannot be read is logged and taken away."""
        found = []
        for file in self._new.iterdir():
            try:
                found.append(decode(file.read_bytes()))
            except FileNotFoundError:
                continue
            except ValueError as e:
                _log.error("%s cannot be read, and is taken away: %s", file, e)
                file.unlink(missing_ok=True)
        return sorted(found, key=lambda event: (event.at, event.id))

    def remove(self, event: Event) -> None:
        """It is mailed."""
        (self._new / event.id).unlink(missing_ok=True)
