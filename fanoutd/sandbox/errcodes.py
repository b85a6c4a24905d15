"""WeChat's refusals: an errcode and the words that come with it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import MappingProxyType

#: As seen in WeChat's documentation and in the error tables of its SDKs.
ERRMSG: Mapping[int, str] = MappingProxyType(
    {
        -1000: "system error",
        -1: "system error",
        0: "ok",
        40001: "invalid credential, access_token is invalid or not latest, "
        "could get access_token by getStableAccessToken",
        40002: "invalid grant_type",
        40003: "invalid openid",
        40004: "invalid media type",
        40005: "invalid file type",
        40006: "invalid meida size",  # WeChat's own spelling
        40007: "invalid media_id",
        40008: "invalid message type",
        40009: "invalid image size",
        40013: "invalid appid",
        40014: "invalid access_token",
        40031: "invalid openid list",
        40032: "invalid openid list size",
        40033: "invalid charset. please check your request, if include \\uxxxx will create fail!",
        40035: "invalid parameter",
        40037: "invalid template_id",
        40038: "invalid packet size",
        40097: "invalid args",
        40125: "invalid appsecret",
        40130: "invalid openid list size, at least two openid",
        40164: "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
        40165: "invalid weapp pagepath",
        40166: "invalid weapp appid",
        40200: "invalid account type",
        40201: "invalid url",
        40202: "invalid action",
        40203: "invalid check_operator",
        40241: "message already sent within a minute",
        40243: "AppSecret is frozen",
        41001: "access_token missing",
        41002: "appid missing",
        41003: "refresh_token missing",
        41004: "appsecret missing",
        41005: "media data missing",
        41006: "media_id missing",
        41007: "sub_menu data missing",
        41008: "missing code",
        41009: "openid missing",
        41028: "invalid form id",
        41029: "form id used count reach limit",
        41030: "invalid page",
        42001: "access_token expired",
        42007: "access_token and refresh_token exception because of user change password",
        43001: "require GET method",
        43002: "require POST method",
        43003: "require https",
        43004: "require subscribe",
        43019: "require remove blacklist",
        43100: "change template too frequently",
        43101: "user refuse to accept the msg",
        43106: "this account may be not certified or punished",
        43107: "subscribe message api is banned because of violation",
        43108: "concurrent sending to one openid",
        43116: "this template is banned because of violation",
        43117: "too many messages to this openid",
        44001: "empty media data",
        44002: "empty post data",
        44003: "empty news data",
        44004: "empty content",
        45002: "content size out of limit",
        45003: "title size out of limit",
        45004: "description size out of limit",
        45005: "url size out of limit",
        45007: "playtime out of limit",
        45008: "article size out of limit",
        45009: "reach max api daily quota limit",
        45011: "api minute-quota reach limit, must slower, retry next minute",
        45012: "template size out of limit",
        45013: "too many template args",
        45014: "template message size out of limit",
        45015: "response out of time limit or subscription is canceled",
        45028: "has no masssend quota",
        45035: "access clientip is not registered, not in ip-white-list",
        45040: "reach max monthly quota limit",
        45047: "out of response count limit",
        45050: "invalid msgtype",
        45051: "link is not allowed",
        45065: "clientmsgid exist",
        45066: "same clientmsgid retry too fast",
        45067: "clientmsgid size out of limit",
        45072: "command out of limit",
        45080: "client not interact within 30s",
        45081: "typing status already set",
        45083: "invalid speed",
        45084: "speed not set",
        45087: "custom message is banned",
        45102: "api is banned for a while",
        45103: "api is not supported",
        45109: "api has been withdrawn",
        45159: "invalid tag",
        45162: "invalid msgtype",
        45168: "banned keyword in the message",
        46004: "user not exist",
        47001: "data format error",
        47002: "do NOT use json unicode encode (\\uxxxx), please use utf8",
        47003: "argument invalid!",
        48001: "api unauthorized",
        48002: "user refuse to accept the msg",
        48003: "user not agree mass-send protocol",
        48004: "api forbidden for irregularities, view detail on mp.weixin.qq.com",
        48006: "forbid to clear quota because of reaching the limit",
        48008: "no permission for this msgtype",
        48009: "api is expired",
        49003: "not match openid with appid",
        50001: "user unauthorized",
        50002: "user limited",
        50004: "user limited because of violation",
        50005: "user is unsubscribed",
        61003: "component is not authorized by this account",
        61004: "access clientip is not registered",
        61007: "api is unauthorized to component",
        61450: "system error",
        61451: "invalid parameter",
        61452: "invalid kf_account",
        61453: "kf_account exsited",  # WeChat's own spelling
        61454: "invalid kf_acount length",
        61455: "illegal character in kf_account",
        61456: "kf_account count exceeded",
        61457: "invalid file type",
        76001: "rid not found",
        76002: "rid is empty or malformed",
        76003: "invalid cgi_path",
        76021: "cgi_path not found",
        76022: "could not use this cgi_path, no permission",
        89501: "ip is waiting for confirmation",
        89502: "ip is waiting for confirmation",
        89503: "this api need administrator confirm",
        89504: "ip is waiting for confirmation",
        89505: "ip is waiting for confirmation",
        89506: "ip is rejected by administrator within 24 hours",
        89507: "ip is rejected by administrator within 1 hour",
    }
)


class Refused(Exception):
    """The call gets this errcode. ``detail`` follows the usual words of errmsg, ``words`` stand in their place."""

    def __init__(self, errcode: int, detail: str = "", words: str = "") -> None:
        super().__init__(errcode, detail)
        self.errcode = errcode
        self.detail = detail
        self.words = words or ERRMSG.get(errcode, "refused")

    def document(self, rid: str = "") -> dict[str, object]:
        """The answer, with a request id at the end of errmsg as the real one."""
        detail = f" {self.detail}" if self.detail else ""
        return {"errcode": self.errcode, "errmsg": f"{self.words}{detail} rid: {rid or new_rid()}"}


def new_rid() -> str:
    """A request id in WeChat's form."""
    chance = os.urandom(8).hex()
    return f"{int(time.time()):08x}-{chance[:8]}-{chance[8:]}"
