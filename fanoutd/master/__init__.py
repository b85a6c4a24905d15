"""The master: takes the lock, the socket and the submissions, and keeps the children alive.

``master`` is the loop. Towards clients: ``listener``, ``intake`` (whose turn it is), ``clients`` (bytes),
``rpc``, ``params``, ``submission`` and ``carried`` (pure), ``service`` (what a request means), ``asks`` and
``watches``. Towards children: ``slots`` (pure), ``crew`` (which there should be), ``children`` (the processes),
``forking``, ``channel``, ``post`` (what they say), ``reload``. Besides:
``signals``, ``lock``, ``clock``, ``status``, ``first``; ``daemon`` puts it all together.
"""

from __future__ import annotations

from fanoutd.config import Config


def serve(config: Config) -> int:
    """Run the daemon in the foreground; returns the exit code when it has ended.

    Raises FanoutdError before anything is touched that another daemon uses (NotNow: there is one;
    NotPermitted: a folder or file; BadConfig), and when no worker of the first generation gets ready.
    """
    from fanoutd.master.daemon import run  # not above: `stop` and `status` want the lock alone, and soon

    return run(config)
