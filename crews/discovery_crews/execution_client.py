"""The crew's side of the execution protocol (`discovery_core.wire`), and nothing else.

A crew pod may meet an API that restarts, a token that rotates, or a verdict that it has been
replaced; this client turns those into retries, a fresh token, and one exception each, so that
the runner reads as a straight line.
"""

from __future__ import annotations

import hashlib
import random
import ssl
import time
from collections.abc import Callable, Iterator, Set
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.files import media_type
from discovery_core.logging import get_logger
from discovery_core.wire.model import ArtefactReference, WireModel
from discovery_core.wire.protocol import (
    Accepted,
    Claim,
    ClaimRequest,
    Complete,
    EngagementInputs,
    Fail,
    Heartbeat,
    HeartbeatAnswer,
    PinEngagement,
    PinInputs,
    PinnedInputs,
    RecordsAnswer,
)

from discovery_crews.settings import RunnerSettings

log = get_logger(__name__)

_PREFIX = "/execution/v1"
_CHUNK = 1 << 20
_TRY_AGAIN = frozenset({425, 429, 500, 502, 503, 504})
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0
_LONG_ANSWER = 900.0

Answer = TypeVar("Answer", bound=WireModel)


class ExecutionError(Exception):
    """The execution API gave no usable answer; the attempt's end could not be told."""


class ReplacedError(ExecutionError):
    """Another attempt or pod has taken over (409): stop, nothing here counts any more."""


class NotMineError(ExecutionError):
    """The API knows no attempt for this pod (403), or does not accept its token (401)."""


def runner_version() -> str:
    """The installed version of this product."""
    try:
        return version("discoveryflow")
    except PackageNotFoundError:
        return "unknown"


