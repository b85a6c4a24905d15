"""A real mail server on loopback, with every misbehaviour that a mail server has."""

from __future__ import annotations

import asyncio
import datetime
import email
import ipaddress
import logging
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)  # clients that break off are what is tested


@dataclass(frozen=True)
class Received:
    """A mail that was taken: ``to`` are the recipients that were not refused."""

    sender: str
    to: list[str]
    raw: bytes
    message: EmailMessage
    at: float

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        return str(_part(self.message, "plain").get_content()).replace("\r\n", "\n")

    @property
    def html(self) -> str:
        return str(_part(self.message, "html").get_content()).replace("\r\n", "\n")


def _part(message: EmailMessage, kind: str) -> Any:
    part = message.get_body((kind,))
    assert part is not None, f"the mail has no {kind} part"
    return part


@dataclass
class Faults:
    """What the server does wrong from now on. ``answers``: for RCPT and DATA, what is said instead, each once, then it
    is as before; ``refused``: by recipient, for ever."""

    refused: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=lambda: {"RCPT": [], "DATA": []})
    #: At "connect" (no greeting), "RCPT" or "DATA" (the mail was taken in whole): nothing is said any more.
    silent: str | None = None
    #: Seconds before each answer; and between one byte of the greeting and the next.
    slow: float = 0.0
    trickle: float = 0.0
    #: Closes the connection in DATA: "early" after the 354, "late" when it has the whole mail and has kept it.
    hang_up: str | None = None


class MailServer:
    """``security``: "plain", "starttls" or "tls", with ``certificate`` (file and key). ``login``: user and password
    that must be given. The port stays the same over ``down`` and ``up``."""

    def __init__(
        self, security: str = "plain", certificate: tuple[Path, Path] | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.security, self.login, self.faults = security, login, Faults()
        self.received: list[Received] = []
        self.connections = 0
        self.port = 0
        self._changed = threading.Condition()
        self._open: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up()

    def __enter__(self) -> MailServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, options: str = "", user: str = "") -> str:
        """For ``[mail] smtp``; ``user``: ``name:password``, percent-encoded, in place of the right one."""
        scheme = {"plain": "smtp", "starttls": "smtp+starttls", "tls": "smtps"}[self.security]
        user = user or (":".join(self.login) if self.login else "")
        return f"{scheme}://{user + '@' if user else ''}127.0.0.1:{self.port}{options}"

    def table(self, options: str = "", *to: str) -> str:
        """A ``[mail]`` table for a configuration."""
        names = ", ".join(f'"{each}"' for each in to or ("ops@example.com",))
        return f'[mail]\nsmtp = "{self.url(options)}"\nfrom = "fanoutd <fanoutd@example.com>"\nto = [{names}]\n'

    def wait_for(
        self, wanted: int | Callable[[list[Received]], Any], seconds: float = 20.0
    ) -> list[Received]:  # fmt: skip
        """The mails so far, once there are so many, or once the predicate likes them; fails after the deadline."""
        def there() -> bool:
            return len(self.received) >= wanted if isinstance(wanted, int) else bool(wanted(self.received))

        with self._changed:
            came = self._changed.wait_for(there, seconds)
            assert came, f"mails within {seconds} s: {[each.subject for each in self.received]}"
            return list(self.received)

    def down(self) -> None:
        """Nothing listens any more; open connections break."""
        self._do(self._down())

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._do(self._up())

    def close(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _up(self) -> None:
        tls = self._tls if self.security == "tls" else None
        self._server = await self._loop.create_server(self._protocol, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self._open):
            transport.abort()  # type: ignore[attr-defined]
        for _ in range(3):  # let the connections see it
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    def _protocol(self) -> asyncio.Protocol:
        self.connections += 1
        if self.faults.silent == "connect" or self.faults.trickle:
            return _Dumb(self)
        return _Smtp(self)

    def keep(self, envelope: Envelope) -> None:
        raw = bytes(envelope.content or b"")
        message = email.message_from_bytes(raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        with self._changed:
            self.received.append(
                Received(envelope.mail_from or "", list(envelope.rcpt_tos), raw, message, time.monotonic())
            )
            self._changed.notify_all()


class _Dumb(asyncio.Protocol):
    """Says nothing, or its greeting letter by letter and never to the end."""

    def __init__(self, owner: MailServer) -> None:
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._owner._open.add(transport)
        self._say()

    def connection_lost(self, _: Exception | None) -> None:
        self._owner._open.discard(self._transport)

    def _say(self) -> None:
        if (pause := self._owner.faults.trickle) and not self._transport.is_closing():
            self._transport.write(b"2")  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(pause, self._say)


class _Smtp(SMTP):
    def __init__(self, owner: MailServer) -> None:
        self._owner = owner
        with warnings.catch_warnings(action="ignore"):
            super().__init__(
                _Hooks(owner), hostname="mx.example.com", ident="a test's", timeout=60,
                tls_context=owner._tls if owner.security == "starttls" else None,
                require_starttls=owner.security == "starttls", auth_required=owner.login is not None,
                auth_require_tls=owner.security == "starttls", authenticator=self._admit,
            )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._owner._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._owner._open.discard(self.transport)
        super().connection_lost(error)

    async def push(self, status: Any) -> None:
        if pause := self._owner.faults.slow:
            await asyncio.sleep(pause)
        await super().push(status)
        if self._owner.faults.hang_up == "early" and str(status).startswith("354"):
            self.transport.abort()

    def _admit(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        user, password = self._owner.login or ("", "")
        given = isinstance(data, LoginPassword) and (data.login, data.password)
        return AuthResult(success=given == (user.encode(), password.encode()), handled=False)


class _Hooks:
    def __init__(self, owner: MailServer) -> None:
        self._owner = owner

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        faults = self._owner.faults
        if faults.silent == "RCPT":
            await asyncio.Event().wait()
        if faults.answers["RCPT"]:
            return faults.answers["RCPT"].pop(0)
        if address in faults.refused:
            return faults.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        faults = self._owner.faults
        if faults.silent == "DATA":
            await asyncio.Event().wait()
        if faults.answers["DATA"]:
            return faults.answers["DATA"].pop(0)
        self._owner.keep(envelope)
        if faults.hang_up == "late":
            server.transport.abort()
        return "250 2.0.0 taken as 4711"


def certificate(folder: Path, name: str = "mx") -> tuple[Path, Path]:
    """One that vouches for 127.0.0.1 and for itself, and its key; the first file is the CA to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    ours, secret = folder / f"{name}.pem", folder / f"{name}.key"
    ours.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    return ours, secret
