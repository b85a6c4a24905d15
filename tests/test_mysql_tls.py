"""TLS to the store's server, and who is let in: a real server with certificates made here."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymysql.err import OperationalError

from fanoutd.config.mysql_url import parse
from fanoutd.mysql import away, words
from fanoutd.store import StoreAway, open_store
from fanoutd.store.schema import VERSION, migrate
from support.bench import CONFIG, wait_for
from support.mariadb import PASSWORD, QUOTED, MariaDb, server

Key = ec.EllipticCurvePrivateKey


class Authority:
    """Vouches for whoever it is asked to, in files of this folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._own = self._sign(self._key, self._subject, [x509.BasicConstraints(ca=True, path_length=None)])
        self.file = self._write(f"{name}.pem", self._own.public_bytes(serialization.Encoding.PEM))

    def vouch(self, name: str, *others: x509.GeneralName) -> tuple[Path, Path]:
        """A certificate with these names, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.ExtensionType] = [x509.SubjectAlternativeName(others)] if others else []
        certificate = self._sign(key, subject, [*names, x509.BasicConstraints(ca=False, path_length=None)])
        return (
            self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(f"{name}.key", key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())),
        )  # fmt: skip

    def _sign(self, key: Key, subject: x509.Name, extensions: list[x509.ExtensionType]) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )  # fmt: skip
        for each in extensions:
            made = made.add_extension(each, critical=isinstance(each, x509.BasicConstraints))
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, content: bytes) -> Path:
        file = self._folder / name
        file.write_bytes(content)
        return file


class Secured:
    """A server that has a certificate for 127.0.0.1, and takes nobody over the network without TLS."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.stranger = Authority(folder, "ca"), Authority(folder, "stranger")
        certificate, key = self.ca.vouch("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        self.ours = self.ca.vouch("fanoutd")
        self.db = MariaDb(
            f"--ssl-ca={self.ca.file}", f"--ssl-cert={certificate}", f"--ssl-key={key}",
            "--require-secure-transport=ON",
        )  # fmt: skip
        self.plain = self.db.database()

    def url(self, **options: object) -> str:
        return f"{self.plain}?{'&'.join(f'{name}={quote(str(value))}' for name, value in options.items())}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("tls"))
    yield made
    made.db.close()


def cipher(url: str) -> str:
    with closing(open_store(url)) as db:
        return str(db.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1])


def refusal(url: str) -> str:
    """In words, of which none is the password."""
    with pytest.raises(StoreAway) as refused:
        open_store(url)
    said = str(refused.value)
    every = said + repr(refused.value) + repr(refused.value.__cause__)
    assert "\n" not in said and PASSWORD not in every and QUOTED not in every
    assert said.startswith("store mysql://127.0.0.1:")
    return said


def test_a_certificate_that_the_ca_vouches_for_is_taken_and_all_is_encrypted(secured: Secured) -> None:
    url = secured.url(ssl_ca=secured.ca.file)
    assert cipher(url).startswith("TLS_")
    with closing(open_store(url)) as db:
        migrate(db)
        assert migrate(db) == VERSION


def test_encrypted_whoever_it_is(secured: Secured) -> None:
    assert cipher(secured.url(ssl="on")).startswith("TLS_")


def test_a_certificate_of_another_ca_is_refused(secured: Secured) -> None:
    said = refusal(secured.url(ssl_ca=secured.stranger.file))
    assert "certificate verify failed" in said and "ssl_ca is not the file" in said


def test_another_name_than_the_certificates_is_refused_unless_the_name_does_not_matter(secured: Secured) -> None:
    secured.plain = secured.plain.replace("127.0.0.1", "localhost")
    try:
        with pytest.raises(StoreAway, match=r"Hostname mismatch.*'localhost'.*ssl_verify_name=off"):
            open_store(secured.url(ssl_ca=secured.ca.file))
        assert cipher(secured.url(ssl_ca=secured.ca.file, ssl_verify_name="off")).startswith("TLS_")
    finally:
        secured.plain = secured.plain.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize("how", ["", "?ssl=off"])
def test_a_server_that_wants_tls_says_so_to_who_comes_without(secured: Secured, how: str) -> None:
    """MariaDB says it as if the password were wrong, MySQL with a number of its own."""
    assert "add ssl_ca=FILE or ssl=on" in refusal(secured.plain + how)
    mysql = OperationalError(3159, "Connections using insecure transport are prohibited")
    assert away(mysql) and "add ssl_ca=FILE or ssl=on" in words(parse(secured.plain + how), mysql)


def test_a_server_without_tls_is_not_spoken_to_in_the_clear_by_who_wants_it() -> None:
    said = refusal(f"{server().database()}?ssl=on")
    assert "the server doesn't support it" in said and "switch TLS on at the server" in said


def test_a_ca_that_cannot_be_read_is_said(secured: Secured, tmp_path: Path) -> None:
    assert str(tmp_path / "none.pem") in refusal(secured.url(ssl_ca=tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("no certificate")
    assert str(tmp_path / "bad.pem") in refusal(secured.url(ssl_ca=tmp_path / "bad.pem"))


def test_our_own_certificate_is_shown_to_who_wants_one(secured: Secured) -> None:
    secured.db.say("CREATE OR REPLACE USER known@'%' IDENTIFIED BY 'x' REQUIRE SUBJECT '/CN=fanoutd'")
    secured.db.say("GRANT ALL ON *.* TO known@'%'")
    before, secured.plain = secured.plain, secured.plain.replace(f"fanout:{QUOTED}", "known:x")
    try:
        certificate, key = secured.ours
        assert cipher(secured.url(ssl_ca=secured.ca.file, ssl_cert=certificate, ssl_key=key)).startswith("TLS_")
        with pytest.raises(StoreAway, match=r"Access denied.*look at user and password"):
            open_store(secured.url(ssl_ca=secured.ca.file))
    finally:
        secured.plain = before


def test_a_wrong_password_is_refused_in_words_without_it(secured: Secured) -> None:
    wrong = secured.url(ssl_ca=secured.ca.file).replace(QUOTED, "wr0ng-" + QUOTED)
    assert "Access denied" in refusal(wrong) and "wr0ng" not in refusal(wrong)


def test_the_daemon_says_it_in_its_log_and_does_not_end(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "fanoutd.toml"
    shutil.copy(secured.stranger.file, tmp_path / "other.pem")
    file.write_text(CONFIG.format(
        url="http://127.0.0.1:9", concurrency=1, rate=1, keepalive="5s", timeout="1s",
        store=secured.plain + "?ssl_ca=other.pem"))  # fmt: skip
    file.chmod(0o600)
    log = tmp_path / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen([sys.executable, "-m", "fanoutd", "-c", str(file), "serve"], stderr=out)
    try:
        wait_for(lambda: "certificate verify failed" in log.read_text(), "its words")
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0
    said = log.read_text()
    assert "Traceback" not in said and PASSWORD not in said and QUOTED not in said
