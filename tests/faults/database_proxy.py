"""Stands between the product and PostgreSQL, and lets a fault have its way with each statement.

It reads as much of the wire protocol as it takes to know a statement's text, whether a transaction
is open and whether it has written, and when the server is ready again. What may go wrong is
`tests.faults.database_faults`.
"""

from __future__ import annotations

import asyncio
import re
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from sqlalchemy.engine import URL, make_url

_ASKS_FOR_ENCRYPTION = (80877103, 80877104)
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+(?!leader\b)\w")
_LOCKS = re.compile(r"\bFOR (NO KEY )?UPDATE\b")
_GONE = (ConnectionError, asyncio.IncompleteReadError, OSError)


@dataclass(frozen=True)
class Statement:
    """A statement on its way. `writes`: its transaction has changed rows of flows so far."""

    text: str
    in_transaction: bool
    writes: bool

    @property
    def commit(self) -> bool:
        """Whether it ends its transaction well."""
        return self.text.upper().startswith("COMMIT")


@dataclass(frozen=True)
class Strike:
    """What is to happen to a statement, or from it on to the whole server.

    cut: the connection ends before the server hears of it. lose: the server carries it out, then
    the connection ends. refuse: its transaction is rolled back and it fails with `sqlstate`.
    restart: all connections end, and for `seconds` none is taken. hold: for `seconds` no statement
    gets through.
    """

    kind: Literal["cut", "lose", "refuse", "restart", "hold"]
    sqlstate: str = ""
    seconds: float = 0.0


class DatabaseFault:
    """Lets everything pass. A fault overrides what it needs, and counts how often it struck."""

    name = "none"

    def __init__(self) -> None:
        self.strikes = 0

    def strike(self, statement: Statement) -> Strike | None:
        """What happens to a statement; None: nothing."""
        del statement
        return None

    def admits(self, application: str, connections: int) -> bool:
        """Whether a program that has so many connections gets another one."""
        del application, connections
        return True


class DatabaseProxy:
    """An asynchronous context manager. `url` makes an address lead through it."""

    def __init__(self, upstream: str, fault: DatabaseFault) -> None:
        self._upstream = make_url(upstream)
        self.fault = fault
        self.sessions: set[_Session] = set()
        self._port = 0
        self._refuses_until = self._holds_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, address: str) -> str:
        """The same database and user, through this proxy."""
        url: URL = make_url(address).set(
            host="127.0.0.1",
            port=self._port,
            query={"sslmode": "disable", "gssencmode": "disable"},
        )
        return url.render_as_string(hide_password=False)

    def cut_all(self) -> None:
        """Ends all connections."""
        for session in list(self.sessions):
            session.abort()

    def restart(self, seconds: float) -> None:
        """Ends all connections and takes none for a while."""
        self._refuses_until = asyncio.get_running_loop().time() + seconds
        self.cut_all()

    def hold(self, seconds: float) -> None:
        """Lets no statement through for a while."""
        self._holds_until = asyncio.get_running_loop().time() + seconds

    async def held(self) -> None:
        """Until statements get through."""
        await asyncio.sleep(max(0.0, self._holds_until - asyncio.get_running_loop().time()))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asyncio.get_running_loop().time() < self._refuses_until:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except _GONE:
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await _startup(reader, writer)
        application = _application(hello)
        mine = sum(1 for session in self.sessions if session.application == application)
        if not self.fault.admits(application, mine):
            writer.write(_error("FATAL", "53300", "sorry, too many clients already"))
            await writer.drain()
            writer.close()
            return
        upstream = await self._connect()
        session = _Session(self, application, (reader, writer), upstream)
        self.sessions.add(session)
        try:
            await session.run(hello)
        finally:
            session.abort()
            self.sessions.discard(session)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._upstream.host or self._upstream.query.get("host"), self._upstream.port
        if isinstance(host, str) and host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port or 5432}")
        return await asyncio.open_connection(str(host or "127.0.0.1"), port or 5432)


