"""The user API: directly by its address, else through a port-forward to one of its pods.

The API server's proxy would strip the token, so it is a port-forward; the certificate is checked
against the installation's own CA either way.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from kubernetes.stream import portforward

from .cluster import Cluster, translated
from .errors import CliError, ExitCode, of_status

PORT = 8444
PIECE = 256 * 1024
PREFIX = "/api/v1/discovery"
_LABELS = "app.kubernetes.io/name=discoveryflow,app.kubernetes.io/component=api"


@dataclass(frozen=True)
class ApiOptions:
    """Where the API is. `url` wins over the port-forward into `product_namespace`."""

    url: str | None = None
    ca_file: Path | None = None
    token: str | None = None
    product_namespace: str = "discoveryflow"


class UserApi:
    """One connection. Raises CliError."""

    def __init__(self, cluster: Cluster, options: ApiOptions) -> None:
        self._cluster = cluster
        self._options = options
        self._token = options.token or cluster.token() or ""
        if not self._token:
            raise CliError(
                "your kubeconfig has no token (a client certificate cannot be passed on): add "
                '--token "$(kubectl create token NAME)"',
                ExitCode.USAGE,
            )

    def get(self, path: str, **query: Any) -> Any:
        """A JSON answer."""
        with self._call("GET", path, query=query) as answer:
            return json.loads(answer.read())

    def delete(self, path: str, **query: Any) -> Any:
        """A JSON answer to a removal."""
        with self._call("DELETE", path, query=query) as answer:
            return json.loads(answer.read())

    def download(self, path: str) -> Iterator[bytes]:
        """An answer's bytes in pieces."""
        with self._call("GET", path) as answer:
            while piece := answer.read(PIECE):
                yield piece

    def upload(self, stream: IO[bytes], size: int, *, namespace: str, name: str) -> Any:
        """Stores a file for a flow to come; returns digest, size, name."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        query = {"namespace": namespace, "name": name}
        with self._call("POST", "/uploads", query=query, body=stream, headers=headers) as answer:
            return json.loads(answer.read())

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        place = f"{PREFIX}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            connection.request(
                method,
                place,
                body=body,
                headers={"Authorization": f"Bearer {self._token}", **(headers or {})},
            )
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise CliError(
                f"the user API does not answer: {error}", ExitCode.UNREACHABLE
            ) from error
        if answer.status >= 400:
            raise of_status(answer.status, *_words(answer))
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if self._options.url:
            return self._direct(self._options.url)
        pod, host, authority = self._found()
        with translated():
            forward = portforward(
                self._cluster.core.connect_get_namespaced_pod_portforward,
                pod,
                self._options.product_namespace,
                ports=str(PORT),
            )
        plain = forward.socket(PORT)
        plain.setblocking(True)
        context = ssl.create_default_context(cadata=authority)
        return _Through(host, plain, context)

    def _direct(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise CliError(f"{url!r} is no address such as https://host:8444", ExitCode.USAGE)
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        context = ssl.create_default_context(
            cafile=str(self._options.ca_file) if self._options.ca_file else None
        )
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=60, context=context)

    def _found(self) -> tuple[str, str, str]:
        """A running pod of the API, the name in its certificate, and its CA."""
        space = self._options.product_namespace
        core = self._cluster.core
        with translated():
            services = core.list_namespaced_service(space, label_selector=_LABELS).items
            pods = core.list_namespaced_pod(
                space, label_selector=_LABELS, field_selector="status.phase=Running"
            ).items
        if not services or not pods:
            raise CliError(
                f"no user API runs in namespace {space}: name the installation's namespace with "
                "--product-namespace, or its address with --api-url",
                ExitCode.UNREACHABLE,
            )
        name = services[0].metadata.name
        if self._options.ca_file is not None:
            authority = self._options.ca_file.read_text()
        else:
            with translated():
                secret = core.read_namespaced_secret(f"{name}-tls", space)
            authority = base64.b64decode(secret.data["ca.crt"]).decode()
        return pods[0].metadata.name, f"{name}.{space}.svc", authority


class _Through(http.client.HTTPConnection):
    """HTTPS over a socket that is open already."""

    def __init__(self, host: str, plain: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(host)
        self._plain = plain
        self._context = context

    def connect(self) -> None:
        """See http.client."""
        self.sock = self._context.wrap_socket(self._plain, server_hostname=self.host)


def _words(answer: http.client.HTTPResponse) -> tuple[str, list[str]]:
    """A problem's own words, and its single problems."""
    body = answer.read()
    try:
        problem = json.loads(body)
    except ValueError:
        return f"{answer.status} {answer.reason}", []
    told = ": ".join(str(problem[key]) for key in ("title", "detail") if problem.get(key))
    return told or f"{answer.status} {answer.reason}", list(map(str, problem.get("problems", [])))
