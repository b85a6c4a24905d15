"""A plain client of the API with a token of its own, for tests of the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from support.sandbox import SandboxProcess

STABLE = "/cgi-bin/stable_token"
CUSTOM = "/cgi-bin/message/custom/send"
TEMPLATE = "/cgi-bin/message/template/send"
SUBSCRIBE = "/cgi-bin/message/subscribe/bizsend"
CREDENTIALS = {"grant_type": "client_credential", "appid": "wx0123456789abcdef", "secret": "any"}
DATA = {"thing1": {"value": "饭好了"}}


class Api:
    """Calls by path. Answers are what the JSON says."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.token = self.session.post(sandbox.url + STABLE, json=CREDENTIALS).json()["access_token"]

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self._call("GET", path, None, query)

    def post(self, path: str, body: object, **query: str) -> dict[str, Any]:
        return self._call("POST", path, json.dumps(body, ensure_ascii=False).encode(), query)

    def custom(self, openid: str = "oPERSON", msgtype: str = "text", content: object = None, **more: object) -> int:
        """The errcode."""
        content = {"content": "你好"} if content is None else content
        body = {"touser": openid, "msgtype": msgtype, msgtype: content, **more}
        return int(self.post(CUSTOM, body)["errcode"])

    def template(self, openid: str = "oPERSON", path: str = TEMPLATE, **more: object) -> dict[str, Any]:
        return self.post(path, {"touser": openid, "template_id": "TPL", "data": DATA} | more)

    def _call(self, method: str, path: str, data: bytes | None, query: dict[str, str]) -> dict[str, Any]:
        query = {"access_token": self.token} | query
        answer = self.session.request(method, self.sandbox.url + path, params=query, data=data, timeout=10)
        document = answer.json()
        assert answer.status_code == 200 and isinstance(document, dict), answer.text
        return document


@contextmanager
def clean_api(sandbox: SandboxProcess) -> Iterator[Api]:
    """A client of a sandbox that others use before and after: what is set here is unset in the end."""
    before = sandbox.set_options()
    api = Api(sandbox)
    yield api
    api.session.close()
    sandbox.set_options(**before)
    sandbox.control("token_error", {})
    sandbox.control("templates", None)
    sandbox.control("followers", {"openids": [], "tags": {}, "blacklist": [], "gone": []})
    sandbox.control("new_day", {"month": True})
