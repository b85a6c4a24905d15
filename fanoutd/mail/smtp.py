"""Mail handed in: a session with the mail server, bounded in time, and its answers as errors of one line."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fanoutd import secrecy
from fanoutd.config.smtp_url import Relay

#: Characters of a server's words.
_LONGEST = 300
#: Seconds for a farewell, which nothing hangs on.
_GOOD_BYE = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for a connection, for each answer, and for all of a session together."""

    connect: float = 10.0
    answer: float = 30.0
    whole: float = 120.0


class NotSent(Exception):
    """The mail was surely not taken, by nobody. One line with the server's own words. ``permanent``: a 5xx, or
    something else that stays as it is until somebody mends it."""

    def __init__(self, words: str, permanent: bool = False) -> None:
        super().__init__(words)
        self.permanent = permanent


class NoSession(NotSent):
    """Nothing can be handed in to this server just now, whatever it is."""


class Unclear(Exception):
    """The connection ended while the server had the mail: nobody knows whether it was taken."""


class Session:
    """A connection that is ready for mails, one after another."""

    def __init__(self, link: _Link, relay: Relay) -> None:
        self._link, self._relay = link, relay

    def send(self, sender: str, to: Sequence[str], data: bytes) -> tuple[str, dict[str, str]]:
        """(what the server said, by recipient why it was refused). ``data``: lines end in CRLF, seven bits.

        At least one recipient has it on return. Raises NotSent, NoSession, Unclear.
        """
        with self._told("MAIL FROM"):
            self._expect(self._link.mail(sender), "MAIL FROM")
        with self._told("RCPT TO"):
            refused = self._name(to)
        with self._told("DATA"):
            self._link.putcmd("data")
            self._expect(self._link.getreply(), "DATA", NotSent, 354)
        try:
            self._link.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
            code, words = self._link.getreply()
        except (OSError, smtplib.SMTPException) as e:
            raise Unclear(self._words("after DATA", e)) from None
        if code // 100 == 2:
            return f"{code} {_line(words)}", refused
        if code // 100 in (4, 5):
            self._expect((code, words), "after DATA", NotSent)
        raise Unclear(f"{self._relay.place}: after DATA: {_line(words) or 'no answer that anybody knows'}")

    def _name(self, to: Sequence[str]) -> dict[str, str]:
        """Those that the server refuses. Raises NotSent when it is all of them."""
        refused, temporary = dict[str, str](), False
        for each in to:
            code, words = self._link.rcpt(each)
            if code not in (250, 251):
                refused[each] = f"{code} {_line(words)}"
                temporary = temporary or code // 100 != 5
        if len(refused) == len(to):
            self._link.rset()
            said = "; ".join(dict.fromkeys(f"{each}: {words}" for each, words in list(refused.items())[:3]))
            raise NotSent(f"{self._relay.place}: no recipient is taken: {said}", not temporary)
        return refused

    def _expect(
        self, answer: tuple[int, bytes], step: str, kind: type[NotSent] = NoSession, wanted: int = 250
    ) -> None:  # fmt: skip
        code, words = answer
        if code != wanted:
            with suppress(OSError, smtplib.SMTPException):
                self._link.rset()
            raise kind(f"{self._relay.place}: {step}: {code} {_line(words)}", code // 100 == 5)

    @contextmanager
    def _told(self, step: str) -> Iterator[None]:
        try:
            yield
        except (OSError, smtplib.SMTPException) as e:
            raise NoSession(self._words(step, e)) from None

    def _words(self, step: str, error: Exception) -> str:
        return f"{self._relay.place}: {step}: {self._link.late or _said(error)}"


@contextmanager
def session(relay: Relay, patience: Patience) -> Iterator[Session]:
    """A session for mails, closed at the end. Raises NoSession, in words that hold no password."""
    link = None
    try:
        link = _Link(relay, patience)
        yield Session(_greet(link, relay), relay)
    except NoSession as e:
        raise NoSession(_hidden(str(e), relay), e.permanent) from None
    except NotSent as e:
        raise NotSent(_hidden(str(e), relay), e.permanent) from None
    except Unclear as e:
        raise Unclear(_hidden(str(e), relay)) from None
    finally:
        if link is not None:
            link.leave()


def probe(relay: Relay, patience: Patience) -> list[str]:
    """Connect, greet, encrypt, log in, and leave: what was done of these. Nothing is sent. Raises NoSession."""
    with session(relay, patience) as opened:
        opened._expect(opened._link.noop(), "NOOP")
        done = {"plain": [], "starttls": ["STARTTLS"], "tls": ["TLS"]}[relay.security]
        return [*done, *(["login"] if relay.user is not None else [])]


def _greet(link: _Link, relay: Relay) -> _Link:
    step = "connect"
    try:
        code, words = link.open()
        if code != 220:
            raise NoSession(f"{relay.place}: connect: {link.late or f'{code} {_line(words)}'}", code // 100 == 5)
        step = "EHLO"
        link.ehlo_or_helo_if_needed()
        if relay.security == "starttls":
            step = "STARTTLS"
            code, words = link.starttls(context=link.context)
            if code != 220:
                raise NoSession(f"{relay.place}: STARTTLS: {code} {_line(words)}", code // 100 == 5)
            link.ehlo_or_helo_if_needed()
        if relay.user is not None:
            step = "login"
            link.login(relay.user, relay.password)
    except (OSError, smtplib.SMTPException) as e:
        permanent = isinstance(e, ssl.SSLError | smtplib.SMTPNotSupportedError) or _code(e) // 100 == 5
        raise NoSession(f"{relay.place}: {step}: {link.late or _said(e)}", permanent) from None
    return link


class _Link(smtplib.SMTP):
    """A connection that gives up in time, however slowly the server drips: smtplib counts each byte's wait anew."""

    def __init__(self, relay: Relay, patience: Patience) -> None:
        self._relay, self._patience = relay, patience
        self._raw: int | None = None
        self._lock = threading.Lock()
        self.late: str | None = None
        self.context = _context(relay) if relay.security != "plain" else None
        self._watch = threading.Timer(patience.whole, self._give_up)
        self._watch.daemon = True
        super().__init__(local_hostname="localhost", timeout=patience.connect)

    def open(self) -> tuple[int, bytes]:
        """The greeting."""
        self._watch.start()
        self._host = self._relay.host  # the name that STARTTLS looks for in the certificate
        return self.connect(self._relay.host, self._relay.port)

    def leave(self) -> None:
        """A farewell, if there is time for it. What was taken is taken."""
        with suppress(OSError, smtplib.SMTPException):
            if self.sock is not None and self.late is None:
                self.sock.settimeout(_GOOD_BYE)
                self.docmd("QUIT")
        self._watch.cancel()
        self.close()
        with self._lock:
            if self._raw is not None:
                os.close(self._raw)
                self._raw = None

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = socket.create_connection((host, port), timeout)
        sock.settimeout(self._patience.answer)
        self.local_hostname = _own_name(sock)
        with self._lock:
            if self.late:  # the way there has taken all of the time
                sock.close()
                raise TimeoutError
            self._raw = os.dup(sock.fileno())
        if self._relay.security == "tls" and self.context is not None:
            return self.context.wrap_socket(sock, server_hostname=host)
        return sock

    def _give_up(self) -> None:
        """Whoever reads or writes sees the end of the connection, beneath TLS too."""
        with self._lock:
            self.late = f"not done within {self._patience.whole:g} s"
            if self._raw is not None:
                with suppress(OSError), socket.socket(fileno=os.dup(self._raw)) as sock:
                    sock.shutdown(socket.SHUT_RDWR)


def _own_name(sock: socket.socket) -> str:
    """For EHLO: this machine's name if it is a full one, else its address. No name server is asked."""
    name = socket.gethostname()
    if "." in name.strip(".") and re.fullmatch(r"[A-Za-z0-9.-]+", name):
        return name
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _context(relay: Relay) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=relay.ssl_ca)
    except OSError as e:  # ssl.SSLError too
        raise NoSession(f"ssl_ca {relay.ssl_ca} cannot be used: {e.strerror or _said(e)}", permanent=True) from None
    if not (relay.ssl_verify and relay.ssl_verify_name):
        context.check_hostname = False
    if not relay.ssl_verify:
        context.verify_mode = ssl.CERT_NONE
    return context


def _code(error: Exception) -> int:
    return error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else 0


def _said(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        words = error.smtp_error
        return f"{error.smtp_code} {_line(words if isinstance(words, bytes) else str(words).encode())}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; name its authority with ssl_ca"
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "no answer in time"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the server hung up"
    return _line(str(getattr(error, "strerror", None) or error or type(error).__name__).encode())


def _line(words: bytes) -> str:
    text = "".join(each if each.isprintable() else " " for each in words.decode("utf-8", "replace"))
    return " ".join(text.split())[:_LONGEST]


def _hidden(words: str, relay: Relay) -> str:
    """A server may repeat what it was given."""
    return secrecy.without(words, secrecy.ordered([relay.password])) if relay.user is not None else words


def refusals(refused: Mapping[str, str]) -> str:
    """Those of a mail that others have taken, in one line."""
    return "; ".join(f"{each}: {words}" for each, words in refused.items())
