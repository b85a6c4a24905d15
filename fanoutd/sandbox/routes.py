"""The paths of the API: who answers them, with which verb, and what they count as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from fanoutd.sandbox import access, operations, sending, users
from fanoutd.sandbox.http import Reply, Request
from fanoutd.sandbox.options import Options

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox

Endpoint = Callable[["Sandbox", Request, float], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """``endpoint`` may raise Refused. ``channel``: the call sends. ``token``: it wants an access token."""

    method: str
    endpoint: Endpoint
    channel: str = ""
    token: bool = True

    def limit(self, options: Options) -> int:
        """Calls a day, 0 for any number."""
        if self.channel == "custom":
            return options.quota_custom
        if self.channel == "template":
            return options.quota_template
        return options.quota_subscribe if self.channel else 0


_MESSAGE = "/cgi-bin/message"

API: Mapping[str, Route] = MappingProxyType(
    {
        "/cgi-bin/token": Route("GET", access.token, token=False),
        "/cgi-bin/stable_token": Route("POST", access.stable_token, token=False),
        f"{_MESSAGE}/custom/send": Route("POST", sending.custom, "custom"),
        f"{_MESSAGE}/custom/typing": Route("POST", sending.typing),
        f"{_MESSAGE}/template/send": Route("POST", sending.template, "template"),
        f"{_MESSAGE}/subscribe/bizsend": Route("POST", sending.subscribe, "subscribe"),
        "/cgi-bin/template/get_all_private_template": Route("GET", operations.all_templates),
        "/cgi-bin/user/get": Route("GET", users.get),
        "/cgi-bin/user/info": Route("GET", users.info),
        "/cgi-bin/user/info/batchget": Route("POST", users.batch_info),
        "/cgi-bin/user/tag/get": Route("POST", users.of_tag),
        "/cgi-bin/tags/get": Route("GET", users.tags),
        "/cgi-bin/tags/getidlist": Route("POST", users.tags_of),
        "/cgi-bin/tags/members/getblacklist": Route("POST", users.blacklist),
        "/cgi-bin/clear_quota": Route("POST", operations.clear_quota),
        "/cgi-bin/clear_quota/v2": Route("POST", operations.clear_quota_v2, token=False),
        "/cgi-bin/openapi/quota/clear": Route("POST", operations.clear_one_quota),
        "/cgi-bin/openapi/quota/get": Route("POST", operations.get_quota),
        "/cgi-bin/openapi/rid/get": Route("POST", operations.get_rid),
        "/cgi-bin/get_api_domain_ip": Route("GET", operations.ip_list),
        "/cgi-bin/getcallbackip": Route("GET", operations.ip_list),
        "/cgi-bin/callback/check": Route("POST", operations.check_callback),
    }
)
