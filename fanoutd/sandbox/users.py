"""The endpoints about people: lists page by page, tags, information."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanoutd.sandbox import bodies
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.followers import Listing
from fanoutd.sandbox.http import Reply, Request, json_reply

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox

#: People in one user/info/batchget.
BATCH = 100

#: The blacklist's page as documented today; once it was as long as the others.
_BLACKLIST_PAGE = 1000


def get(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``GET /cgi-bin/user/get?next_openid=``."""
    everybody = sandbox.followers.all
    total = {"total": len(everybody.openids)}
    return json_reply(total | _page(sandbox, everybody, request.parameter("next_openid")))


def of_tag(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/user/tag/get``."""
    body = bodies.parse(request.body)
    tagid = body.get("tagid")
    tag = sandbox.followers.tags.get(tagid) if isinstance(tagid, int) else None
    if tag is None:
        raise Refused(45159)
    return json_reply(_page(sandbox, tag.members, body.get("next_openid")))


def blacklist(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/tags/members/getblacklist``."""
    body = bodies.parse(request.body)
    listing = sandbox.followers.blacklist
    page = _page(sandbox, listing, body.get("begin_openid"), _BLACKLIST_PAGE)
    return json_reply({"total": len(listing.openids)} | page)


def tags(sandbox: Sandbox, _request: Request, _now: float) -> Reply:
    """``GET /cgi-bin/tags/get``."""
    known = sandbox.followers.tags.items()
    shown = [{"id": number, "name": tag.name, "count": len(tag.members.openids)} for number, tag in known]
    return json_reply({"tags": shown})


def tags_of(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/tags/getidlist``."""
    openid = bodies.check_openid(bodies.parse(request.body).get("openid"))
    return json_reply({"tagid_list": sandbox.followers.tags_of(openid)})


def info(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``GET /cgi-bin/user/info?openid=&lang=``."""
    return json_reply(sandbox.followers.info(request.parameter("openid"), request.parameter("lang")))


def batch_info(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/user/info/batchget``."""
    people = bodies.parse(request.body).get("user_list")
    if not isinstance(people, list) or not 1 <= len(people) <= BATCH:
        raise Refused(40032)
    if not all(isinstance(each, dict) for each in people):
        raise Refused(40031)
    shown = [sandbox.followers.info(each.get("openid"), each.get("lang")) for each in people]
    return json_reply({"user_info_list": shown})


def _page(sandbox: Sandbox, listing: Listing, after: object, most: int = 10_000) -> dict[str, Any]:
    """``count`` and ``next_openid``, and ``data`` unless there is nobody. Raises Refused."""
    size = max(1, min(most, sandbox.options.page_size))
    openids, following = listing.page(after, size, sandbox.options.list_end)
    data = {"data": {"openid": openids}} if openids else {}
    return {"count": len(openids), **data, "next_openid": following}
