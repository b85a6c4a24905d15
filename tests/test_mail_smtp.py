"""Mail handed in to a real server: how it is reached, and each way in which it misbehaves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.config import smtp_url
from fanoutd.config.smtp_url import parse
from fanoutd.mail.smtp import NoSession, NotSent, Patience, Unclear, session
from support.smtp import MailServer, certificate

DATA = b"Subject: x\r\n\r\n.one\r\n..two\r\n"
PATIENT, SHORT = Patience(), Patience(connect=5, answer=1.0, whole=20)
TO = ("a@example.com", "b@example.com")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as found:
        yield found


def send(url: str, patience: Patience = PATIENT) -> tuple[str, dict[str, str]]:
    with session(parse(url), patience) as opened:
        return opened.send("f@example.com", TO, DATA)


@pytest.mark.parametrize("security", ["plain", "starttls", "tls"])
def test_each_way_in_with_login_and_only_with_a_certificate_that_is_trusted(
    security: str, made: tuple[Path, Path]
) -> None:
    with MailServer(security, made, ("us er", "p@ss:w/rd")) as server:
        right, ca = server.url(user="us%20er:p%40ss%3Aw%2Frd"), f"?ssl_ca={made[0]}"
        trusted = right if security == "plain" else right + ca
        assert send(trusted) == ("250 2.0.0 taken as 4711", {})
        assert server.received[0].raw == DATA and server.received[0].to == list(TO)
        with pytest.raises(NoSession, match="login: 535 ") as refused:
            send(server.url(user="us%20er:not-this-one") + trusted.removeprefix(right))
        assert refused.value.permanent and "not-this-one" not in str(refused.value)
        if security != "plain":
            with pytest.raises(NoSession, match=r"its certificate is not trusted: self-signed certificate; name") as e:
                send(right)
            assert e.value.permanent
            named = right.replace("127.0.0.1", "localhost")
            with pytest.raises(NoSession, match="certificate is not trusted: Hostname mismatch"):
                send(named + ca)
            send(f"{named}{ca}&ssl_verify_name=off")
            send(right + "?ssl_verify=off")
            with pytest.raises(NoSession, match=r"ssl_ca /nowhere/ca\.pem cannot be used: No such file"):
                send(right + "?ssl_ca=/nowhere/ca.pem")


def test_a_password_never_goes_over_in_the_clear_when_tls_was_asked_for(server: MailServer) -> None:
    with pytest.raises(NoSession, match="STARTTLS extension not supported") as e:
        send("smtp+starttls://u:hush@" + server.url().removeprefix("smtp://"))
    assert e.value.permanent
    with pytest.raises(NoSession, match="connect: "):
        send("smtps://u:hush@" + server.url().removeprefix("smtp://"))


def test_a_server_that_is_down_or_says_nothing_is_given_up_in_time(server: MailServer) -> None:
    for where in ("connect", "RCPT"):
        server.faults.silent = where
        began = time.monotonic()
        with pytest.raises(NoSession, match="no answer in time") as e:
            send(server.url(), SHORT)
        assert not e.value.permanent and 0.9 < time.monotonic() - began < 15
    server.down()
    with pytest.raises(NoSession, match=r"127\.0\.0\.1:[0-9]+: connect: Connection refused"):
        send(server.url())


@pytest.mark.parametrize("fault", ["trickle", "slow"])
def test_a_server_that_drips_does_not_hold_it_for_ever(server: MailServer, fault: str) -> None:
    setattr(server.faults, fault, 0.2)  # each byte, and each answer, comes within its time
    began = time.monotonic()
    with pytest.raises((NoSession, Unclear), match=r"not done within 0\.8 s"):
        send(server.url(), Patience(5, 5, 0.8))
    assert time.monotonic() - began < 4.5


def test_refusals_are_told_in_the_servers_words_and_by_how_final_they_are(server: MailServer) -> None:
    for answer, permanent in (("451 4.3.0 come again", False), ("554 5.7.1 spam", True)):
        server.faults.answers["DATA"] = [answer]
        with pytest.raises(NotSent, match=answer) as e:
            send(server.url())
        assert (e.value.permanent, type(e.value)) == (permanent, NotSent)
    server.faults.refused = {TO[0]: "550 no such user"}
    assert send(server.url()) == ("250 2.0.0 taken as 4711", {TO[0]: "550 no such user"})
    assert server.received[-1].to == [TO[1]]
    server.faults.refused[TO[1]] = "450 grey"
    with pytest.raises(NotSent, match=r"no recipient is taken: a@example.com: 550 no such user; b@.*: 450 grey") as e:
        send(server.url())
    assert not e.value.permanent


def test_whether_a_mail_was_taken_is_unclear_when_the_answer_to_it_is_lost(server: MailServer) -> None:
    server.faults.hang_up = "late"
    with pytest.raises(Unclear, match="after DATA: the server hung up"):
        send(server.url())
    assert len(server.received) == 1
    server.faults.hang_up, server.faults.silent = None, "DATA"
    with pytest.raises(Unclear, match="after DATA: no answer in time"):
        send(server.url(), SHORT)


def test_several_mails_go_over_one_connection_and_a_refused_one_spoils_none(server: MailServer) -> None:
    server.faults.answers["DATA"] = ["554 no"]
    with session(parse(server.url()), PATIENT) as opened:
        with pytest.raises(NotSent):
            opened.send("f@example.com", TO, DATA)
        opened.send("f@example.com", TO, DATA)
        opened.send("f@example.com", TO[:1], DATA)
    assert [each.to for each in server.received] == [list(TO), [TO[0]]] and server.connections == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("smtp://", "wants smtp://"),
        ("http://h", "wants smtp://"),
        ("smtp://h:0", "wants smtp://"),
        ("smtp://h:x", "wants smtp://"),
        ("smtp://h/x", "wants smtp://"),
        ("smtps://u:hush@x@h", "user and password are percent-encoded"),
        ("smtps://u:hu#sh@h", "wants smtp://|percent-encoded"),
        ("smtps://u@h", "wants user and password, or neither"),
        ("smtps://u:%E5%AF%86hush@h", "ASCII"),
        ("smtps://h?ssl=on", "has no option 'ssl'; there are ssl_ca"),
        ("smtps://h?ssl_verify=no", "option ssl_verify: wants on or off"),
        ("smtps://h?ssl_ca=", "wants a file"),
        ("smtps://h?ssl_ca=x&ssl_ca=y", "has ssl_ca twice"),
        ("smtps://h?ssl_ca=x&ssl_verify=off", "leave one of them out"),
        ("smtp://h?ssl_ca=x", "is not encrypted"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as e:
        parse(url)
    assert "hush" not in str(e.value)


def test_a_url_says_where_and_how() -> None:
    assert [parse(f"{each}://h").port for each in ("smtp", "smtp+starttls", "smtps")] == [25, 587, 465]
    found = parse("smtps://us%40er:p%3Aw@[::1]:2465?ssl_ca=/ca.pem&ssl_verify_name=off")
    assert (found.user, found.password, found.place) == ("us@er", "p:w", "[::1]:2465")
    assert (found.ssl_ca, found.ssl_verify, found.ssl_verify_name) == ("/ca.pem", True, False)
    assert "p:w" not in repr(found)
    assert smtp_url.below("smtps://u:p%40w@h?ssl_ca=ca.pem", Path("/etc/f")) == "smtps://u:p%40w@h?ssl_ca=/etc/f/ca.pem"
