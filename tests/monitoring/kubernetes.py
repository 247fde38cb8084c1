"""An API server in memory over HTTP, as far as the operator's process uses one, watches included.

It stores what is posted, numbers every change and streams changes to whoever watches. It can be
told to go silent and to be slow, as a real one is on a bad day.
"""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiohttp import web

Raw = dict[str, Any]
GROUPS = {
    "": ("v1", ("namespaces", "pods", "configmaps", "secrets", "serviceaccounts",
                "persistentvolumeclaims")),
    "batch": ("v1", ("jobs",)),
    "discoveryflow.dev": ("v1alpha1", ("discoveryflows",)),
    "apiextensions.k8s.io": ("v1", ("customresourcedefinitions",)),
    "admissionregistration.k8s.io": (
        "v1", ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
    ),
}  # fmt: skip
KINDS = {
    "namespaces": "Namespace", "pods": "Pod", "jobs": "Job", "configmaps": "ConfigMap",
    "discoveryflows": "DiscoveryFlow", "customresourcedefinitions": "CustomResourceDefinition",
}  # fmt: skip
# everybody is ann, who may do everything
REVIEWS: dict[str, Raw] = {
    "selfsubjectreviews": {"userInfo": {"username": "ann", "groups": []}},
    "selfsubjectaccessreviews": {"allowed": True},
}
CLUSTER_WIDE = {
    "namespaces",
    "customresourcedefinitions",
    *GROUPS["admissionregistration.k8s.io"][1],
}


def _now() -> str:
    """As an API server writes the time of a creation: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeApiServer:
    """Objects by plural, namespace and name.

    `silent` are plurals whose watches stay open and deliver nothing, `slow` the seconds that a
    POST takes.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}
        self.silent: set[str] = set()
        self.slow: dict[str, float] = {}
        self.url = ""
        self._version = 100
        self._changes: list[tuple[int, str, str, Raw]] = []
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serves on loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Ends it and all watches."""
        assert self._runner is not None
        await self._runner.cleanup()

    def kubeconfig(self) -> str:
        """A kubeconfig that leads here."""
        return json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                "users": [{"name": "fake", "user": {"token": "operator"}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            }
        )  # fmt: skip

    async def put(self, plural: str, namespace: str, name: str, **content: Any) -> Raw:
        """Creates an object, or changes its content."""
        known = self.objects.get((plural, namespace, name))
        fresh: Raw = {
            "metadata": {"generation": 0, "uid": str(uuid4()), "creationTimestamp": _now()}
        }
        raw = copy.deepcopy(known) if known else fresh
        raw |= content
        raw["metadata"] |= {"name": name, "generation": raw["metadata"]["generation"] + 1}
        if namespace:
            raw["metadata"]["namespace"] = namespace
        await self._store(plural, raw, "MODIFIED" if known else "ADDED")
        return raw

    def get(self, plural: str, namespace: str, name: str) -> Raw:
        """The object as it is now."""
        return self.objects[plural, namespace, name]

    async def _store(self, plural: str, raw: Raw, event: str) -> None:
        self._version += 1
        raw.setdefault("kind", KINDS.get(plural, plural))
        raw["metadata"]["resourceVersion"] = str(self._version)
        key = (plural, raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
        if event == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = raw
        self._changes.append((self._version, plural, event, copy.deepcopy(raw)))
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        found = self._discovery(parts)
        if found is not None:
            return web.json_response(found)
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        if plural in REVIEWS:
            asked = await request.json()
            answer = {"spec": asked.get("spec"), "status": REVIEWS[plural]}
            return web.json_response(answer, status=201)
        if request.query.get("watch") == "true":
            return await self._watch(request, plural)
        if request.method == "GET":
            return self._get(plural, namespace, name)
        return await self._write(request, plural, namespace, name)

    def _discovery(self, parts: list[str]) -> Raw | None:
        if parts == ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        if parts == ["apis"]:
            return {
                "kind": "APIGroupList",
                "groups": [
                    {
                        "name": name,
                        "versions": [{"groupVersion": f"{name}/{version}", "version": version}],
                        "preferredVersion": {
                            "groupVersion": f"{name}/{version}", "version": version,
                        },
                    }
                    for name, (version, _) in GROUPS.items()
                    if name
                ],
            }  # fmt: skip
        group = "" if parts[0] == "api" else parts[1]
        if len(parts) != (2 if parts[0] == "api" else 3):
            return None
        return {
            "kind": "APIResourceList",
            "resources": [
                {
                    "name": plural, "singularName": plural[:-1],
                    "namespaced": plural not in CLUSTER_WIDE,
                    "kind": KINDS.get(plural, plural),
                    "verbs": ["get", "list", "watch", "create", "patch", "delete"],
                }
                for plural in GROUPS[group][1]
            ],
        }  # fmt: skip

    def _get(self, plural: str, namespace: str, name: str) -> web.Response:
        if name:
            found = self.objects.get((plural, namespace, name))
            return _missing(name) if found is None else web.json_response(found)
        items = [
            raw
            for (kind, space, _), raw in self.objects.items()
            if kind == plural and namespace in ("", space)
        ]
        meta = {"resourceVersion": str(self._version)}
        return web.json_response({"kind": "List", "metadata": meta, "items": items})

    async def _write(
        self, request: web.Request, plural: str, namespace: str, name: str
    ) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        if request.method == "POST":
            await asyncio.sleep(self.slow.get(plural, 0))
            meta = body["metadata"]
            if (plural, namespace, meta["name"]) in self.objects:
                return _status(409, "AlreadyExists", f"{meta['name']} already exists")
            meta |= {"uid": str(uuid4()), "namespace": namespace, "generation": 1}
            meta["creationTimestamp"] = _now()
            await self._store(plural, body, "ADDED")
            return web.json_response(body, status=201)
        known = self.objects.get((plural, namespace, name))
        if known is None:
            return _missing(name)
        if request.method == "DELETE":
            await self._store(plural, copy.deepcopy(known), "DELETED")
            return web.json_response(known)
        asked = body["metadata"]["resourceVersion"]
        if asked != known["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        changed = copy.deepcopy(known)
        merged = {**(changed.get("status") or {}), **body["status"]}
        changed["status"] = {key: value for key, value in merged.items() if value is not None}
        await self._store(plural, changed, "MODIFIED")
        return web.json_response(changed)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        while True:
            for version, kind, event, raw in list(self._changes):
                if kind == plural and version > since and plural not in self.silent:
                    since = version
                    line = json.dumps({"type": event, "object": raw}) + "\n"
                    await stream.write(line.encode())
            async with self._changed:
                await self._changed.wait()


def _status(code: int, reason: str, message: str, **details: str) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body | {"details": details}, status=code)


def _missing(name: str) -> web.Response:
    return _status(404, "NotFound", f'"{name}" not found', name=name)
