"""A mail as it goes over the wire: what every client shows, whatever the event says."""

from __future__ import annotations

import email
import re
from dataclasses import replace
from email import policy
from email.header import decode_header
from email.message import EmailMessage

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fanoutd.config.model import Mail
from fanoutd.mail.event import Event, decode
from fanoutd.mail.letter import Letterhead, bounded, compose, message_id, wire
from fanoutd.secrecy import ordered

TO = ("Ops, all of them <ops@example.com>", "b@example.com")
MAIL = Mail("smtp://mx.example.com", "扇出 <fanoutd@example.com>", TO)
AT = 1_764_246_000_000
HEAD = Letterhead("web1", MAIL, ordered(["a-secret-of-the-tests"]))
EVENT = Event("alert-store-1", "store", "ALERT: 存储不可达", "the store is away", "It is away.\n请检查。", None, AT)


def sent(*events: Event, head: Letterhead = HEAD) -> tuple[bytes, EmailMessage]:
    raw = wire(compose(list(events), head, 1_764_246_000))
    message = email.message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects and not any(part.defects for part in message.walk())
    return raw, message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_chinese_mail_is_right_in_every_client() -> None:
    raw, message = sent(EVENT)
    assert raw.isascii() and b"\n" not in raw.replace(b"\r\n", b"")
    assert message["Subject"] == "[fanoutd web1] ALERT: 存储不可达"
    assert message["From"].addresses[0].display_name == "扇出"
    assert [each.addr_spec for each in message["To"].addresses] == ["ops@example.com", "b@example.com"]
    assert message["To"].addresses[0].display_name == "Ops, all of them"
    assert message["Auto-Submitted"] == "auto-generated" and message["X-Fanoutd-Event"] == "alert-store-1"
    assert message["Date"].datetime.timestamp() == 1_764_246_000
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert "It is away.\n请检查。" in body(message, "plain") and "web1" in body(message, "plain")
    assert "请检查。" in body(message, "html") and "<img" not in body(message, "html")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
@example("ALERT: 存储 away Bcc: x\r\nBcc: evil@example.com")
@example("=?utf-8?B?eA==?= is shown as it is")
@example("x" * 300)
@example("\u202eevil\udcff\x00")
@example("供应信息 " * 40)
def test_no_subject_breaks_a_header_or_gets_lost(subject: str) -> None:
    raw, message = sent(replace(EVENT, subject=subject))
    head = raw.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
    assert all(len(line) <= 250 for line in head) and message["Bcc"] is None
    names = [line.partition(":")[0] for line in head if not line.startswith(" ")]
    assert len(names) == len(set(names)) == 11
    value = re.search(r"^Subject: ((?:.*\r\n )*.*)\r\n[^ ]", raw.decode("ascii"), re.MULTILINE)
    assert value
    words = "".join(part if isinstance(part, str) else part.decode(charset or "ascii")
                    for part, charset in decode_header(value[1].replace("\r\n ", " ")))  # fmt: skip
    assert words == message["Subject"] and "\n" not in words
    clean = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+", " ", subject)
    clean = " ".join(clean.encode("utf-8", "replace").decode().split())
    assert words == f"[fanoutd web1] {clean}".strip() or (words[-1] == "…" and len(words) == 200)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=2000))
@example(".\r\n.\r\nQUIT\r\n")
@example("x" * 2000)
@example("<script>alert('&')</script>")
def test_any_text_arrives_as_it_was_in_lines_that_servers_take(text: str) -> None:
    raw, message = sent(replace(EVENT, text=text))
    assert all(len(line) <= 998 for line in raw.split(b"\r\n")) and raw.isascii()
    shown = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "�", text.encode("utf-8", "replace").decode().replace(
        "\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n"))  # fmt: skip
    assert body(message, "plain").startswith(shown.rstrip())
    assert "<script" not in body(message, "html")


def test_html_of_its_own_is_put_into_our_page_and_a_whole_page_stays_as_it_is() -> None:
    assert "<b>42</b>" in body(sent(replace(EVENT, html="<b>42</b>"))[1], "html")
    assert body(sent(replace(EVENT, html="<!DOCTYPE html><p>x</p>"))[1], "html").strip() == "<!DOCTYPE html><p>x</p>"


def test_a_thousand_events_are_one_mail_that_gives_their_number_and_their_first_lines() -> None:
    events = [replace(EVENT, id=f"e-{n}", line=f"failure {n}", at=EVENT.at + n) for n in range(1000)]
    raw, message = sent(*events)
    assert message["Subject"] == "[fanoutd web1] ALERT: 存储不可达 (and 999 more)" and len(raw) < 20_000
    for kind in ("plain", "html"):
        text = body(message, kind)
        assert "1,000 events of one kind" in text and "failure 0" in text and "failure 29" in text
        assert "and 965 more" in text and "failure 999" in text and "failure 500" not in text
        assert "It is away." in text


def test_what_came_together_is_headed_by_what_is_urgent() -> None:
    other = replace(EVENT, id="x", kind="report", subject="campaign c-1 done: 5 of 5", line="")
    message = sent(other, EVENT)[1]
    assert message["Subject"] == "[fanoutd web1] ALERT: 存储不可达 (and 1 more)"
    assert "campaign c-1 done: 5 of 5" in body(message, "plain")
    assert "ALERT: 存储不可达: the store is away" in body(message, "plain")


def test_no_mail_holds_a_secret_and_none_is_too_large() -> None:
    secrets = "a-secret-of-the-tests mysql://u:hush@db.example/x access_token=hush2&x"
    _, message = sent(replace(EVENT, text=secrets, html=f"<i>{secrets}</i>", line=secrets, subject=f"x {secrets}"))
    shown = body(message, "plain") + body(message, "html") + str(message["Subject"])
    assert "a-secret" not in shown and "hush" not in shown and "***" in shown
    large = bounded(replace(EVENT, text="好" * 100_000, html="x" * 600_000))
    assert "34,464 more characters were cut off" in large.text and large.html is None
    assert len(sent(replace(EVENT, text="好" * 100_000))[0]) < 1 << 20
    assert decode(large.encode()) == large


def test_the_same_events_are_the_same_message_and_other_nodes_write_others() -> None:
    assert message_id(["a", "b"], HEAD) == message_id(["b", "a"], HEAD) != message_id(["a"], HEAD)
    assert message_id(["a"], HEAD) != message_id(["a"], replace(HEAD, node="web2"))
    assert message_id(["a"], HEAD).endswith("@example.com>")


@pytest.mark.parametrize("node", ["db.example.com", "节点"])
def test_a_node_of_any_name_is_in_the_subject(node: str) -> None:
    assert sent(EVENT, head=replace(HEAD, node=node))[1]["Subject"].startswith(f"[fanoutd {node}] ALERT: ")
