"""What every request's body must be, with the errcodes that WeChat gives for it."""

from __future__ import annotations

import json
import re
from typing import Any

from fanoutd.sandbox.errcodes import Refused

_OPENID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u")


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises Refused, for ``\\uXXXX`` escapes too: WeChat wants raw UTF-8."""
    if not data:
        raise Refused(44002)
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise Refused(47001) from None
    if not isinstance(document, dict):
        raise Refused(47001)
    if b"\\u" in data and _ESCAPE.search(data):
        raise Refused(47002)
    return document


def check_openid(value: object) -> str:
    """The openid. Raises Refused unless it can be one."""
    if not isinstance(value, str) or not _OPENID.fullmatch(value):
        raise Refused(40003)
    return value
