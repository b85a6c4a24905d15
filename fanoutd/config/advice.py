"""What in a configuration is of no use, or of no good: one line each, for the log and for `config check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fanoutd.config.model import Mail, Message, Schedule
from fanoutd.config.msgtypes import KINDS

#: Keywords of the old templates that WeChat filters out since 4 May 2023 (its announcement).
FILTERED = ("first", "remark")

_A_DAY = 86_400.0


def advice(messages: Iterable[Message]) -> tuple[str, ...]:
    """In the order of the messages."""
    return tuple(
        f"[message.{message.name}.{channel}] {line}"
        for message in messages
        for channel, body in message.bodies.items()
        for line in (_custom(body) if channel == "custom" else _keywords(body))
    )


def _custom(body: Mapping[str, Any]) -> Iterator[str]:
    line = KINDS[body["msgtype"]].advice
    if line is not None:
        yield f"msgtype {body['msgtype']}: {line}"


def _keywords(body: Mapping[str, Any]) -> Iterator[str]:
    data: Mapping[str, Any] = body.get("data", {})
    coloured = [f"data.{key}.color" for key, each in data.items() if "color" in each]
    if coloured:
        yield f"{', '.join(coloured)}: sent as it is, but WeChat shows no colours since 2023"
    filtered = [f"data.{key}" for key in FILTERED if key in data]
    if filtered:
        yield f"{', '.join(filtered)}: sent as it is, but WeChat shows first and remark no more since 2023"


def mail_advice(mail: Mail | None) -> tuple[str, ...]:
    """On the way to the mail server."""
    if mail is None or mail.relay.user is None or mail.relay.host in ("localhost", "127.0.0.1", "::1"):
        return ()
    if mail.relay.security == "plain":
        return ("[mail] smtp: the password crosses the network in the clear; write smtp+starttls:// or smtps://",)
    if not mail.relay.ssl_verify:
        return ("[mail] smtp: ssl_verify=off gives the password to whoever answers; name the authority with ssl_ca",)
    return ()


def retention_advice(schedule: Schedule) -> tuple[str, ...]:
    """On how soon everything is forgotten."""
    if schedule.retention >= _A_DAY:
        return ()
    return (
        f"[schedule] retention: campaigns, their receipts and their keys are gone after {schedule.retention:g} s: what "
        "is submitted again after that is sent again",
    )