@dataclass(eq=False)
class _Session:
    """One connection: a pump for each direction. `status` is the server's last word on it."""

    proxy: DatabaseProxy
    application: str
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    status: bytes = b"I"
    writes: bool = False
    deaf: bool = False  # the client is not told what the server says
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    prepared: dict[bytes, str] = field(default_factory=dict)

    def abort(self) -> None:
        """Ends both connections."""
        self.client[1].transport.abort()
        self.server[1].transport.abort()

    async def run(self, hello: bytes) -> None:
        self.server[1].write(hello)
        pumps = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for pump in pumps:
            if not pump.cancelled() and not isinstance(pump.exception(), (*_GONE, type(None))):
                raise RuntimeError("the proxy is wrong") from pump.exception()

    async def _down(self) -> None:
        """Answers, message by message, since an end of the transaction is among them."""
        reader, _ = self.server
        writer = self.client[1]
        while True:
            kind, body = await _message(reader)
            if not self.deaf:
                writer.write(_framed(kind, body))
                await writer.drain()
            if kind == b"Z":
                self.status = body
                self.ready.set()

    async def _up(self) -> None:
        """Statements; what belongs to one is kept until it is complete."""
        waiting, text = b"", ""
        while True:
            kind, body = await _message(self.client[0])
            waiting += _framed(kind, body)
            if kind == b"Q":
                text = _text(body)
            elif kind == b"P":
                name, _, rest = body.partition(b"\0")
                text = self.prepared[name] = _text(rest)
            elif kind == b"B":
                text = self.prepared.get(body.split(b"\0", 2)[1], text)
            if kind in b"QS":
                await self._statement(text, waiting)
                waiting, text = b"", ""
            elif kind not in b"PBDEC":
                self.server[1].write(waiting)
                waiting = b""

    async def _statement(self, text: str, messages: bytes) -> None:
        statement = self._described(text)
        strike = self.proxy.fault.strike(statement)
        if strike is not None and strike.kind == "hold":
            self.proxy.hold(strike.seconds)
        await self.proxy.held()
        match strike.kind if strike is not None else "":
            case "cut":
                raise ConnectionResetError
            case "lose":
                await self._silently(messages)
                raise ConnectionResetError
            case "restart":
                assert strike is not None
                self.proxy.restart(strike.seconds)
                raise ConnectionResetError
            case "refuse":
                assert strike is not None
                await self._silently(_framed(b"Q", b"ROLLBACK\0"))
                self.deaf = False
                state = b"I" if statement.commit else b"E"
                self.client[1].write(
                    _error("ERROR", strike.sqlstate, "as the test wants it") + _framed(b"Z", state)
                )
            case _:
                self.ready.clear()
                self.server[1].write(messages)

    def _described(self, text: str) -> Statement:
        open_now = self.status == b"T"
        if not open_now:
            self.writes = False
        elif _WRITES.search(_LOCKS.sub("", text)):
            self.writes = True
        return Statement(text, open_now, self.writes)

    async def _silently(self, messages: bytes) -> None:
        """Has the server carry something out without the client being told."""
        self.deaf = True
        self.ready.clear()
        self.server[1].write(messages)
        await self.ready.wait()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The message that opens a connection; encryption is declined."""
    while True:
        size = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(size) - 4)
        code = int.from_bytes(body[:4])
        if code not in _ASKS_FOR_ENCRYPTION:
            return size + body
        writer.write(b"N")


def _application(hello: bytes) -> str:
    words = hello[8:].split(b"\0")
    pairs: dict[Any, Any] = dict(zip(words[::2], words[1::2], strict=False))
    return bytes(pairs.get(b"application_name", b"")).decode()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, size = struct.unpack("!cI", await reader.readexactly(5))
    return kind, await reader.readexactly(size - 4)


def _framed(kind: bytes, body: bytes) -> bytes:
    return struct.pack("!cI", kind, len(body) + 4) + body


def _text(body: bytes) -> str:
    return body.partition(b"\0")[0].decode()


def _error(severity: str, sqlstate: str, message: str) -> bytes:
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", message))
    body = b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields) + b"\0"
    return _framed(b"E", body)
