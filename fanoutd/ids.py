"""Ids of people, messages and campaigns. The last: ``[a-z0-9-]``, sortable by time, or derived from a key."""

from __future__ import annotations

import base64
import hashlib
import os
import re

#: What an openid looks like; WeChat's have 28 characters today, which is not to be relied on.
OPENID = re.compile(r"[A-Za-z0-9_-]{6,64}")


def _text(data: bytes) -> str:
    return base64.b32hexencode(data).decode("ascii").rstrip("=").lower()


def new_campaign_id(now_ms: int) -> str:
    """A fresh id; ids made later sort later (48 bits of milliseconds, 40 of chance)."""
    return "c-" + _text(now_ms.to_bytes(6, "big") + os.urandom(4))


def keyed_campaign_id(account: str, key: str) -> str:
    """The one id of this account and idempotency key, on every node and for ever."""
    digest = hashlib.blake2b(f"{account}\0{key}".encode(), digest_size=15, person=b"fanoutd-key").digest()
    return "k-" + _text(digest)


def client_msg_id(account: str, campaign: str, openid: str, generation: int) -> str:
    """The key under which WeChat sends a template message to a person once only (26 characters).

    The same for every attempt of which no definite refusal was seen: WeChat then drops the repeat.
    """
    subject = f"{account}\0{campaign}\0{openid}\0{generation}".encode()
    return _text(hashlib.blake2b(subject, digest_size=16, person=b"fanoutd-msg").digest())
