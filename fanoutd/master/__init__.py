"""The master: takes the lock, the socket and the submissions, and keeps the children alive.

``master`` is the loop. Towards clients: ``listener``, ``intake`` (whose turn it is), ``clients`` (bytes),
``rpc``, ``params``, ``submission`` and ``carried`` (pure), ``service`` (what a request means), ``asks`` and
``watches``. Towards children: ``slots`` (pure), ``crew`` (which there should be), ``children`` (the processes),
``forking``, ``channel``, ``post`` (what they say), ``reload``. Besides:
``signals``, ``lock``, ``clock``, ``status``, ``first``; ``daemon`` puts it all together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanoutd.config import Config

if TYPE_CHECKING:
    from fanoutd.master.launch import Launcher
    from fanoutd.master.takeover import Estate


def serve(config: Config, launcher: Launcher | None = None, estate: Estate | None = None) -> int:
    """Run the daemon in this process; returns the exit code when it has ended.

    ``launcher`` waits to hear that it serves; ``estate`` is what the program in whose place we are left.

    Raises FanoutdError before anything is touched that another daemon uses (NotNow: there is one;
    NotPermitted: a folder or file; BadConfig), and when no worker of the first generation gets ready.
    """
    from fanoutd.master.daemon import run  # not above: `stop` and `status` want the lock alone, and soon

    return run(config, launcher=launcher, estate=estate)
