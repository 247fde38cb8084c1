"""Both APIs as processes, started as in production, with TLS: what they hold and answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.api.kubernetes import FakeKubernetes

ANN, NOBODY = "token-ann", "nobody"


@dataclass
class Process:
    """A running API, and what trusts its certificate."""

    process: subprocess.Popen[bytes]
    port: int
    trust: ssl.SSLContext

    @property
    def address(self) -> str:
        """Host and port, as the certificate has it."""
        return f"localhost:{self.port}"

    def most_memory(self) -> int:
        """The most bytes that the process has held since `begin_to_measure`, or ever."""
        return self._memory("VmHWM")

    def begin_to_measure(self) -> int:
        """Forgets the most; returns the bytes that the process holds now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def _memory(self, what: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    @contextlib.asynccontextmanager
    async def connected(
        self, source: str = "", *, handshake: bool = True
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection from an address; whatever is wrong, no test waits longer than a minute."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            local_addr=(source, 0) if source else None,
            ssl=self.trust if handshake else None,
            server_hostname="localhost" if handshake else None,
        )
        try:
            async with asyncio.timeout(60):
                yield reader, writer
        finally:
            writer.close()

    async def status_of(self, method: str, path: str, headers: str, token: str = NOBODY) -> int:
        """The answer to the head of a request whose body never comes."""
        async with self.connected() as (reader, writer):
            writer.write(head(method, path, headers, token))
            return int((await reader.readline()).split()[1])


def head(method: str, path: str, headers: str, token: str) -> bytes:
    text = (
        f"{method} {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
    )
    return text.encode()


def chunk(data: bytes) -> bytes:
    """A piece of a body whose length nobody knows."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def running(
    module: str, url: str, kubernetes: FakeKubernetes, folder: Path, **settings: str
) -> AsyncIterator[Process]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "token").write_text("own-token")
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "tls.pem"
    )
    environment = {
        **os.environ,
        # the tree under test, whatever is installed
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DISCOVERY_DATABASE_URL": url,
        "DISCOVERY_PORT": str(port),
        "DISCOVERY_HOST": "127.0.0.1",
        "DISCOVERY_TLS_CERT_FILE": str(folder / "tls.pem"),
        "DISCOVERY_TLS_KEY_FILE": str(folder / "tls.pem"),
        "DISCOVERY_KUBERNETES_URL": await kubernetes.start(),
        "DISCOVERY_KUBERNETES_TOKEN_FILE": str(folder / "token"),
        **{f"DISCOVERY_{name.upper()}": value for name, value in settings.items()},
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - tests wait for nothing else here
            [sys.executable, "-m", module], env=environment, stderr=log
        )
    api = Process(process, port, trust)
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    if await api.status_of("GET", "/healthz", "") == 200:
                        break
                assert process.poll() is None, (folder / "log").read_text()
                await asyncio.sleep(0.1)
        yield api
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 40)
        await kubernetes.stop()
