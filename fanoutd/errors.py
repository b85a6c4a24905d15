"""What can go wrong for a person at the keyboard, each with the exit code a script may rely on.

The numbers follow sysexits.h, so that cron, init scripts and shells already know them.
"""


class FanoutdError(Exception):
    """One line for the user: what is wrong, where, what to do."""

    exit_code = 1


class BadInput(FanoutdError):
    """A text, JSON document, openid or name that cannot be used (EX_DATAERR)."""

    exit_code = 65


class Unreachable(FanoutdError):
    """The daemon or its store does not answer (EX_UNAVAILABLE)."""

    exit_code = 69


class NotNow(FanoutdError):
    """Right request, wrong moment: a second daemon, a wrong state (EX_TEMPFAIL)."""

    exit_code = 75


class NotPermitted(FanoutdError):
    """The peer or the file system says no (EX_NOPERM)."""

    exit_code = 77


class BadConfig(FanoutdError):
    """The configuration cannot be used (EX_CONFIG)."""

    exit_code = 78
