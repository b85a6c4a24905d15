"""A database behind a network of its own: it runs in a network namespace, and each node has a cable to it.

Nothing stands between but the kernel: a cut is a cut, and which connections outlive it TCP decides. Needs root, and
ip(8); run it within ``unshare --net``, so that the machine's own network sees nothing of it.
"""

from __future__ import annotations

import subprocess

from support.mariadb import MariaDb


class Namespace:
    """A network namespace with this name."""

    def __init__(self, name: str) -> None:
        self.name, self._cables = name, 0
        _ip("netns", "add", name)
        self.within("link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command begins with that is to run in it."""
        return ("ip", "netns", "exec", self.name)

    def within(self, *words: str) -> None:
        _ip("-n", self.name, *words)

    def cable(self, server: MariaDb) -> Cable:
        self._cables += 1
        return Cable(self, self._cables, server)

    def close(self) -> None:
        """The cables go with it."""
        _ip("netns", "delete", self.name)


class Cable:
    """From here to the server in the namespace. The words are those of ``support.wire.Wire``."""

    def __init__(self, there: Namespace, number: int, server: MariaDb) -> None:
        self._there, self._here, self._end = there, f"fanout{number}", f"db{number}"
        self.host, self.port = f"10.213.{number}.1", server.port
        _ip("link", "add", self._here, "type", "veth", "peer", "name", self._end, "netns", there.name)
        _ip("address", "add", f"10.213.{number}.2/30", "dev", self._here)
        _ip("link", "set", self._here, "up")
        there.within("address", "add", f"{self.host}/30", "dev", self._end)
        self.mend()

    def silence(self) -> None:
        """Nothing arrives any more, in neither direction, and nobody is told."""
        self._there.within("link", "set", self._end, "down")

    def mend(self) -> None:
        self._there.within("link", "set", self._end, "up")

    def reset(self) -> None:
        """Not for us to do: TCP knows which connections have died."""

    def close(self) -> None:
        _ip("link", "delete", self._here)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
