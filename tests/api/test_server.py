"""The execution API as a process: TLS, rotation of its certificate, big streams, shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from discovery_api.execution.__main__ import main as execution_main
from discovery_api.settings import ApiSettings, ExecutionSettings, settings_from_environment
from pydantic import ValidationError

from tests.api.kubernetes import FakeKubernetes
from tests.api.pods import POD, launch
from tests.postgres import Stores
from tests.store.flows import Flow

pytestmark = pytest.mark.slow

MIB = 1024**2
OWN_TOKEN = "own-token"


@dataclass
class Server:
    """A running execution API."""

    process: subprocess.Popen[bytes]
    port: int
    authority: trustme.CA
    cert: Path
    key: Path

    def client(self, authority: trustme.CA | None = None) -> httpx.AsyncClient:
        """A client that trusts `authority`, by default the one of the first certificate."""
        context = ssl.create_default_context()
        (authority or self.authority).configure_trust(context)
        return httpx.AsyncClient(
            base_url=f"https://localhost:{self.port}", verify=context, timeout=60, headers=POD
        )

    def certify(self, authority: trustme.CA) -> None:
        """Puts a new certificate where the server reads it."""
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.cert)

    def resident(self) -> int:
        """Bytes of memory that the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def kubernetes() -> AsyncIterator[FakeKubernetes]:
    fake = FakeKubernetes()
    yield fake
    await fake.stop()


@asynccontextmanager
async def serving(url: str, kubernetes: str, folder: Path) -> AsyncIterator[Server]:
    port, authority = _free_port(), trustme.CA()
    cert, key, token = folder / "tls.crt", folder / "tls.key", folder / "token"
    token.write_text(OWN_TOKEN)
    server = Server(process=None, port=port, authority=authority, cert=cert, key=key)  # type: ignore[arg-type]
    server.certify(authority)
    environment = {
        **os.environ,
        "DISCOVERY_DATABASE_URL": url,
        "DISCOVERY_PORT": str(port),
        "DISCOVERY_HOST": "127.0.0.1",
        "DISCOVERY_TLS_CERT_FILE": str(cert),
        "DISCOVERY_TLS_KEY_FILE": str(key),
        "DISCOVERY_TLS_RELOAD_SECONDS": "0.2",
        "DISCOVERY_KUBERNETES_URL": kubernetes,
        "DISCOVERY_KUBERNETES_TOKEN_FILE": str(token),
        "DISCOVERY_MAX_ARTEFACT_BYTES": str(200 * MIB),
    }
    with (folder / "log").open("wb") as log:
        server.process = subprocess.Popen(  # noqa: ASYNC220 - tests wait for nothing else here
            [sys.executable, "-m", "discovery_api.execution"], env=environment, stderr=log
        )
    try:
        async with server.client() as client:
            for _ in range(150):
                try:
                    if (await client.get("/healthz")).status_code == 200:
                        break
                except httpx.TransportError:
                    assert server.process.poll() is None, (folder / "log").read_text()
                    await asyncio.sleep(0.2)
            else:
                pytest.fail((folder / "log").read_text())
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
        await asyncio.to_thread(server.process.wait, 40)


@pytest.fixture
async def server(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Server]:
    async with serving(stores.urls.execution, await kubernetes.start(), tmp_path) as running:
        yield running


@pytest.fixture
async def fence(server: Server, stores: Stores, kubernetes: FakeKubernetes) -> dict[str, Any]:
    """The query of an attempt that the pod has claimed over TLS."""
    flow = Flow(stores)
    await flow.queue()
    await launch(flow, kubernetes)
    async with server.client() as client:
        claimed = await client.post("/execution/v1/claim", json={})
    assert claimed.status_code == 200, claimed.text
    assert set(kubernetes.tokens) == {OWN_TOKEN}, "Kubernetes is asked with the own token"
    return {"fence": claimed.json()["fence"]}


async def _bytes(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MIB):
        yield os.urandom(MIB)