def _tls(settings: RunnerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.execution_ca:
        context.load_verify_locations(cadata=settings.execution_ca)
    elif settings.execution_ca_file:
        context.load_verify_locations(cafile=str(settings.execution_ca_file))
    return context


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ExecutionError(
            f"DISCOVERY_EXECUTION_URL is {url!r}: the token may only travel over https."
        )


class ExecutionClient:
    """Calls of one pod. Safe to use from the main and the heartbeat thread at once."""

    def __init__(self, settings: RunnerSettings) -> None:
        _check_url(settings.execution_url)
        self._settings = settings
        self._http = httpx.Client(
            base_url=settings.execution_url.rstrip("/") + _PREFIX,
            verify=_tls(settings),
            timeout=settings.request_timeout,
            trust_env=False,
        )
        self.fence = 0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def claim(self) -> Claim:
        """Bind this pod to its attempt; waits while the operator has not recorded the Job."""
        request = ClaimRequest(runner_version=runner_version())
        claim = self._post("/claim", request, Claim)
        self.fence = claim.fence
        return claim

    def heartbeat(self, beat: Heartbeat, timeout: float) -> HeartbeatAnswer:
        """Proof of life within `timeout` seconds; one try only, the next beat is the retry."""
        return self._post("/heartbeat", beat, HeartbeatAnswer, patience=0.0, timeout=timeout)

    def pin_inputs(self, pin: PinInputs) -> PinnedInputs:
        """Fix the flow's source; the answer is what counts, another attempt may have been first."""
        return self._post("/inputs", pin, PinnedInputs)

    def pin_engagement(self) -> EngagementInputs:
        """Fix what this round reads of its engagement; making it may take minutes.

        During an upgrade an older API may be asked, which does not know the call: asked again.
        """
        body = PinEngagement(fence=self.fence).model_dump_json(by_alias=True)
        send = self._sender("/engagement", body, _LONG_ANSWER)
        answer = self._retry("POST /engagement", send, None, _TRY_AGAIN | {httpx.codes.NOT_FOUND})
        return _decode(answer, EngagementInputs)

    def upload(self, path: Path, called: str = "") -> ArtefactReference:
        """Store a file as an artefact, as a stream. `called` is its name where it came from."""
        query = {"fence": str(self.fence), "mediaType": media_type(called or path.name)}
        return self._put("/artefacts", path, query, ArtefactReference)

    def put_records(self, path: Path) -> int:
        """Stage an NDJSON file of inventory records; how many the API now holds."""
        return self._put("/records", path, {"fence": str(self.fence)}, RecordsAnswer).records

    def download(self, reference: ArtefactReference, target: Path) -> None:
        """Fetch an artefact and check that its bytes are the ones its name promises."""

        def fetch() -> httpx.Response:
            with self._http.stream(
                "GET",
                f"/artefacts/{reference.digest}",
                params={"fence": str(self.fence)},
                headers=self._headers(),
            ) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    return response
                digest = hashlib.sha256()
                with target.open("wb") as stream:
                    for chunk in response.iter_bytes(_CHUNK):
                        digest.update(chunk)
                        stream.write(chunk)
            if f"sha256:{digest.hexdigest()}" != reference.digest:
                raise httpx.ReadError(f"artefact {reference.digest} arrived with other bytes")
            return response

        self._retry(f"GET artefact {reference.digest[:19]}", fetch, None)

    def complete(self, message: Complete) -> None:
        """Commit the attempt's result. Idempotent, so a lost answer is asked for again."""
        self._post("/complete", message, Accepted)

    def fail(self, message: Fail, patience: float | None = None) -> None:
        """Commit the attempt's failure."""
        self._post("/fail", message, Accepted, patience=patience)

    def _post(
        self,
        path: str,
        body: WireModel,
        answer: type[Answer],
        patience: float | None = None,
        timeout: float | None = None,
    ) -> Answer:
        limit = self._settings.request_timeout if timeout is None else timeout
        send = self._sender(path, body.model_dump_json(by_alias=True), limit)
        return _decode(self._retry(f"POST {path}", send, patience), answer)

    def _sender(self, path: str, content: str, timeout: float) -> Callable[[], httpx.Response]:
        def send() -> httpx.Response:
            headers = self._headers() | {"Content-Type": "application/json"}
            return self._http.post(path, content=content, headers=headers, timeout=timeout)

        return send

    def _put(self, path: str, file: Path, query: dict[str, str], answer: type[Answer]) -> Answer:
        def send() -> httpx.Response:
            headers = self._headers() | {
                "Content-Type": media_type(file.name),
                "Content-Length": str(file.stat().st_size),
            }
            return self._http.put(path, content=_chunks(file), params=query, headers=headers)

        return _decode(self._retry(f"PUT {path}", send, None), answer)

    def _headers(self) -> dict[str, str]:
        try:
            token = self._settings.execution_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ExecutionError(f"the pod's token cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"}

    def _retry(
        self,
        what: str,
        send: Callable[[], httpx.Response],
        patience: float | None,
        try_again: Set[int] = _TRY_AGAIN,
    ) -> httpx.Response:
        """Send until there is a final answer or patience (seconds) runs out."""
        limit = self._settings.connect_patience if patience is None else patience
        give_up = time.monotonic() + limit
        delay = _FIRST_DELAY
        while True:
            problem: str
            try:
                response = send()
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return response
                if response.status_code not in try_again:
                    raise _refusal(what, response)
                problem = _detail(response)
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            if time.monotonic() + pause > give_up:
                raise ExecutionError(f"{what}: no answer within {limit:.0f} s; last: {problem}")
            log.info("execution API not ready", call=what, problem=problem, retry_in=pause)
            time.sleep(pause)
            delay = min(delay * 2, _LONGEST_DELAY)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _decode(response: httpx.Response, answer: type[Answer]) -> Answer:
    try:
        return answer.model_validate_json(response.content)
    except ValueError as error:
        raise ExecutionError(f"unexpected answer of the execution API: {error}") from error


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The RFC 9457 problem of an error, or an empty one for other answers (a proxy's page)."""
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _detail(response: httpx.Response) -> str:
    problem = _problem(response)
    text = problem.get("detail") or problem.get("title") or response.text[:200]
    return f"{response.status_code} {text}"


def _refusal(what: str, response: httpx.Response) -> Exception:
    detail = f"{what}: {_detail(response)}"
    if response.status_code == httpx.codes.CONFLICT:
        return ReplacedError(detail)
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return NotMineError(detail)
    code = _problem(response).get("code")
    if code in list(ErrorCode):
        return DiscoveryError(ErrorCode(code), str(_problem(response).get("detail") or detail))
    if response.status_code in (413, 507):
        return DiscoveryError(
            ErrorCode.QUOTA_EXCEEDED,
            f"{detail}. The tenant's artefact store is full or the artefact is too large; delete "
            "flows that are no longer needed, or have the quota raised.",
        )
    if response.status_code == 422:
        return DiscoveryError(ErrorCode.INVALID_RESULT, detail)
    return ExecutionError(detail)
