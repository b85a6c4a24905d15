"""Why a request is refused."""

from __future__ import annotations


class Forged(Exception):
    """Not signed by who knows the token, too old, or for another account: 403."""


class Broken(Exception):
    """Nothing that WeChat would send: 400."""
