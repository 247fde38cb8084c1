"""A TCP door to the test's Postgres that can be shut, as a broken network would."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy.engine import URL

from tests.monitoring.background import free_port


class DatabaseProxy:
    """Forwards a local port to the server's socket. Shut, it refuses and cuts connections."""

    def __init__(self, server: URL) -> None:
        self.port = free_port()
        self._folder = Path(str(server.query["host"]))
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def url(self, role: str, database: str) -> str:
        """The database's address through this door."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    async def open(self) -> None:
        """Lets connections in."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Refuses new connections and cuts those that there are."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        self._open.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (path,) = [p for p in self._folder.glob(".s.PGSQL.*") if p.suffix != ".lock"]
        inward, outward = await asyncio.open_unix_connection(path)
        self._open |= {writer, outward}
        try:
            await asyncio.gather(_copy(reader, outward), _copy(inward, writer))
        finally:
            self._open -= {writer, outward}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()
