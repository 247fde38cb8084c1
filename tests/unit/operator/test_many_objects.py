"""Thousands of objects that people made large: how they are read, and what is kept of them.

The API server is a stand-in that serves lists in pages and watches, as kopf and we ask for them.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import kopf
import pytest
from aiohttp import web
from discovery_core.resource import GROUP, KIND, PLURAL, VERSION
from discovery_operator import handlers
from discovery_operator.cache import ObjectCache
from discovery_operator.intake import Intake
from discovery_operator.kube import PAGE, Cluster
from discovery_operator.main import kopf_settings
from discovery_operator.manifests.names import FLOW_UID_LABEL, MANAGED_BY, PRODUCT
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind, slim, slim_in_place
from discovery_operator.views import job_view, pod_view, resource_view
from kubernetes_asyncio import client

from tests.stubs.any_path import answering

OBJECTS = 5_000
LARGE = "x" * 2_000
FLOW_PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
PATHS = {FLOW_PATH: Kind.FLOW, "/apis/batch/v1/jobs": Kind.JOB, "/api/v1/pods": Kind.POD}


def large(kind: Kind, number: int) -> dict[str, Any]:
    """An object with everything in it that its maker may make large."""
    flow = str(UUID(int=number + 1))
    meta: dict[str, Any] = {
        "uid": flow if kind is Kind.FLOW else str(uuid4()),
        "name": f"o{number}",
        "namespace": "team-a",
        "generation": 1,
        "resourceVersion": str(number + 1),
        "creationTimestamp": "2026-11-23T12:00:00Z",
        "labels": {MANAGED_BY: PRODUCT, FLOW_UID_LABEL: flow, "own": LARGE},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": LARGE, "a": LARGE},
        "managedFields": [{"fieldsV1": {"f:spec": LARGE}}],
        "finalizers": [LARGE],
        "ownerReferences": [
            {"uid": LARGE, "kind": "Other"},
            {"uid": flow, "kind": KIND, "controller": True},
        ],
    }
    if kind is Kind.FLOW:
        spec: dict[str, Any] = {"source": {"configMap": {"name": "a", "key": "b"}}}
        return {"metadata": meta, "spec": spec, "status": {"state": "Queued"}}
    container = {"name": "crew", "image": LARGE}
    if kind is Kind.JOB:
        status: dict[str, Any] = {"active": 1, "conditions": [], "uncountedTerminatedPods": LARGE}
        return {"metadata": meta, "spec": {"template": LARGE}, "status": status}
    state = {"name": "crew", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    return {
        "metadata": meta,
        "spec": {"nodeName": "n1", "containers": [container]},
        "status": {
            "phase": "Pending",
            "podIPs": LARGE,
            "containerStatuses": [state, {"name": "sidecar", "state": LARGE}],
        },
    }


class ManyObjects:
    """An API server with OBJECTS of each kind. `limits` are the page sizes asked for, by path."""

    def __init__(self) -> None:
        self.limits: dict[str, Counter[str]] = {}
        self.since: list[str] = []
        self.served = 0
        self.watched = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        kind = PATHS.get(request.path)
        if kind is None:
            return web.json_response(self._discovery(request.path))
        limit, start = request.query.get("limit", ""), int(request.query.get("continue") or 0)
        self.limits.setdefault(request.path, Counter())[limit] += 1
        end = min(OBJECTS, start + int(limit or OBJECTS))
        body = {
            "kind": f"{kind}List",
            "apiVersion": "v1",
            "metadata": {
                "resourceVersion": "777",
                "continue": str(end) if end < OBJECTS else "",
            },
            "items": [large(kind, number) for number in range(start, end)],
        }
        text = json.dumps(body)
        self.served = max(self.served, len(text))
        return web.Response(text=text, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """The first watch of flows brings one event and ends; the next one stays open."""
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        if request.path == FLOW_PATH:
            self.since.append(request.query["resourceVersion"])
            if len(self.since) == 1:
                raw = large(Kind.FLOW, 3)
                raw["metadata"]["resourceVersion"] = "800"
                event = json.dumps({"type": "MODIFIED", "object": raw})
                await answer.write(event.encode() + b"\n")
                return answer
            self.watched.set()
        await asyncio.sleep(3600)
        return answer

    @staticmethod
    def _discovery(path: str) -> dict[str, Any]:
        def serves(*kinds: tuple[str, str, bool]) -> dict[str, Any]:
            verbs = ["get", "list", "watch", "patch"]
            named = [
                {"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced}
                | {"verbs": verbs}
                for plural, kind, namespaced in kinds
            ]
            return {"resources": named}

        groups = [(GROUP, VERSION), ("batch", "v1"), ("apiextensions.k8s.io", "v1")]
        found: dict[str, dict[str, Any]] = {
            "/api": {"versions": ["v1"]},
            "/apis": {
                "groups": [
                    {"name": name, "versions": [version], "preferredVersion": version}
                    for name, number in groups
                    for version in [{"groupVersion": f"{name}/{number}", "version": number}]
                ]
            },
            "/api/v1": serves(("pods", "Pod", True), ("namespaces", "Namespace", False)),
            "/apis/batch/v1": serves(("jobs", "Job", True)),
            f"/apis/{GROUP}/{VERSION}": serves((PLURAL, KIND, True)),
            "/apis/apiextensions.k8s.io/v1": serves(
                ("customresourcedefinitions", "CustomResourceDefinition", False)
            ),
        }
        return found.get(path, {"metadata": {"resourceVersion": "1"}, "items": []})


@pytest.fixture
async def api() -> ManyObjects:
    return ManyObjects()


@pytest.fixture
async def address(api: ManyObjects) -> AsyncIterator[str]:
    async with answering(api.handle) as found:
        yield found


def size(objects: Any) -> int:
    return len(json.dumps(objects))


def carries_much(objects: Any) -> bool:
    """Not asked in the assertion, which would compare megabytes to say what it found."""
    return LARGE in json.dumps(objects)


async def test_s08_lists_come_in_pages_of_which_only_what_is_looked_at_is_kept(
    api: ManyObjects, address: str
) -> None:
    cluster = Cluster(client.ApiClient(client.Configuration(host=address)), request_timeout=30)
    cache = ObjectCache()
    listers = {
        Kind.FLOW: cluster.list_flows, Kind.JOB: cluster.list_jobs, Kind.POD: cluster.list_pods,
    }  # fmt: skip
    for kind, lister in listers.items():
        listed, version = await lister()
        assert (len(listed), version) == (OBJECTS, 777)
        assert not carries_much(listed)
        assert size(listed) < OBJECTS * 800
        cache.replace(kind, listed, version)
    await cluster.close()
    assert api.limits == {path: {str(PAGE): OBJECTS / PAGE} for path in PATHS}
    one = UUID(int=1)
    assert not carries_much([cache.flow(one), cache.jobs(one), cache.pods(one)])


@pytest.mark.slow
async def test_s08_what_watches_deliver_comes_in_pages_and_is_kept_light_too(
    api: ManyObjects, address: str
) -> None:
    """With kopf itself: its lists, its watches, and what it passes to our handlers."""
    passed: list[Any] = []
    everything = asyncio.Event()

    class Remembers(Intake):
        def changed(self, kind: Kind, event: str | None, raw: Any) -> None:
            passed.append(raw)
            super().changed(kind, event, raw)
            if len(passed) == 3 * OBJECTS + 1:
                everything.set()

    # ours, with a login of its own
    registry = copy.deepcopy(kopf.get_default_registry())

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=address)

    assert handlers.__all__
    stop = asyncio.Event()

    async def stopped() -> None:
        return None

    intake = Remembers(ObjectCache(), KeyedQueue(), lambda _: None)
    running = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=kopf_settings(),
            identity="test",  # type: ignore[arg-type]
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
            memo=kopf.Memo(intake=intake, stop=stopped),
        )
    )
    try:
        async with asyncio.timeout(100):
            await api.watched.wait()
            await everything.wait()
    finally:
        stop.set()
        await asyncio.wait_for(running, 30)
    for path in PATHS:
        assert set(api.limits[path]) == {str(PAGE)}, path
    # the very objects that kopf holds on to
    assert not any(LARGE in json.dumps(raw) for raw in passed)
    # the watch that ended is taken up where it was, without another list
    assert api.since[:2] == ["777", "800"]
    assert api.limits[FLOW_PATH] == {str(PAGE): OBJECTS / PAGE}


@pytest.mark.parametrize(
    ("kind", "view"), [(Kind.FLOW, resource_view), (Kind.JOB, job_view), (Kind.POD, pod_view)]
)
def test_s08_what_is_kept_says_the_same(kind: Kind, view: Any) -> None:
    raw = large(kind, 3)
    assert view(slim(kind, raw)) == view(raw)
    bare = {"metadata": {key: raw["metadata"][key] for key in ("uid", "name", "namespace")}}
    assert view(slim(kind, bare)) == view(bare)
    same = slim_in_place(kind, raw)
    assert same is raw
    assert view(same) == view(large(kind, 3)) or kind is not Kind.FLOW


@pytest.mark.parametrize("kind", list(Kind))
def test_s08_what_the_api_server_answers_is_kept_light(kind: Kind) -> None:
    """Answers to a GET, a POST or a PATCH come into the cache by no list and no watch."""
    cache = ObjectCache()
    raw = large(kind, 3)
    assert cache.put(kind, raw)
    flow = UUID(int=4)
    kept = [cache.flow(flow), *cache.jobs(flow), *cache.pods(flow)]
    assert sum(found is not None for found in kept) == 1
    assert not carries_much(kept)
