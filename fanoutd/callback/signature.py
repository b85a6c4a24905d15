"""WeChat's signature of a call-back: SHA-1 of the token and what it signs, sorted and joined.

It signs the address alone (``signature``) or the encrypted body too (``msg_signature``).
"""

from __future__ import annotations

import hashlib
import hmac
import re

#: Seconds by which a request's own timestamp may differ from our clock.
STALE = 300

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def sign(token: str, *parts: str) -> str:
    """The signature of ``parts`` under ``token``, in hex."""
    joined = "".join(sorted((token, *parts))).encode("utf-8", "replace")
    return hashlib.sha1(joined, usedforsecurity=False).hexdigest()


def matches(given: str, token: str, *parts: str) -> bool:
    """Whether ``given`` is that signature, compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), sign(token, *parts).encode())


def is_fresh(timestamp: str, now: float) -> bool:
    """Whether ``timestamp``, in seconds since 1970 as in the address, is within five minutes of ``now``."""
    return bool(_TIMESTAMP.fullmatch(timestamp)) and abs(now - int(timestamp)) <= STALE
