"""WeChat's refusals: an errcode and the words that come with it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

#: As seen in WeChat's documentation and in the error tables of its SDKs.
ERRMSG: Mapping[int, str] = {
    -1: "system error",
    0: "ok",
    40001: "invalid credential, access_token is invalid or not latest, "
    "could get access_token by getStableAccessToken",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40007: "invalid media_id",
    40013: "invalid appid",
    40014: "invalid access_token",
    40035: "invalid parameter",
    40037: "invalid template_id",
    40125: "invalid appsecret",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    43004: "require subscribe",
    43101: "user refuse to accept the msg",
    44002: "empty post data",
    44003: "empty news data",
    44004: "empty content",
    45002: "content size out of limit",
    45008: "article size out of limit",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    45015: "response out of time limit or subscription is canceled",
    45047: "out of response count limit",
    45050: "invalid msgtype",
    47001: "data format error",
    47002: "do NOT use json unicode encode (\\uxxxx), please use utf8",
    47003: "argument invalid!",
    48001: "api unauthorized",
    48002: "user refuse to accept the msg",
}


class Refused(Exception):
    """The call gets this errcode. ``detail`` follows the usual words of errmsg."""

    def __init__(self, errcode: int, detail: str = "") -> None:
        super().__init__(errcode, detail)
        self.errcode = errcode
        self.detail = detail

    def document(self) -> dict[str, object]:
        """The answer, with a request id at the end of errmsg as the real one."""
        words = ERRMSG.get(self.errcode, "refused")
        detail = f" {self.detail}" if self.detail else ""
        return {"errcode": self.errcode, "errmsg": f"{words}{detail} rid: {_rid()}"}


def _rid() -> str:
    chance = os.urandom(8).hex()
    return f"{int(time.time()):08x}-{chance[:8]}-{chance[8:]}"
