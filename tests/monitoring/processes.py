"""The product's processes as a container starts them, on loopback."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import trustme

from tests.monitoring.background import free_port, until


class Process:
    """`python -m MODULE`, its log lines, and the port of its health or metrics."""

    def __init__(self, module: str, folder: Path, environment: dict[str, str]) -> None:
        self.module = module
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{module}-{self.port}.log"
        known = {k: v for k, v in os.environ.items() if not k.startswith("DISCOVERY_")}
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module],
                env=known | self._port_settings() | environment,
                stderr=log,
                stdout=subprocess.DEVNULL,
            )

    def _port_settings(self) -> dict[str, str]:
        return {}

    @property
    def text(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Its log. Fails where a line is not JSON."""
        return [json.loads(line) for line in self.text.splitlines()]

    def terminate(self, seconds: float = 25) -> tuple[int, float]:
        """Sends SIGTERM; returns exit status and seconds until the end."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        status = self.popen.wait(seconds)
        return status, time.monotonic() - began

    def close(self) -> None:
        """Ends it, whatever it does."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(10)

    def get(self, path: str) -> httpx.Response:
        """Asks its plain HTTP port."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20)


class OperatorProcess(Process):
    """The operator, with its times shortened."""

    def __init__(self, folder: Path, *, database: str, kubeconfig: str, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "kubeconfig"
        config.write_text(kubeconfig)
        times = {
            "DISCOVERY_SWEEP_SECONDS": "0.2",
            "DISCOVERY_RESYNC_SECONDS": "0.5",
            "DISCOVERY_METRICS_SECONDS": "0.2",
            "DISCOVERY_LEADER_TTL_SECONDS": "3",
        }
        given = {
            "DISCOVERY_DATABASE_URL": database,
            "DISCOVERY_CREW_IMAGE": "crews:test",
            "DISCOVERY_EXECUTION_URL": "https://execution:8443",
            "KUBECONFIG": str(config),
        }
        super().__init__("discovery_operator", folder, given | times | settings)

    def _port_settings(self) -> dict[str, str]:
        return {"DISCOVERY_HEALTH_HOST": "127.0.0.1", "DISCOVERY_HEALTH_PORT": str(self.port)}

    def wait_ready(self, seconds: float = 180) -> None:
        """Until /readyz says so."""
        until(lambda: self._answers("/readyz"), seconds, lambda: self.text[-3000:])

    def _answers(self, path: str) -> bool:
        assert self.popen.poll() is None, self.text[-3000:]
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False


class ApiProcess(Process):
    """One of the two APIs, over TLS; `port` is that of its metrics."""

    def __init__(
        self, module: str, folder: Path, *, database: str, kubernetes: str, **settings: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.https = free_port()
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(folder / "tls.key")
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        authority.cert_pem.write_to_path(folder / "ca.crt")
        (folder / "token").write_text("own-token")
        self._trusted = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        given = {
            "DISCOVERY_DATABASE_URL": database,
            "DISCOVERY_HOST": "127.0.0.1",
            "DISCOVERY_PORT": str(self.https),
            "DISCOVERY_TLS_CERT_FILE": str(folder / "tls.crt"),
            "DISCOVERY_TLS_KEY_FILE": str(folder / "tls.key"),
            "DISCOVERY_KUBERNETES_URL": kubernetes,
            "DISCOVERY_KUBERNETES_TOKEN_FILE": str(folder / "token"),
        }
        super().__init__(module, folder, given | settings)

    def _port_settings(self) -> dict[str, str]:
        return {"DISCOVERY_METRICS_PORT": str(self.port)}

    def client(self, token: str = "token-ann") -> httpx.Client:
        """A caller of it."""
        return httpx.Client(
            base_url=f"https://localhost:{self.https}",
            verify=self._trusted,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )

    def ready(self) -> tuple[int, str]:
        """What /readyz answers; 0 where nothing does."""
        assert self.popen.poll() is None, self.text[-3000:]
        try:
            with self.client() as client:
                answer = client.get("/readyz")
        except httpx.TransportError as error:
            return 0, str(error)
        return answer.status_code, answer.text

    def wait_ready(self, seconds: float = 180) -> None:
        """Until /readyz says so."""
        until(lambda: self.ready()[0] == 200, seconds, lambda: self.text[-3000:])
