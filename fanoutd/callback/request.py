"""What is read of a WSGI request."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fanoutd.callback.errors import Broken

#: Bytes of a body: the largest pushes have a few thousand.
LARGEST = 64 * 1024
_MOST_PARAMETERS = 50


def query(environ: dict[str, Any]) -> dict[str, str]:
    """The address's parameters, the first of each name. Raises Broken."""
    text = environ.get("QUERY_STRING") or ""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="replace")
    except ValueError:
        raise Broken("the address has too many parameters") from None
    return dict(reversed(pairs))


def body(environ: dict[str, Any]) -> bytes:
    """The body. Raises Broken when it is too long, shorter than announced, or cannot be read."""
    size = _size(environ)
    try:
        data: bytes = environ["wsgi.input"].read(LARGEST + 1 if size is None else size)
    except (OSError, ValueError):
        raise Broken("the body cannot be read") from None
    if len(data) > LARGEST or (size is not None and len(data) < size):
        raise Broken("the body is too long, or not as long as was announced")
    return data


def _size(environ: dict[str, Any]) -> int | None:
    """The announced length; None when the server marks the end itself (chunked bodies)."""
    announced = (environ.get("CONTENT_LENGTH") or "").strip()
    if not announced:
        return None if environ.get("wsgi.input_terminated") else 0
    if not (announced.isascii() and announced.isdigit() and len(announced) < 10 and int(announced) <= LARGEST):
        raise Broken("the body is too long, or its length is no number")
    return int(announced)
