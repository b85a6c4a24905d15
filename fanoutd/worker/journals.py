"""The journal that a worker writes: begun with it, exchanged when it has become large, kept at its end."""

from __future__ import annotations

from pathlib import Path

from fanoutd.journal import Journal

#: A journal larger than this is exchanged for a new one as soon as no shard is held.
_LARGE = 16 << 20


class Journals:
    """Of the worker ``name`` on ``node``, in ``folder``. Raises OSError if none can be begun."""

    def __init__(self, folder: Path, node: str, name: str) -> None:
        self._folder, self._node, self._name = folder, node, name
        self._serial = 0
        self.current = self._new()

    @property
    def owner(self) -> str:
        """Who takes leases now, as the store names it: this journal tells what became of their people."""
        return f"{self._node}/{self.current.name}"

    @property
    def large(self) -> bool:
        """No shard is leased any more that would be written down in this one."""
        return self.current.size >= _LARGE

    def exchange(self) -> None:
        """No shard is held: if this one is too large, keep it and begin another."""
        if self.large:
            self.current.keep()
            self.current = self._new()

    def _new(self) -> Journal:
        self._serial += 1
        return Journal(self._folder, f"{self._name}-{self._serial}")
