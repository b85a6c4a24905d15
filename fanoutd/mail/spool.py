"""Events on disk until they are mailed: a file each, named by its id, complete or not there.

``new`` holds those that wait; ``sent`` the names of those that were mailed, for a day; ``out`` which events are one
mail that a server may have by now: it is handed in again as it was.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fanoutd.mail.event import Event, decode

_log = logging.getLogger(__name__)

#: Seconds for which an event that is told again is known to be mailed.
REMEMBERED = 86_400.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A mail of these events. ``to``: who of the recipients is to have it still; None: nobody has it. ``since`` is
    seconds since 1970."""

    name: str
    events: tuple[str, ...]
    to: tuple[str, ...] | None
    since: float


class MailSpool:
    """The folder ``path``, usually state_dir/mail. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tmp, self._new, self._sent, self._out = (path / name for name in ("tmp", "new", "sent", "out"))

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.path, self._tmp, self._new, self._sent, self._out):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, event: Event) -> bool:
        """Keep it. On return it outlives a power failure; one that is there already is replaced by its like. False:
        it was mailed within the last day, and is not kept again."""
        if (self._sent / event.id).exists():
            return False
        self._write(self._new / event.id, event.encode())
        return True

    def events(self) -> list[Event]:
        """Those that are not mailed yet, oldest first. What cannot be read is logged and taken away."""
        found = [each for name in self.names() if (each := self.read(name)) is not None]
        return sorted(found, key=lambda event: (event.at, event.id))

    def names(self) -> dict[str, float]:
        """The ids of those that are not mailed yet, and since when they are here, in seconds since 1970."""
        found = {}
        with os.scandir(self._new) as files:
            for file in files:
                try:
                    found[file.name] = file.stat().st_mtime
                except FileNotFoundError:
                    continue
        return found

    def read(self, name: str) -> Event | None:
        """One that is not mailed yet; None when it is not there. What cannot be read is logged and taken away."""
        file = self._new / name
        try:
            return decode(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as e:
            _log.error("%s cannot be read, and is taken away: %s", file, e)
            file.unlink(missing_ok=True)
            return None

    def remove(self, event: Event) -> None:
        """It is mailed."""
        self.settle([event.id])

    def settle(self, names: Iterable[str]) -> None:
        """These are mailed: only their names are kept."""
        for name in names:
            kept = self._sent / name
            try:
                os.rename(self._new / name, kept)
            except FileNotFoundError:
                continue
            os.truncate(kept, 0)
            os.utime(kept)

    def drop(self, names: Iterable[str]) -> None:
        """These are never mailed."""
        for name in names:
            (self._new / name).unlink(missing_ok=True)

    def forget(self, now: float) -> None:
        """The names of those that were mailed long ago, and halves that nobody will complete; ``now`` in seconds since
        1970."""
        for file in (*self._sent.iterdir(), *self._tmp.iterdir()):
            if file.stat().st_mtime < now - REMEMBERED:
                file.unlink(missing_ok=True)

    def last_sent(self) -> float | None:
        """When the last one was mailed, in seconds since 1970, as far as it is known."""
        return max((file.stat().st_mtime for file in self._sent.iterdir()), default=None)

    def pack(self, parcel: Parcel) -> None:
        """Keep it, or keep it as it is now."""
        document = {"events": parcel.events, "to": parcel.to, "since": parcel.since}
        self._write(self._out / parcel.name, json.dumps(document).encode())

    def parcels(self) -> list[Parcel]:
        """Those that are neither mailed nor unpacked."""
        found = []
        for file in self._out.iterdir():
            try:
                said = json.loads(file.read_bytes())
                to = None if said["to"] is None else tuple(said["to"])
                found.append(Parcel(file.name, tuple(said["events"]), to, said["since"]))
            except (ValueError, KeyError, TypeError) as e:
                _log.error("%s cannot be read, and is taken away: %s", file, e)
                file.unlink(missing_ok=True)
        return sorted(found, key=lambda parcel: parcel.since)

    def unpack(self, parcel: Parcel) -> None:
        """It is no more: mailed, or its events wait as they did before."""
        (self._out / parcel.name).unlink(missing_ok=True)

    def _write(self, file: Path, data: bytes) -> None:
        half = self._tmp / f"{file.name}.{os.getpid()}.{threading.get_native_id()}"
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(half, file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
