"""What WeChat posts to an account's server: XML, its signature, and its encryption in safe mode.

By WeChat's pages on message encryption; the plaintext is padded to blocks of 32 bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

_BLOCK = 32


def xml(fields: Mapping[str, Any]) -> str:
    """The fields as WeChat writes them: text in CDATA, numbers plain, an object nested, a list repeated."""
    return f"<xml>{_elements(fields)}</xml>"


def _elements(fields: Mapping[str, Any]) -> str:
    return "".join(
        f"<{name}>{_text(each)}</{name}>"
        for name, value in fields.items()
        for each in (value if isinstance(value, list) else [value])
    )


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return _elements(value)
    if isinstance(value, int):
        return str(value)
    return f"<![CDATA[{str(value).replace(']]>', ']]]]><![CDATA[>')}]]>"


def signature(*parts: str) -> str:
    """SHA-1 over the sorted parts: token, timestamp, nonce, and what is encrypted."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def seal(text: str, aes_key: str, app_id: str, chance: bytes = b"") -> str:
    """The text in base64, encrypted. ``aes_key`` is an EncodingAESKey; ``chance``: 16 bytes. Raises ValueError."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # only safe mode needs it

    key = base64.b64decode(f"{aes_key}=", validate=True)
    data = text.encode()
    plain = (chance or os.urandom(16)) + len(data).to_bytes(4) + data + app_id.encode()
    padding = _BLOCK - len(plain) % _BLOCK
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


def query(token: str, now: float, sealed: str = "", **more: str) -> str:
    """The query of a push at ``now``: ``signature``, ``timestamp``, ``nonce``, more, and for sealed ones theirs."""
    stamp = (str(int(now)), str(int.from_bytes(os.urandom(4))))
    given = {"signature": signature(token, *stamp), "timestamp": stamp[0], "nonce": stamp[1], **more}
    if sealed:
        given |= {"encrypt_type": "aes", "msg_signature": signature(token, *stamp, sealed)}
    return urlencode(given)
