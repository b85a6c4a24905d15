"""A network between a client and its database that a test can make long, silent or break: a TCP proxy.

It is a process of its own: what a test forks must not keep its connections open, nor compete for its interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_CHUNK = 1 << 16


class Wire:
    """``port`` leads to ``target`` on 127.0.0.1. As a context manager it ends with the block."""

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port: int = self._say()["port"]
        self.delay(delay)

    def delay(self, seconds: float) -> None:
        """So long takes everything from here on, each way."""
        self._say(do="delay", seconds=seconds)

    def silence(self) -> None:
        """Nothing arrives any more and nobody is told, neither on the connections of now nor on new ones."""
        self._say(do="silence", on=True)

    def mend(self) -> None:
        """New connections are well again. Those that were silent stay so, and the server keeps its end of them."""
        self._say(do="silence", on=False)
        self._say(do="refuse", on=False)

    def reset(self) -> None:
        """Both ends of every connection see a reset."""
        self._say(do="reset")

    def refuse(self) -> None:
        """Reset what there is; let nobody in."""
        self._say(do="refuse", on=True)
        self.reset()

    def cut(self, word: str, turn: int = 1, answer: int = 0, arrives: bool = True) -> None:
        """When the ``turn``-th request with ``word`` in it has been answered, let ``answer`` bytes of that through and
        reset the connection. Not ``arrives``: the server never sees the request."""
        self._say(do="cut", word=word, turn=turn, answer=answer, arrives=arrives)

    def cuts(self) -> int:
        """How often ``cut`` has happened."""
        return int(self._say(do="count")["cuts"])

    def connections(self) -> int:
        """How many have been made so far."""
        return int(self._say(do="count")["connections"])

    def requests(self) -> int:
        """Round trips so far."""
        return int(self._say(do="count")["requests"])

    def requests_with(self, word: str) -> int:
        """Those of them that had ``word`` in them since this was first asked."""
        return int(self._say(do="watch", word=word)["seen"])

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, **order: Any) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        if order:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer


# ---- the process


@dataclass(eq=False)
class _Link:
    """One connection: the client's end and the server's."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    mute: bool = False
    ending: int | None = None
    """Set when the answer that comes next is the last: so many bytes of it go through."""

    def reset(self) -> None:
        self.mute = True
        for end in (self.client, self.server):
            sock = end.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


@dataclass
class _Proxy:
    target: int
    delay: float = 0.0
    silent: bool = False
    cut: dict[str, Any] | None = None
    cuts: int = 0
    requests: int = 0
    connections: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    links: set[_Link] = field(default_factory=set)
    unheard: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0
    accepting: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        self.accepting = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)
        self.port = self.accepting.sockets[0].getsockname()[1]

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        kind = order["do"]
        if kind == "delay":
            self.delay = order["seconds"]
        elif kind == "silence":
            self.silent = order["on"]
            for link in self.links:
                link.mute |= self.silent
        elif kind == "reset":
            for link in list(self.links):
                link.reset()
        elif kind == "refuse" and order["on"] and self.accepting:
            self.accepting.close()
            self.accepting = None
        elif kind == "refuse" and not order["on"] and not self.accepting:
            await self.listen()
        elif kind == "cut":
            self.cut = order
        elif kind == "watch":
            return {"seen": self.seen.setdefault(order["word"], 0)}
        return {"cuts": self.cuts, "requests": self.requests, "connections": self.connections}

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.silent:  # accepted by the kernel, and no more
            self.unheard.append(client)
            return
        try:
            from_server, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client.transport.abort()
            return
        for end in (client, server):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        self.links.add(link)
        await asyncio.gather(
            self._pass(reader, server, link, self._asked), self._pass(from_server, client, link, self._answered)
        )
        self.links.discard(link)
        if link.mute:
            link.reset()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link,
        look: Callable[[_Link, bytes], bytes],
    ) -> None:  # fmt: skip
        """One direction. What is read is due after the delay, in order; nothing waits for what came before it."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        pump = asyncio.create_task(self._write(queue, writer, link))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not link.mute:
                    queue.put_nowait((loop.time() + self.delay, look(link, data)))
        queue.put_nowait((loop.time() + self.delay, b""))
        await pump

    async def _write(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if link.mute:
                return
            with contextlib.suppress(OSError, RuntimeError):
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

    def _asked(self, link: _Link, data: bytes) -> bytes:
        self.requests += 1
        for word in self.seen:
            self.seen[word] += word.encode() in data
        if self.cut and self.cut["word"].encode() in data:
            self.cut["turn"] -= 1
            if not self.cut["turn"]:
                link.ending = self.cut["answer"] if self.cut["arrives"] else None
                if not self.cut["arrives"]:
                    link.reset()
                self.cut = None
                self.cuts += 1
        return data

    def _answered(self, link: _Link, data: bytes) -> bytes:
        if link.ending is None:
            return data
        part, link.ending = data[: link.ending], None
        if part:
            link.client.write(part)
        # A moment for these bytes; then the end, and nothing of what comes after them.
        asyncio.get_running_loop().call_later(0.01 if part else 0.0, link.reset)
        link.mute = True
        return b""


async def _run(target: int) -> None:
    proxy = _Proxy(target)
    await proxy.listen()
    print(json.dumps({"port": proxy.port}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await proxy.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1])))
