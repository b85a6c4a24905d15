"""The mold: imports a generation's code once, and forks its children when the master asks for them.

So a generation stays one code whatever changes on disk, children share its pages, and one is there
within milliseconds. What cannot be imported is found out here, before any worker is replaced.

The master is a subreaper: a child is forked twice, and when the process between the two has ended
it is the master's own, to be reaped and signalled like any other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from fanoutd import log, on_disk, process, secrecy
from fanoutd.child import READY, Child, Recipe
from fanoutd.config import Config, sqlite_path
from fanoutd.lines import encode

_log = logging.getLogger(__name__)

#: Loaded for the children besides what their code imports by itself: it is imported late by others.
_PRELOADED = ("certifi", "concurrent.futures.thread", "setproctitle", "zoneinfo")

#: Exit codes.
_BROKEN, _NO_FORK = 4, 71

#: Characters of an error that go to the master.
_MOST_WORDS = 400

Run = Callable[[Child], int]


def run(recipe: Recipe) -> int:
    """Until the master is gone or wants no more children of this generation; the exit code."""
    if newer := on_disk.newer():
        _log.error("generation %d cannot be loaded: %s", recipe.generation, newer)
        _say(recipe.sock, {"t": "broken", "error": newer})
        return _BROKEN
    try:
        runs = _load(recipe.entries, "fanoutd.store.mysql" if sqlite_path(recipe.config.store_url) is None else "")
    except BaseException as e:  # a module that is executed may do anything: even leave, as sys.exit does
        _log.exception("generation %d cannot be loaded", recipe.generation)
        _say(recipe.sock, {"t": "broken", "error": _words(e, recipe.config)})
        return _BROKEN
    process.set_title(f"mold {recipe.generation}")
    faulthandler.enable(file=log.fileno())  # a hung child is sent SIGABRT: its stack belongs into the log
    # For good: one that comes between a child's fork and its own code must wait, not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    gc.collect()
    gc.freeze()  # its pages stay shared: no child's collector writes into them
    recipe.sock.send(READY)
    while (packet := _receive(recipe.sock)) is not None:
        message, sock = packet
        if message["t"] == "logs":
            log.follow(message)
        elif sock is not None:
            role, slot, row = message["role"], message["slot"], message["row"]
            child = Child(
                role, slot, recipe.generation, recipe.config, recipe.node, sock, recipe.board, row, recipe.master_pid
            )
            _deliver(recipe.sock, child, runs[role])
    return 0


def _load(entries: Mapping[str, str], store: str) -> Mapping[str, Run]:
    for name in (*_PRELOADED, store):
        if name:
            importlib.import_module(name)
    runs = {role: importlib.import_module(name).run for role, name in entries.items()}
    if process.tasks() != 1:
        raise RuntimeError("a thread was started while importing; a fork would copy the locks that it holds")
    return runs


def _words(error: BaseException, config: Config) -> str:
    """The error in one line without secrets: people read it in the status, the answer to a reload, and mails."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return secrecy.without(words, secrecy.ordered(config.secrets()))[:_MOST_WORDS]


def _receive(sock: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """The next message and the socket that came with it; None at the end."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, 4096, 1)
    except ConnectionResetError:
        return None
    if not data:
        return None
    for fd in descriptors:
        os.set_inheritable(fd, False)  # recv_fds knows no MSG_CMSG_CLOEXEC
    return json.loads(data), socket.socket(fileno=descriptors[0]) if descriptors else None


def _say(sock: socket.socket, message: dict[str, Any]) -> None:
    try:
        sock.send(encode(message))
    except OSError:
        return  # the master is gone: the end of file says so


def _deliver(master: socket.socket, child: Child, main: Run) -> None:
    """Fork the child that was asked for. What fails is told: the master tries again later."""
    try:
        between = os.fork()
        if between == 0:
            _fork_again(master, child, main)
        _, status = os.waitpid(between, 0)  # by pid, never -1
        code = os.waitstatus_to_exitcode(status)
        error = os.strerror(code) if code > 0 else f"killed by signal {-code}" if code else None
    except OSError as e:
        error = e.strerror
    child.sock.close()
    if error:
        _say(master, {"t": "failed", "row": child.row, "error": error})


def _fork_again(master: socket.socket, child: Child, main: Run) -> NoReturn:
    """The process between mold and child: its end makes the child the master's."""
    code = _NO_FORK
    try:
        between = os.getpid()
        if os.fork() == 0:
            master.close()
            code = _live(child, main, between)
        else:
            code = 0
    except OSError as e:
        code = e.errno or _NO_FORK
    finally:
        os._exit(code)


def _live(child: Child, main: Run, between: int) -> int:
    """The child's whole life. It does little before it is needed: what it does not touch is shared."""
    # Said while we are the process between's still: it is heard before the master can have to reap us.
    child.sock.sendall(b'{"t":"born","pid":%d}\n' % os.getpid())
    while os.getppid() == between:
        os.sched_yield()
    process.set_title(child.name)
    return process.live(child.name, child.master_pid, lambda: _tell_if_dying(child, main))


def _tell_if_dying(child: Child, main: Run) -> int:
    """What it dies of, it tells the master; only that it died would be known otherwise."""
    try:
        return main(child)
    except Exception as e:
        with contextlib.suppress(OSError):  # who does not listen just now reads the log
            child.sock.send(encode({"t": "dies", "error": _words(e, child.config)}), socket.MSG_DONTWAIT)
        raise
