"""Crews without crews: takes each Job of the product, and does its phase over the execution API.

For every Job it makes the pod that the Job controller would make, asks Kubernetes for that pod's
own projected token, and then speaks the protocol over HTTP as the runner does. `script` may have an
attempt do something else than succeed. The Job's end is written as the Job controller writes it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from discovery_core.wire.protocol import TOKEN_AUDIENCE, Claim, Complete, Fail, PinInputs
from discovery_core.wire.results import PhaseResult
from discovery_operator.manifests.names import (
    ATTEMPT_LABEL,
    FLOW_LABEL,
    PHASE_LABEL,
    ROUND_LABEL,
    SELECTOR,
)
from pydantic import BaseModel

from tests.faults.control_plane import Api, ApiError, Raw
from tests.store.flows import ARTEFACTS, JSON, RESULTS, inventory_rows

JOBS = "/apis/batch/v1"
SOURCE = b"name\nweb01\n"
PATIENCE = 2400
PAUSE = 0.05
# with more waiting for a connection, the client would spend its time on looking through them
AT_ONCE = 40


@dataclass(frozen=True)
class Attempt:
    """Which attempt a Job was made for."""

    namespace: str
    flow: str
    round: int
    phase: Phase
    attempt: int


@dataclass(frozen=True)
class Failing:
    """Have an attempt hand in a failure instead of a result."""

    code: ErrorCode
    message: str = "as the test wants it"


class SupersededError(Exception):
    """The execution API says that this attempt no longer counts."""


Script = Callable[[Attempt], Failing | None]
Before = Callable[[Attempt], Awaitable[None]]


async def at_once(attempt: Attempt) -> None:
    """Does not delay an attempt."""
    del attempt


def always_succeeds(attempt: Attempt) -> Failing | None:
    """The script of a world without failures."""
    del attempt
    return None


@dataclass
class Crew:
    """One attempt's side of the execution API. `fence` is set by the claim.

    `turn` bounds how many calls all crews make at once.
    """

    http: httpx.AsyncClient
    token: str
    turn: asyncio.Semaphore
    fence: int = 0

    async def call(self, method: str, path: str, **content: Any) -> Raw:
        """A call as the runner makes it: again while the API is away, an end when superseded."""
        kind = "application/json" if method == "POST" else "application/octet-stream"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        for _ in range(PATIENCE):
            try:
                async with self.turn:
                    answer = await self.http.request(
                        method, f"/execution/v1/{path}", headers=headers, **content
                    )
            except httpx.TransportError:
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code in (425, 429) or answer.status_code >= 500:
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code in (401, 403, 409):
                raise SupersededError(answer.text)
            answer.raise_for_status()
            found: Raw = answer.json()
            return found
        raise RuntimeError(f"{method} {path} is not accepted: {answer.status_code} {answer.text}")

    async def claim(self) -> Claim:
        """Takes the attempt."""
        claim = Claim.model_validate(await self.call("POST", "claim", json={}))
        self.fence = claim.fence
        return claim

    async def upload(self, data: bytes) -> str:
        """Stores an artefact; returns its digest."""
        path = f"artefacts?fence={self.fence}&mediaType=text/plain"
        answer = await self.call("PUT", path, content=data)
        assert answer["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
        return str(answer["digest"])

    async def work(self, claim: Claim) -> tuple[PhaseResult, dict[str, str]]:
        """What the phase leaves behind, without its result."""
        phase = claim.phase
        if phase is Phase.DATA_IMPORT:
            pin = PinInputs(fence=self.fence, source=await self.upload(SOURCE))
            await self.call("POST", "inputs", content=_json(pin))
        if phase is Phase.ASSET_INVENTORY:
            lines = [_json(row) async for row in inventory_rows(3)]
            await self.call("PUT", f"records?fence={self.fence}", content=b"\n".join(lines))
        artefacts = {
            name: await self.upload(JSON.get(name, f"{phase} {name}").encode())
            for name in ARTEFACTS.get(phase, ())
        }
        return RESULTS[phase], artefacts

    async def complete(self, result: PhaseResult, artefacts: dict[str, str]) -> None:
        """Hands the result in."""
        message = Complete(fence=self.fence, result=result, artefacts=artefacts)
        await self.call("POST", "complete", content=_json(message))

    async def fail(self, failing: Failing) -> None:
        """Hands a failure in."""
        message = Fail(fence=self.fence, code=failing.code, message=failing.message)
        await self.call("POST", "fail", content=_json(message))


@dataclass
class Worker:
    """Takes all Jobs of the product in one control plane until `stop`.

    `before` is awaited between an attempt's claim and its work, and `before_end` before it hands in
    its end, which is where tests hold it up.
    `superseded` counts attempts that were told that they no longer count; `answered` are those
    whose end was taken or refused.
    """

    api: Api
    execution_url: str
    script: Script = always_succeeds
    before: Before = at_once
    before_end: Before = at_once
    superseded: int = 0
    answered: set[Attempt] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._http = httpx.AsyncClient(
            base_url=self.execution_url, timeout=30, trust_env=False, limits=limits
        )
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends all attempts as a lost node would: without a word."""
        for task in (self._watching, *self._tasks):
            task.cancel()
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def _watch(self) -> None:
        while True:
            try:
                listed = await self.api.call("GET", f"{JOBS}/jobs?labelSelector={SELECTOR}")
                for job in listed.get("items") or []:
                    self._take(job)
                async for event in self.api.watch(
                    f"{JOBS}/jobs?labelSelector={SELECTOR}", listed["metadata"]["resourceVersion"]
                ):
                    if event["type"] == "ADDED":
                        self._take(event["object"])
            except (ApiError, httpx.TransportError):
                await asyncio.sleep(PAUSE)

    def _take(self, job: Raw) -> None:
        uid = job["metadata"]["uid"]
        if uid in self._seen or (job.get("status") or {}).get("conditions"):
            return
        self._seen.add(uid)
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Raw) -> None:
        try:
            token = await self._pod_token(job)
            if token is not None:
                await self._attempt(job, Crew(self._http, token, self._turn))
        except SupersededError:
            self.superseded += 1
            self.answered.add(attempt_of(job))
            await self.end(job, "Failed", "BackoffLimitExceeded")
        except Exception as error:  # noqa: BLE001 - a broken test must not look like a lost node
            self.errors.append(f"{job['metadata']['name']}: {error!r}")

    async def _attempt(self, job: Raw, crew: Crew) -> None:
        attempt = attempt_of(job)
        claim = await crew.claim()
        await self._hold(attempt, crew)
        failing = self.script(attempt)
        if failing is not None:
            await self.before_end(attempt)
            await crew.fail(failing)
            self.answered.add(attempt)
            await self.end(job, "Failed", "BackoffLimitExceeded")
            return
        done = await crew.work(claim)
        await self.before_end(attempt)
        await crew.complete(*done)
        self.answered.add(attempt)
        await self.end(job, "Complete", "CompletionsReached")

    async def _hold(self, attempt: Attempt, crew: Crew) -> None:
        """What comes between an attempt's claim and its work."""
        del crew
        await self.before(attempt)

    async def _pod_token(self, job: Raw) -> str | None:
        """A token of a pod of this Job, as the kubelet would mount it; None where it is gone."""
        meta = job["metadata"]
        namespace, name = meta["namespace"], f"{meta['name']}-pod"
        template = job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True}
        pod = {
            "metadata": {
                "name": name,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner | {"name": meta["name"], "uid": meta["uid"]}],
            },
            "spec": template["spec"],
        }
        account = template["spec"]["serviceAccountName"]
        try:
            made = await self.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
            bound = {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": name,
                "uid": made["metadata"]["uid"],
            }
            answer = await self.api.call(
                "POST",
                f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
                {"spec": {"audiences": [TOKEN_AUDIENCE], "boundObjectRef": bound}},
            )
        except ApiError as error:
            if error.status in (404, 409) or "being terminated" in str(error):
                return None
            raise
        return str(answer["status"]["token"])

    async def end(self, job: Raw, condition: str, reason: str) -> None:
        """Writes the Job's end as the Job controller does; one that is gone is fine."""
        meta, now = job["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        well = condition == "Complete"
        said = {"status": "True", "reason": reason, "lastTransitionTime": now, "lastProbeTime": now}
        status: Raw = {
            "startTime": meta["creationTimestamp"],
            "succeeded" if well else "failed": 1,
            "conditions": [
                {"type": "SuccessCriteriaMet" if well else "FailureTarget", **said},
                {"type": condition, **said},
            ],
        }
        if well:
            status["completionTime"] = now
        path = f"{JOBS}/namespaces/{meta['namespace']}/jobs/{meta['name']}/status"
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            await self.api.call("PATCH", path, patch)
        except ApiError as error:
            if error.status not in (404, 409):
                raise


def attempt_of(job: Raw) -> Attempt:
    """What the Job's labels say."""
    labels = job["metadata"]["labels"]
    return Attempt(
        namespace=job["metadata"]["namespace"],
        flow=labels[FLOW_LABEL],
        round=int(labels[ROUND_LABEL]),
        phase=Phase(labels[PHASE_LABEL]),
        attempt=int(labels[ATTEMPT_LABEL]),
    )


def _json(message: BaseModel) -> bytes:
    return str(message.model_dump_json(by_alias=True)).encode()
