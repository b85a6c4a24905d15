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


def body(environ: dict[str, Any]) -> bytes | None:
    """The body; None when it is too long, shorter than announced, or cannot be read."""
    size = _size(environ)
    if size > LARGEST:
        return None
    try:
        data: bytes = environ["wsgi.input"].read(size if size >= 0 else LARGEST + 1)
    except (OSError, ValueError):
        return None
    return data if size <= len(data) <= LARGEST else None


def _size(environ: dict[str, Any]) -> int:
    """The announced length; -1 when the server marks the end itself (chunked bodies). Rubbish is as if too long."""
    announced = (environ.get("CONTENT_LENGTH") or "").strip()
    if not announced:
        return -1 if environ.get("wsgi.input_terminated") else 0
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 10 else LARGEST + 1
