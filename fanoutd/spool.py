"""Accepted submissions on disk, a file each, in the shape of a maildir.

``tmp/`` is being written, ``new/`` is safe and waits for the dispatcher, ``keys/`` holds an empty
marker for each idempotency key that was accepted, ``bad/`` what could not be read; ``uploads/`` and
``lists/`` are those of ``fanoutd.uploads``. The master accepts, the dispatcher reads and removes. A
file's name is its campaign's id.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanoutd import failpoint, folders
from fanoutd.uploads import Uploads

_log = logging.getLogger(__name__)

_ID = re.compile(r"[a-z0-9-]{1,64}")
_FILE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


class Spool:
    """The folder ``path``, usually state_dir/spool. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tmp, self._new, self._keys, self._bad = (path / name for name in ("tmp", "new", "keys", "bad"))
        self.uploads = Uploads(path)

    def prepare(self) -> None:
        """Make the folders, throw away half-written files, mend what a crash kept from being marked."""
        for folder in (self.path, self._tmp, self._new, self._keys, self._bad):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half in self._tmp.iterdir():
            half.unlink(missing_ok=True)  # one of a client that is spooling may just become whole
        for campaign in self.pending():
            if not (self._keys / campaign).exists() and (self.read(campaign) or {}).get("key") is not None:
                self._mark(campaign)
        self.uploads.prepare(lambda campaign: (self._new / campaign).exists())

    def accept(self, document: dict[str, Any], keyed: bool) -> None:
        """Keep the document under ``document["campaign"]``. On return it outlives a power failure.

        Raises OSError with nothing kept, no marker either. The document comes before its key's marker:
        the other way round a crash in between would refuse, as a duplicate, what was never accepted.
        """
        campaign = _checked(document["campaign"])
        # The same key may come to the master, to the dispatcher and to a client at a time.
        half = self._tmp / f"{campaign}.{os.getpid()}"
        whole, marker = self._new / campaign, self._keys / campaign
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        made = [half]
        try:
            # Opened before the file has its name: from then on the dispatcher may take it.
            with folders.opened(self._new) as new:
                _write(half, data)
                failpoint.reach("before_accept")
                os.rename(half, whole)
                made = [whole]
                os.fsync(new)
                failpoint.reach("after_accept")
            if keyed and not marker.exists():
                made.append(marker)
                self._mark(campaign)
        except OSError as e:
            _take_back(made)
            raise self._said(e) from None

    def knows(self, campaign: str) -> bool:
        """Whether this id was accepted before, as far back as markers are kept."""
        name = _checked(campaign)
        return (self._keys / name).exists() or (self._new / name).exists()

    def pending(self) -> list[str]:
        """The ids that wait in new/, oldest first."""
        return [name for _, name in sorted(self._waiting())]

    def read(self, campaign: str) -> dict[str, Any] | None:
        """The document; None when it is gone, or damaged and now in bad/."""
        file = self._new / _checked(campaign)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and document.get("v") == 1 and document.get("campaign") == campaign:
            return document
        os.rename(file, self._bad / campaign)
        _log.error("submission %s cannot be read; it is kept as %s", campaign, self._bad / campaign)
        return None

    def people(self, document: dict[str, Any]) -> Iterator[str]:
        """The openids of a document that has a list, its own or an upload. Raises UnknownUpload."""
        if document.get("upload") is not None:
            return self.uploads.people(document["upload"], _checked(document["campaign"]))
        return iter(document["openids"])

    def remove(self, campaign: str) -> None:
        """The store has it now. The key's marker stays."""
        (self._new / _checked(campaign)).unlink(missing_ok=True)
        self.uploads.unbind(campaign)

    def forget(self, campaign: str) -> None:
        """Its key may be used for another one."""
        (self._keys / _checked(campaign)).unlink(missing_ok=True)

    def measure(self, now_s: float) -> tuple[int, float | None]:
        """(files that wait, age of the oldest in seconds or None), at this time of the wall clock."""
        times = [at for at, _ in self._waiting()]
        return len(times), max(0.0, now_s - min(times) / 1e9) if times else None

    def ages(self, now_s: float) -> dict[str, float]:
        """Of what waits in new/, in seconds, at this time of the wall clock."""
        return {name: max(0.0, now_s - at / 1e9) for at, name in self._waiting()}

    def expire_keys(
        self, older_than_s: float, standing: Callable[[list[str]], set[str]], now_s: float | None = None
    ) -> int:
        """Forget the keys accepted longer ago than this, but for those of campaigns that ``standing`` says are there;
        return how many."""
        limit_ns = ((time.time() if now_s is None else now_s) - older_than_s) * 1e9
        old = [entry.name for entry in os.scandir(self._keys) if entry.stat().st_mtime_ns < limit_ns]
        gone = sorted(set(old) - standing(old)) if old else []
        for campaign in gone:
            self.forget(campaign)
        return len(gone)

    def _waiting(self) -> list[tuple[int, str]]:
        """(nanoseconds when it was written, id), while the other side may remove files."""
        found = []
        with os.scandir(self._new) as entries:
            for entry in entries:
                if _ID.fullmatch(entry.name):
                    try:
                        found.append((entry.stat().st_mtime_ns, entry.name))
                    except FileNotFoundError:
                        continue
        return found

    def _mark(self, campaign: str) -> None:
        with folders.opened(self._keys) as keys:
            os.close(os.open(self._keys / campaign, _FILE, 0o600))
            os.fsync(keys)

    def _said(self, error: OSError) -> OSError:
        """The error in words for whoever must help. A folder that has gone is not made again: what
        was its file system may not be mounted, and what is written beneath that would be hidden."""
        folders = (self.path, self._tmp, self._new, self._keys) if error.errno == errno.ENOENT else ()
        gone = next((folder for folder in folders if not folder.is_dir()), None)
        if gone is None:
            return error
        return OSError(errno.ENOENT, f"{gone} is gone; put it back, or restart the daemon to have it made")


def accept(spool: Spool, document: dict[str, Any], keyed: bool) -> None:
    """Keep a submission together with the upload that it names. Raises as accept and bind do, with nothing kept."""
    upload, campaign = document["upload"], document["campaign"]
    if upload is None:
        spool.accept(document, keyed)
        return
    spool.uploads.bind(upload, campaign)
    try:
        spool.accept(document, keyed)
    except OSError:
        with suppress(OSError):  # a list without its document goes at the next start
            spool.uploads.unbind(campaign)
        raise
    spool.uploads.drop(upload)


def _checked(campaign: str) -> str:
    """An id never leads out of its folder."""
    if not _ID.fullmatch(campaign):
        raise ValueError(f"{campaign[:80]!r} is no campaign id")
    return campaign


def _write(file: Path, data: bytes) -> None:
    fd = os.open(file, _FILE | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb", buffering=0) as stream:
        view = memoryview(data)
        while view:
            view = view[stream.write(view):]
        os.fsync(fd)


def _take_back(files: list[Path]) -> None:
    """Remove what was made for a submission that is refused after all: never a marker without its document."""
    for file in reversed(files):
        try:
            file.unlink(missing_ok=True)
        except OSError as e:
            if file.exists():
                _log.error("%s belongs to a submission that was refused, and cannot be removed: %s", file, e.strerror)