async def test_only_tls_with_the_right_certificate_is_served(server: Server) -> None:
    async with server.client(trustme.CA()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get("/healthz")
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{server.port}/healthz")
    async with server.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ok"}


async def test_a_new_certificate_is_used_without_a_restart(server: Server) -> None:
    renewed = trustme.CA()
    # half of it written: the old one goes on
    server.cert.write_bytes(b"-----BEGIN")
    await asyncio.sleep(0.6)
    async with server.client() as client:
        assert (await client.get("/healthz")).status_code == 200
    server.certify(renewed)
    for _ in range(50):
        try:
            async with server.client(renewed) as client:
                assert (await client.get("/healthz")).status_code == 200
            break
        except httpx.ConnectError:
            await asyncio.sleep(0.2)
    else:
        pytest.fail("the new certificate was not taken")
    assert server.process.poll() is None


async def test_a_big_artefact_goes_through_in_bounded_memory(
    server: Server, fence: dict[str, Any]
) -> None:
    async with server.client() as client:
        warm = await client.put("/execution/v1/artefacts", params=fence, content=_bytes(8 * MIB))
        assert warm.status_code == 200, warm.text
        before = server.resident()
        put = await client.put("/execution/v1/artefacts", params=fence, content=_bytes(120 * MIB))
        assert (put.status_code, put.json()["size"]) == (200, 120 * MIB)
        read = 0
        path = f"/execution/v1/artefacts/{put.json()['digest']}"
        async with client.stream("GET", path, params=fence) as response:
            async for piece in response.aiter_bytes():
                read += len(piece)
        assert read == 120 * MIB
    assert server.resident() - before < 40 * MIB


@pytest.mark.parametrize(
    ("wrong", "code", "kind"),
    [({}, 413, "refused"), ({"fence": 99}, 409, "superseded")],
    ids=["too-large", "stale"],
)
async def test_a_refusal_reaches_a_client_that_is_still_sending(
    server: Server, fence: dict[str, Any], wrong: dict[str, Any], code: int, kind: str
) -> None:
    async with server.client() as client:
        response = await client.put(
            "/execution/v1/artefacts", params=fence | wrong, content=_bytes(220 * MIB)
        )
    assert response.status_code == code
    assert response.json()["type"].endswith(f"/{kind}")


async def test_a_request_under_way_ends_before_the_process_does(
    server: Server, fence: dict[str, Any]
) -> None:
    sending = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for number in range(20):
            yield b"x" * MIB
            if number == 3:
                sending.set()
            await asyncio.sleep(0.05)

    async with server.client() as client:
        upload = asyncio.create_task(
            client.put("/execution/v1/artefacts", params=fence, content=slow())
        )
        await sending.wait()
        server.process.send_signal(signal.SIGTERM)
        assert (await upload).json()["size"] == 20 * MIB
    await asyncio.to_thread(server.process.wait, 15)


async def test_without_a_database_it_serves_and_says_why_it_is_not_ready(
    kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    url = f"postgresql://nobody@127.0.0.1:{_free_port()}/none"
    async with (
        serving(url, await kubernetes.start(), tmp_path) as server,
        server.client() as client,
    ):
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "database does not answer" in answer.json()["reason"]
        assert server.process.poll() is None


async def test_without_the_schema_it_is_not_ready(
    kubernetes: FakeKubernetes, tmp_path: Path, postgres: Any
) -> None:
    url = postgres.set(drivername="postgresql").render_as_string(hide_password=False)
    async with (
        serving(url, await kubernetes.start(), tmp_path) as server,
        server.client() as client,
    ):
        answer = await client.get("/readyz")
        assert (answer.status_code, "schema is not current" in answer.text) == (503, True)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith("DISCOVERY_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["discovery"])
    return monkeypatch


def test_tokens_never_travel_unencrypted(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DISCOVERY_DATABASE_URL", "postgresql://x@y/z")
    for kind in (ApiSettings, ExecutionSettings):
        with pytest.raises(ValidationError, match="unencrypted"):
            kind()
        with pytest.raises(ValidationError, match="both"):
            kind(tls_cert_file=Path("tls.crt"))
        assert kind(host="127.0.0.1").port in (8443, 8444)
        assert kind(tls_cert_file=Path("tls.crt"), tls_key_file=Path("tls.key")).host == "0.0.0.0"


def test_wrong_settings_are_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DISCOVERY_PORT", "many")
    with pytest.raises(SystemExit) as stopped:
        settings_from_environment(ApiSettings, module="discovery_api", purpose="x")
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "DISCOVERY_DATABASE_URL: Field required" in told
    assert "DISCOVERY_PORT" in told


def test_help_lists_every_variable(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(sys, "argv", ["discovery", "--help"])
    with pytest.raises(SystemExit) as stopped:
        execution_main()
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    for name in ExecutionSettings.model_fields:
        assert f"DISCOVERY_{name.upper()} " in told
