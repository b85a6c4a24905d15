"""The passive reply: what WeChat shows to the person, in the answer to the push itself."""

from __future__ import annotations

import json
import re
import secrets

from fanoutd.callback.crypto import Key
from fanoutd.callback.signature import sign

#: What XML 1.0 cannot bear.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text_reply(openid: str, account_name: str, text: str, now: int, *, as_json: bool) -> bytes:
    """A text to ``openid`` from ``account_name`` (``gh_…``). It bears the format of the push, as WeChat wants it."""
    fields: dict[str, str | int] = {
        "ToUserName": openid, "FromUserName": account_name, "CreateTime": now, "MsgType": "text",
        "Content": _UNFIT.sub("", text),
    }  # fmt: skip
    return _body(fields, as_json)


def sealed_reply(reply: bytes, key: Key, app_id: str, token: str, now: int, *, as_json: bool) -> bytes:
    """The same in its encrypted and signed cover."""
    sealed, nonce = key.seal(reply, app_id), str(secrets.randbelow(10**10))
    signature = sign(token, str(now), nonce, sealed)
    return _body({"Encrypt": sealed, "MsgSignature": signature, "TimeStamp": now, "Nonce": nonce}, as_json)


def _body(fields: dict[str, str | int], as_json: bool) -> bytes:
    if as_json:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    inside = "".join(f"<{name}>{_value(value)}</{name}>" for name, value in fields.items())
    return f"<xml>{inside}</xml>".encode("utf-8", "replace")


def _value(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return f"<![CDATA[{_UNFIT.sub('', value).replace(']]>', ']]]]><![CDATA[>')}]]>"
