"""An event, or several that were folded, as one mail: multipart text and HTML, right in every client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from html import escape

from fanoutd import secrecy
from fanoutd.config import Config, TokenQuery, addresses, mysql_url
from fanoutd.config.model import Mail
from fanoutd.mail import page
from fanoutd.mail.event import Event
from fanoutd.mail.headers import mailbox, mailboxes, one_line, unstructured
from fanoutd.times import iso

#: Seven bits, and headers as we have folded them.
_POLICY = SMTP.clone(cte_type="7bit", refold_source="none")

#: Characters: of a subject, of an event's line, of a text; bytes of HTML, which cannot be cut and is made anew.
_SUBJECT, _LINE, _TEXT, _HTML = 200, 400, 64 << 10, 512 << 10
#: Of several events so many are told by their lines, and this many more are the last ones.
_FIRST, _LAST = 30, 5

#: Secrets that are shorter cannot be told from ordinary words.
_SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Letterhead:
    """Who writes to whom, and what no mail of his may hold."""

    node: str
    mail: Mail
    hidden: tuple[str, ...] = ()


def letterhead(config: Config, mail: Mail, node: str) -> Letterhead:
    """Of this configuration's mails."""
    known = [each for each in (*config.secrets(), *_passwords(config)) if len(each) >= _SHORTEST]
    return Letterhead(node, mail, secrecy.ordered([*known, *(escape(each) for each in known)]))


def _passwords(config: Config) -> Iterator[str]:
    """Of the databases."""
    urls = [config.store_url, *(each.database for each in config.audiences.values() if each.database)]
    urls += [each.token.database for each in config.accounts.values() if isinstance(each.token, TokenQuery)]
    finishes = (each.on_finish for each in config.messages.values())
    urls += [each.database for each in finishes if each is not None and each.database]
    yield from (mysql_url.parse(url).password for url in urls if url.startswith("mysql:"))


def message_id(ids: Sequence[str], head: Letterhead) -> str:
    """The same for the same events of a node: a server that is told them twice may know."""
    digest = hashlib.blake2b("\0".join([head.node, *sorted(ids)]).encode(), digest_size=15).hexdigest()
    return f"<{digest}@{addresses.split(head.mail.sender)[1].rpartition('@')[2].strip('[]')}>"


def compose(events: Sequence[Event], head: Letterhead, now: float) -> EmailMessage:
    """At least one event; ``now`` in seconds since 1970. Its headers name all of ``[mail] to``."""
    events = [_clean(each, head.hidden) for each in events]
    subject, text, body = _single(events[0]) if len(events) == 1 else _several(events)
    told = f"{iso(events[0].at)[:19]} UTC, node {head.node}"
    letter = EmailMessage(policy=_POLICY)
    raw = {
        "From": _mailbox(head.mail.sender),
        "To": mailboxes(map(_mailbox, head.mail.to)),
        "Subject": unstructured(one_line(f"[fanoutd {head.node}] {subject}", _SUBJECT), len("Subject: ")),
        "Date": formatdate(now),
        "Message-ID": message_id([each.id for each in events], head),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "X-Fanoutd-Node": unstructured(one_line(head.node, _SUBJECT), len("X-Fanoutd-Node: ")),
        "X-Fanoutd-Event": unstructured(events[0].id, len("X-Fanoutd-Event: ")),
    }
    for name, value in raw.items():
        letter.set_raw(name, value)
    letter.set_content(f"{text.rstrip()}\n\n-- \nfanoutd, {told}\n", charset="utf-8")
    letter.add_alternative(page.whole(body, f"fanoutd, {told}"), subtype="html", charset="utf-8")
    return letter


def wire(letter: EmailMessage) -> bytes:
    """As it is handed in."""
    return letter.as_bytes(policy=_POLICY)


def bounded(event: Event) -> Event:
    """The event, of a size that can be kept and mailed."""
    text = event.text.encode("utf-8", "replace").decode()
    if len(text) > _TEXT:
        text = f"{text[:_TEXT]}\n… ({len(text) - _TEXT:,} more characters were cut off)\n"
    html = event.html and event.html.encode("utf-8", "replace").decode()
    if html and len(html) > _HTML:
        html = None
    return replace(
        event, kind=event.kind[:200], subject=one_line(event.subject, _SUBJECT), line=one_line(event.line, _LINE),
        text=text, html=html,
    )  # fmt: skip


def urgent(subject: str) -> bool:
    """Whether somebody should hear of it soon: alerts, and that they are over."""
    return subject.startswith(("ALERT", "all clear"))


def in_short(events: Sequence[Event]) -> str:
    """How the log names a mail."""
    first = events[0].subject if events else "(unreadable)"
    return first if len(events) < 2 else f"{first} (and {len(events) - 1:,} more)"


def _mailbox(line: str) -> str:
    name, address = addresses.split(line)
    return mailbox(one_line(name, _SUBJECT), address)


def _clean(event: Event, hidden: tuple[str, ...]) -> Event:
    event = bounded(event)

    def clean(text: str) -> str:
        return secrecy.without(text, hidden)

    return replace(
        event, subject=clean(event.subject), line=clean(event.line), text=page.visible(clean(event.text)),
        html=event.html and clean(event.html),
    )  # fmt: skip


def _single(event: Event) -> tuple[str, str, str]:
    return event.subject, event.text, event.html or page.of_text(event.text)


def _several(events: Sequence[Event]) -> tuple[str, str, str]:
    """(subject, text, HTML): how many, the first ones' and the last ones' lines, and the one that matters in full."""
    chief = next((each for each in events if urgent(each.subject)), events[0])
    between = f"from {iso(events[0].at)[:19]} to {iso(events[-1].at)[:19]} UTC"
    alike = len({each.kind for each in events}) == 1
    begin = f"{len(events):,} events {'of one kind' if alike else 'together'}, {between}, in this one mail:"
    lines = [_told(each, alike) for each in events[:_FIRST]]
    if left := events[_FIRST:]:
        skipped = max(0, len(left) - _LAST)
        lines += [f"… and {skipped:,} more …"] if skipped else []
        lines += [_told(each, alike) for each in left[-_LAST:]]
    heading = "The first of them in full" if chief is events[0] else f"One of them in full: {chief.subject}"
    text = "\n".join([begin, "", *(f"  {line}" for line in lines), "", f"{heading}:", "", chief.text])
    body = page.of_text(begin) + page.of_list(lines) + page.of_heading(heading) + page.of_text(chief.text)
    return f"{one_line(chief.subject, _SUBJECT - 60)} (and {len(events) - 1:,} more)", text, body


def _told(event: Event, alike: bool) -> str:
    what = event.line or event.subject
    if not alike and event.line and event.line != event.subject:
        what = f"{event.subject}: {event.line}"
    return f"{iso(event.at)[11:19]}  {what}"
