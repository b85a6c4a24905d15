"""Connections to servers of MySQL's protocol, made so that a dead one is noticed; and what their errors mean.

Imported only where such a server is configured: PyMySQL stays out of every other process.

How somebody proves who he is is PyMySQL's: ``mysql_native_password``, and MySQL 8's ``caching_sha2_password`` and
``sha256_password``, which send the password as it is over TLS or a Unix socket, and without them under the server's
RSA key, for which PyMySQL needs ``cryptography`` (installed with us; ``pymysql[rsa]``). The latter two are not tried
here: MariaDB has neither.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, CR, ER, FIELD_TYPE
from pymysql.converters import conversions, encoders
from pymysql.cursors import Cursor

from fanoutd.config.mysql_url import Server

#: Seconds for the connection to be there, its handshake included.
CONNECT_TIMEOUT = 5.0

#: Seconds until a peer that acknowledges nothing is given up (tcp(7), TCP_USER_TIMEOUT and the keepalive's).
_SILENCE = 10

#: The transaction was undone by the server for the sake of another one, and may be repeated at once: deadlock, lock
#: wait, and Galera's certification failure (which comes as a deadlock).
BUSY = frozenset({ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.CHECKREAD})

#: The connection is of no use any more, whatever the server does next.
_LOST = frozenset({
    CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_COMMANDS_OUT_OF_SYNC, CR.CR_SERVER_LOST_EXTENDED, 0,
})  # fmt: skip

#: Numbers that PyMySQL has no name for: a server that became another's replica, or was told to end connections.
READ_ONLY = frozenset({ER.OPTION_PREVENTS_STATEMENT, 1792, 1836})
_KILLED = frozenset({ER.SERVER_SHUTDOWN, ER.QUERY_INTERRUPTED, 1927, 4031})

#: A COMMIT that failed so may have gone through for all that.
IN_DOUBT = frozenset({ER.ERROR_DURING_COMMIT, ER.QUERY_INTERRUPTED})

#: What SUM() gives is a DECIMAL; ours are whole.
_CONVERSIONS: Any = {
    **conversions,
    FIELD_TYPE.NEWDECIMAL: lambda text: int(text) if text.lstrip("-").isdigit() else float(text),
}

#: No value that comes is made into anything.
_ENCODERS: Any = encoders

MysqlError = pymysql.err.MySQLError

T = TypeVar("T")


def connect(
    server: Server, read_timeout: float, cursorclass: type[Cursor] = Cursor, whole_numbers: bool = False,
    raw: bool = False, together: bool = False,
) -> Connection[Any]:
    """Autocommitting, and counting matched rows as changed. Raises MysqlError, OSError.

    ``read_timeout``: seconds that a statement may take. ``whole_numbers``: decimals come as int. ``raw``: every value
    comes as the bytes that the server writes. ``together``: several statements may be sent at once, with ``;`` between
    them.
    """
    link: Connection[Any] = pymysql.connect(
        host=server.host, user=server.user, password=server.password, database=server.database, port=server.port,
        unix_socket=server.socket, charset=server.charset, autocommit=True, defer_connect=True,
        connect_timeout=CONNECT_TIMEOUT, read_timeout=CONNECT_TIMEOUT, write_timeout=read_timeout,
        client_flag=CLIENT.FOUND_ROWS | (CLIENT.MULTI_STATEMENTS if together else 0), cursorclass=cursorclass,
        ssl=_tls(server),
        ssl_disabled=not server.ssl,  # else it is tried with whoever offers it, and old servers' is not spoken any more
        conv=_ENCODERS if raw else _CONVERSIONS if whole_numbers else None, use_unicode=not raw,
    )  # fmt: skip
    link.connect(None if server.socket else _dial(server))
    link._read_timeout = read_timeout  # type: ignore[attr-defined]  # the handshake's was another
    if server.ssl and not isinstance(link._sock, ssl.SSLSocket):  # type: ignore[attr-defined]
        abandon(link)  # older versions of PyMySQL go on in the clear
        raise pymysql.err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server offers no TLS")
    return link


def _dial(server: Server) -> socket.socket:
    """A peer that vanished without a word is noticed in seconds, not in the kernel's two hours."""
    sock = socket.create_connection((server.host, server.port), CONNECT_TIMEOUT)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE * 1000)
    return sock


