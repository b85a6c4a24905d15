"""The safe mode of WeChat's call-back: AES-256-CBC under the EncodingAESKey of the console.

A plaintext is 16 random bytes, the length of the message in 4 bytes (big-endian), the message, the app_id.
"""

from __future__ import annotations

import base64
import binascii
import os
import re

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from fanoutd.callback.errors import Broken, Forged

_AES_KEY = re.compile(r"[A-Za-z0-9+/]{43}", re.ASCII)
_RANDOM, _LENGTH = 16, 4
#: WeChat pads to this, not to the cipher's own 16.
_BLOCK = 32


class Key:
    """One EncodingAESKey: 43 characters, 32 bytes. The first 16 are the vector too, by WeChat's design."""

    def __init__(self, aes_key: str, name: str = "aes_key") -> None:
        """Raises ValueError, which calls the key ``name`` and does not show it."""
        if not _AES_KEY.fullmatch(aes_key):
            raise ValueError(f"{name} must be the 43 letters and digits of WeChat's EncodingAESKey")
        key = base64.b64decode(aes_key + "=")
        self._cipher = Cipher(AES256(key), CBC(key[:16]))

    def seal(self, message: bytes, app_id: str, random: bytes | None = None) -> str:
        """The message, encrypted, in base64. ``random`` is for tests."""
        head = (os.urandom(_RANDOM) if random is None else random) + len(message).to_bytes(_LENGTH, "big")
        encryptor = self._cipher.encryptor()
        data = encryptor.update(_pad(head + message + app_id.encode())) + encryptor.finalize()
        return base64.b64encode(data).decode("ascii")

    def open(self, sealed: str) -> tuple[bytes, bytes]:
        """The message and the app_id that it is for. Raises Broken: not encrypted with this key, or damaged."""
        try:
            data = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            raise Broken("Encrypt is no base64") from None
        if not data or len(data) % 16:
            raise Broken("Encrypt is not made of whole blocks")
        decryptor = self._cipher.decryptor()
        return _parts(_unpad(decryptor.update(data) + decryptor.finalize()))


class Keys:
    """The key in force, and the one before it, which WeChat may still use while the new one spreads."""

    def __init__(self, app_id: str, keys: list[Key]) -> None:
        self.app_id = app_id
        self._keys = keys

    def open(self, sealed: str) -> tuple[bytes, Key]:
        """The message, and the key for the reply. Raises Broken, and Forged when it is for another account."""
        for key in self._keys:
            try:
                message, app_id = key.open(sealed)
            except Broken:
                continue
            if app_id != self.app_id.encode():
                raise Forged("the message is for another app_id")
            return message, key
        raise Broken("no key opens Encrypt; see aes_key and WeChat's console")


def _pad(data: bytes) -> bytes:
    missing = _BLOCK - len(data) % _BLOCK
    return data + bytes([missing]) * missing


def _unpad(data: bytes) -> bytes:
    count = data[-1]
    if not 1 <= count <= _BLOCK or data[-count:] != bytes([count]) * count:
        raise Broken("the padding is not WeChat's")
    return data[:-count]


def _parts(plain: bytes) -> tuple[bytes, bytes]:
    start = _RANDOM + _LENGTH
    end = start + int.from_bytes(plain[_RANDOM:start], "big")
    if len(plain) < start or end > len(plain):
        raise Broken("the encrypted message is shorter than it says")
    return plain[start:end], plain[end:]
