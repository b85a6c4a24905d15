"""The program: ``fanoutd``, also as ``python -m fanoutd``."""

from __future__ import annotations

import signal
import sys

#: Those that a daemon heeds. One that comes while it still loads its modules must neither end it nor be lost.
_HEEDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
    signal.SIGTTOU,
)


def main() -> None:
    """The command line. For ``serve`` signals are held back, from here until the master has its handlers."""
    if _command(sys.argv[1:]) == "serve":
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
    from fanoutd.cli import main as command_line

    command_line()


def _command(arguments: list[str]) -> str | None:
    """The first one that is neither an option nor an option's value."""
    rest = iter(arguments)
    for each in rest:
        if each in ("-c", "--config"):
            next(rest, None)
        elif not each.startswith("-"):
            return each
    return None


if __name__ == "__main__":
    main()