def _tls(server: Server) -> ssl.SSLContext | None:
    if not server.ssl:
        return None
    context = _named(server.ssl_ca, lambda: ssl.create_default_context(cafile=server.ssl_ca))
    context.check_hostname = bool(server.ssl_ca) and server.ssl_verify_name
    if not server.ssl_ca:
        context.verify_mode = ssl.CERT_NONE
    if server.ssl_cert:
        chain = server.ssl_cert, server.ssl_key
        _named(" or ".join(map(str, chain)), lambda: context.load_cert_chain(*chain))
    return context


def _named(file: str | None, read: Callable[[], T]) -> T:
    """Errors of a file that do not say which one."""
    try:
        return read()
    except OSError as e:
        raise OSError(e.errno, f"{file}: {e.strerror or e}") from None


def abandon(link: Connection[Any]) -> None:
    """Close it without a word to the server, which may not listen any more: ``close`` would write, and wait."""
    link._force_close()  # type: ignore[attr-defined]  # the types do not know it; PyMySQL's own way after an error


def number(error: BaseException) -> int:
    """MySQL's number of an error, 0 where it has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


#: The server takes nobody without TLS.
TLS_REQUIRED = 3159

#: Trouble that passes, or that an operator ends without touching us: no connection, too many of them, a user or a
#: database that is not there yet, a disk that is full, a node of a cluster that is not ready.
_AWAY = frozenset({
    ER.CON_COUNT_ERROR, ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.BAD_DB_ERROR, ER.TABLEACCESS_DENIED_ERROR,
    ER.DISK_FULL, ER.RECORD_FILE_FULL, ER.OUT_OF_RESOURCES, ER.OUTOFMEMORY, ER.USER_LIMIT_REACHED, ER.UNKNOWN_COM_ERROR,
    ER.TOO_MANY_USER_CONNECTIONS, ER.TABLE_DEF_CHANGED, ER.NO_SUCH_TABLE, 1129, 1130, 3572,
    CR.CR_CONN_HOST_ERROR, CR.CR_SSL_CONNECTION_ERROR, CR.CR_AUTH_PLUGIN_ERR, TLS_REQUIRED,
})  # fmt: skip


def away(error: BaseException) -> bool:
    """Whether what was asked may be asked again later. Of what nobody has foreseen too, if PyMySQL holds the server's
    state or the connection to be at fault and not the statement: a process would end by it, and the next one too."""
    unforeseen = isinstance(error, pymysql.err.OperationalError | pymysql.err.InternalError)
    return lost(error) or unforeseen or number(error) in _AWAY | BUSY


def lost(error: BaseException) -> bool:
    """Whether the connection ended with it."""
    return not isinstance(error, MysqlError) or number(error) in _LOST | _KILLED | READ_ONLY


def words(server: Server, error: BaseException) -> str:
    """For people, in one line: the place, and what its server or the network says."""
    said = _nobody(server, " ".join(str(each) for each in error.args[1:] or error.args).replace("\n", " "))
    code = number(error)
    clear = "" if server.ssl or server.socket else ", or add ssl_ca=FILE or ssl=on: some take nobody without TLS"
    hint = {
        ER.ACCESS_DENIED_ERROR: f"; look at user and password in its URL{clear}",
        CR.CR_CONN_HOST_ERROR: _certificate(said),
        ER.DBACCESS_DENIED_ERROR: "; grant its user the database",
        ER.BAD_DB_ERROR: "; create the database first",
        ER.CON_COUNT_ERROR: "; raise max_connections, or use fewer workers",
        CR.CR_SSL_CONNECTION_ERROR: "; switch TLS on at the server, or leave ssl out of the URL",
        TLS_REQUIRED: "; add ssl_ca=FILE or ssl=on to the URL",
    }.get(code, "; it is read-only: a replica?" if code in READ_ONLY else "")
    return f"{server.place}: {said or type(error).__name__}{f' ({code})' if code else ''}{hint}"


def _nobody(server: Server, said: str) -> str:
    """Servers repeat the user's name, as 'name'@'host' or alone."""
    said = re.sub(r"'[^']*'@'[^']*'", "'…'", said)
    return re.sub(rf"([Uu]ser) '?{re.escape(server.user)}\b'?", r"\1 '…'", said) if server.user else said


def _certificate(said: str) -> str:
    if "certificate verify failed" not in said:
        return ""
    if "mismatch" in said:
        return "; its certificate bears another name: take the one it bears for host, or add ssl_verify_name=off"
    return "; ssl_ca is not the file of who vouches for it"
