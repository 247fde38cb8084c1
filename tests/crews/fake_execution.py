"""A small execution API over real HTTPS for tests of the runner alone.

It speaks the wire models, checks fence and token as the real one does, and can be told to be
late, to forget a pod or to break off. The real API and the runner meet in other tests.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import trustme
from discovery_core.wire.model import ArtefactReference, WireModel
from discovery_core.wire.protocol import (
    Claim,
    Complete,
    EngagementInputs,
    Fail,
    Heartbeat,
    PinInputs,
)

Answer = tuple[int, Any]


class FakeExecution:
    """State of the fake. `script` maps "POST /claim" to statuses to give before the real one."""

    def __init__(self, *, host: str = "127.0.0.1", **claim: Any) -> None:
        self.host = host
        self.token = "first-token"
        self.fence = 7
        self.artefacts: dict[str, bytes] = {}
        self.media_types: dict[str, str] = {}
        self.records: list[dict[str, Any]] = []
        self.beats: list[Heartbeat] = []
        self.completed: list[Complete] = []
        self.failed: list[Fail] = []
        self.pinned: PinInputs | None = None
        self.engagement: EngagementInputs | None = None
        self.calls: list[str] = []
        self.script: dict[str, list[int]] = {}
        self.on_beat: Callable[[], int] = lambda: 200
        self.corrupt_downloads = 0
        self.deadline = datetime.now(UTC) + timedelta(minutes=10)
        self._claim = {
            "flow_id": uuid4(), "flow_name": "servers", "namespace": "team-a", "round": 1,
            "phase": "data_import", "attempt": 1, "heartbeat_seconds": 0.1,
            "source_name": "servers.csv",
        } | claim  # fmt: skip
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        certificate = authority.issue_cert(host)
        context = certificate.private_key_and_cert_chain_pem
        self._server.socket = _wrap(self._server.socket, context.bytes())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> FakeExecution:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def store(self, content: bytes) -> ArtefactReference:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.artefacts[digest] = content
        return ArtefactReference(digest=digest, size=len(content))

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        name = f"{method} {path.split('/sha256:', maxsplit=1)[0]}"
        self.calls.append(name)
        if self.script.get(name):
            status = self.script[name].pop(0)
            if status != 200:
                return status, {"title": "scripted", "detail": f"scripted {status}"}
        if name == "POST /claim":
            return 200, Claim(**self._claim, fence=self.fence, deadline=self.deadline)
        fence = int(query["fence"]) if "fence" in query else json.loads(body)["fence"]
        if fence != self.fence:
            return 409, {"title": "superseded"}
        return self._fenced(name, path, query, body)

    def _fenced(self, name: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        if name == "POST /heartbeat":
            self.beats.append(Heartbeat.model_validate_json(body))
            status = self.on_beat()
            return status, {"deadline": self.deadline.isoformat()}
        if name == "POST /inputs":
            self.pinned = self.pinned or PinInputs.model_validate_json(body)
            return 200, {"source": self.pinned.source, "targetSchema": self.pinned.target_schema}
        if name == "POST /engagement":
            return 200, self.engagement
        if name == "PUT /artefacts":
            reference = self.store(body)
            self.media_types[reference.digest] = query["mediaType"]
            return 200, reference
        if name == "GET /artefacts":
            content = self.artefacts["sha256:" + path.split("sha256:")[1]]
            if self.corrupt_downloads:
                self.corrupt_downloads -= 1
                content = content[:-1] + b"?"
            return 200, content
        if name == "PUT /records":
            self.records = [json.loads(line) for line in body.splitlines()]
            return 200, {"records": len(self.records)}
        if name == "POST /complete":
            self.completed.append(Complete.model_validate_json(body))
            return 200, {"accepted": True}
        if name == "POST /fail":
            self.failed.append(Fail.model_validate_json(body))
            return 200, {"accepted": True}
        return 404, {"title": "no such route"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                path = parts.path.removeprefix("/execution/v1")
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status: int = 401
                answer: Any = {"title": "token not accepted"}
                if self.headers.get("Authorization") == f"Bearer {fake.token}":
                    status, answer = fake.answer(self.command, path, query, body)
                content = _content(answer)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815 - names of the library

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _content(answer: Any) -> bytes:
    if isinstance(answer, WireModel):
        return answer.model_dump_json(by_alias=True).encode()
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def _wrap(socket: Any, pem: bytes) -> Any:
    import ssl
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context.wrap_socket(socket, server_side=True)
