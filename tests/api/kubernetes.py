"""A stand-in for the few calls of the Kubernetes API that the two APIs make. Unit tests only."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[dict[str, Any], str], Awaitable[None]]
USERS = {"token-ann": "ann", "token-bob": "bob", "token-eve": "eve"}
FLOWS = "/apis/discoveryflow.dev/v1alpha1/namespaces/{namespace}/discoveryflows"
ALL_FLOWS = "/apis/discoveryflow.dev/v1alpha1/discoveryflows"
FLOW = "/apis/discoveryflow.dev/v1alpha1/namespaces/{namespace}/discoveryflows/{name}"


def status(code: int, message: str) -> web.Response:
    """A Status object, as the API server answers errors."""
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@dataclass
class FakeKubernetes:
    """What it knows, and what it was asked: `tokens` are those that callers sent, in order.

    `request_id` is what the flow's status shows, once it has been looked at `shown_after` times.
    `identify` names the user of a token, and with `tls` it serves by TLS. With `drops`, connections
    end without an answer; with `drops_confirmation`, they do after an answer to the request has
    been taken.
    """

    flow_uid: str = ""
    request_id: str = ""
    shown_after: int = 0
    drops: bool = False
    drops_confirmation: bool = False
    namespaces: dict[str, str] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)
    cluster_viewers: set[str] = field(default_factory=set)
    editors: set[str] = field(default_factory=lambda: {"ann"})
    changes: list[dict[str, Any]] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)
    viewers: set[str] = field(default_factory=lambda: {"ann", "bob"})
    approvers: set[str] = field(default_factory=lambda: {"ann"})
    purgers: set[str] = field(default_factory=lambda: {"ann"})
    on_answer: Answer | None = None
    before_answer: Answer | None = None
    refusal: web.Response | None = None
    tokens: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    reviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    identify: Callable[[str], str | None] = USERS.get
    server: TestServer | None = None
    tls: ssl.SSLContext | None = None

    def of(self, plural: str) -> dict[str, Any]:
        """The one object of a kind."""
        (found,) = [item for path, item in self.objects.items() if f"/{plural}/" in path]
        return found

    def owner_of(self, plural: str) -> dict[str, Any]:
        """Its owner reference."""
        owner: dict[str, Any] = self.of(plural)["metadata"]["ownerReferences"][0]
        return owner

    async def start(self) -> str:
        """Serves on loopback; returns the address."""
        app = web.Application()
        app.router.add_get(FLOW, self._get_flow)
        app.router.add_patch(FLOW, self._patch_flow)
        app.router.add_get(FLOWS, self._list_flows)
        app.router.add_post(FLOWS, self._create_flow)
        app.router.add_get(ALL_FLOWS, self._list_flows)
        app.router.add_get("/api/v1/namespaces/{namespace}", self._get_namespace)
        app.router.add_post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._whoami)
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._review)
        app.router.add_post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._may_approve
        )
        app.router.add_get("/{path:.*}", self._get_object)
        self.server = TestServer(app, scheme="http" if self.tls is None else "https")
        await self.server.start_server(ssl=self.tls)
        return str(self.server.make_url("")).rstrip("/")

    async def stop(self) -> None:
        """Ends the server."""
        if self.server is not None:
            await self.server.close()

    def _user(self, request: web.Request) -> str | None:
        if self.drops and request.transport is not None:
            request.transport.abort()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        return self.identify(token)

    async def _get_flow(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if user is None:
            return status(401, "Unauthorized")
        if user not in self.viewers:
            return status(403, f"{user} cannot get discoveryflows")
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        self.shown_after -= 1
        shown = {"approvalRequest": {"requestId": self.request_id}} if self.shown_after < 0 else {}
        meta = {"uid": self.flow_uid}
        return web.json_response({"metadata": meta, "spec": self.spec, "status": shown})

    async def _patch_flow(self, request: web.Request) -> web.Response:
        user = self._user(request)
        patch = await request.json()
        answers = patch[0]["path"] == "/spec/approval"
        if answers and user not in self.approvers:
            return status(403, "an answer needs the verb approve")
        if answers and self.before_answer is not None:
            await self.before_answer(patch[0]["value"], str(user))
        if self.refusal is not None:
            return self.refusal
        assert request.content_type == "application/json-patch+json"
        if patch[0]["path"] != "/spec/approval":
            if user not in self.editors:
                return status(403, "may change nothing but spec.approval")
            self.changes.append(patch[0])
            self.spec[patch[0]["path"].removeprefix("/spec/")] = patch[0]["value"]
            return web.json_response({"metadata": {"uid": self.flow_uid}})
        self.answers.append(patch[0]["value"])
        if self.on_answer is not None:
            await self.on_answer(patch[0]["value"], str(user))
        if self.drops_confirmation and request.transport is not None:
            request.transport.abort()
        return web.json_response({"metadata": {"uid": self.flow_uid}})

    async def _list_flows(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if user is None:
            return status(401, "Unauthorized")
        namespace = request.match_info.get("namespace")
        if user not in (self.cluster_viewers if namespace is None else self.viewers):
            return status(403, f"{user} cannot list discoveryflows")
        wanted = dict(
            part.split("=") for part in request.query.get("fieldSelector", "").split(",") if part
        )
        items = [
            item
            for item in self.resources
            if namespace in (None, item["metadata"]["namespace"])
            and wanted.get("status.state", item["status"]["state"]) == item["status"]["state"]
            and wanted.get("spec.engagement") in (None, item["spec"].get("engagement"))
        ]
        after = request.query.get("continue") or "0"
        if not after.isdecimal():
            return status(410, "the provided continue parameter is too old")
        begin, limit = int(after), int(request.query["limit"])
        more = str(begin + limit) if begin + limit < len(items) else ""
        return web.json_response(
            {"items": items[begin : begin + limit], "metadata": {"continue": more}}
        )

    async def _create_flow(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if user not in self.editors:
            return status(403, f"{user} cannot create discoveryflows")
        body = await request.json()
        namespace = request.match_info["namespace"]
        path = FLOW.format(namespace=namespace, name=body["metadata"]["name"])
        if path in self.objects:
            return status(409, "discoveryflows already exists")
        body["metadata"]["uid"] = str(uuid4())
        self.objects[path] = body
        self.resources.append(body | {"status": {"state": "Pending"}})
        return web.json_response(body, status=201)

    async def _get_namespace(self, request: web.Request) -> web.Response:
        uid = self.namespaces.get(request.match_info["namespace"])
        if uid is None:
            return await self._get_object(request)
        return web.json_response({"metadata": {"uid": uid}})

    async def _whoami(self, request: web.Request) -> web.Response:
        user = self._user(request)
        if user is None:
            return status(401, "Unauthorized")
        return web.json_response({"status": {"userInfo": {"username": user, "groups": ["team"]}}})

    async def _may_approve(self, request: web.Request) -> web.Response:
        user = self._user(request)
        asked = (await request.json())["spec"]["resourceAttributes"]
        by_verb = {
            "approve": self.approvers,
            "purge": self.purgers,
            "patch": self.approvers | self.editors,
            "list": self.viewers if asked.get("namespace") else self.cluster_viewers,
        }
        allowed = user in by_verb.get(asked["verb"], self.editors)
        return web.json_response({"spec": {}, "status": {"allowed": allowed}})

    async def _review(self, request: web.Request) -> web.Response:
        spec = (await request.json())["spec"]
        self._user(request)
        known = self.reviews.get(spec["token"])
        answer = {"authenticated": False, "error": "unknown token"} if known is None else known
        return web.json_response({"spec": spec, "status": answer})

    async def _get_object(self, request: web.Request) -> web.Response:
        found = self.objects.get(request.path)
        return status(404, "not found") if found is None else web.json_response(found)
