"""What an API server's answers mean: absent, refused, or no proof of anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import yarl
from aiohttp import web
from discovery_operator import kube
from discovery_operator.kube import Cluster, KubernetesError
from discovery_operator.manifests.names import SELECTOR
from discovery_operator.observed import Presence
from kubernetes_asyncio import client

from tests.stubs.any_path import answering

Answers = dict[tuple[str, str], tuple[int, dict[str, Any] | str]]
FLOW = "/apis/discoveryflow.dev/v1alpha1/namespaces/a/discoveryflows/f"
JOB = "/apis/batch/v1/namespaces/a/jobs/j"
POLICY = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/p"
BINDING = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/p"


class Server:
    """Answers by method and path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.asked: list[tuple[str, str, str, str]] = []
        self.delay = 0.0
        self.busy: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        kind = request.headers.get("Content-Type", "")
        self.asked.append((request.method, request.path_qs, kind, await request.text()))
        await asyncio.sleep(self.delay)
        if self.busy:
            return web.json_response({}, status=429, headers=self.busy.pop(0))
        status, body = self.answers[request.method, request.path]
        if isinstance(body, str):
            return web.Response(status=status, text=body)
        return web.json_response(body, status=status)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    async with answering(server.handle) as address:
        settings = client.Configuration(host=address)
        api = Cluster(client.ApiClient(settings), request_timeout=0.5)
        yield api
        await api.close()


EVENTS = "/api/v1/namespaces/a/events"


async def test_the_last_refusal_of_a_pod_is_read_from_the_events_of_its_job(
    server: Server, cluster: Cluster
) -> None:
    told = [
        {"metadata": {}, "lastTimestamp": "2026-11-23T12:00:09Z", "message": "newest"},
        {"metadata": {"creationTimestamp": "2026-11-23T12:00:01Z"}, "message": "oldest"},
        {"metadata": {}, "eventTime": "2026-11-23T12:00:05.000000Z", "message": "middle"},
    ]
    server.answers["GET", EVENTS] = (200, {"items": told})
    assert await cluster.pod_refusal("a", "the-uid") == "newest"
    asked = server.asked[0][1]
    assert "the-uid" in asked
    assert "FailedCreate" in asked
    server.answers["GET", EVENTS] = (200, {"items": []})
    assert await cluster.pod_refusal("a", "the-uid") == ""


async def test_without_the_right_to_read_events_nothing_is_known(
    server: Server, cluster: Cluster
) -> None:
    server.answers["GET", EVENTS] = (403, refusal(403, "Forbidden", None))
    assert await cluster.pod_refusal("a", "the-uid") == ""
    server.answers["GET", EVENTS] = (500, refusal(500, "InternalError", None))
    with pytest.raises(KubernetesError):
        await cluster.pod_refusal("a", "the-uid")


def refusal(code: int, reason: str, name: str | None) -> dict[str, Any]:
    details = {} if name is None else {"name": name, "kind": "discoveryflows"}
    return {"kind": "Status", "code": code, "reason": reason, "message": "m", "details": details}


async def test_an_object_that_is_named_as_missing_is_absent(
    server: Server, cluster: Cluster
) -> None:
    server.answers["GET", FLOW] = (404, refusal(404, "NotFound", "f"))
    assert await cluster.flow("a", "f") is None


@pytest.mark.parametrize(
    "answer",
    [
        (404, refusal(404, "NotFound", None)),
        (404, "404 page not found"),
        (503, refusal(503, "ServiceUnavailable", None)),
        (403, refusal(403, "Forbidden", "f")),
    ],
    ids=["no such path", "no such group", "starting", "no right"],
)
async def test_no_other_answer_proves_an_absence(
    server: Server, cluster: Cluster, answer: tuple[int, dict[str, Any] | str]
) -> None:
    server.answers["GET", FLOW] = answer
    with pytest.raises(KubernetesError) as told:
        await cluster.flow("a", "f")
    assert told.value.status == answer[0]


async def test_an_api_server_that_does_not_answer_is_no_absence_either(
    server: Server, cluster: Cluster
) -> None:
    server.answers["GET", FLOW] = (200, {})
    server.delay = 5
    with pytest.raises(TimeoutError):
        await cluster.flow("a", "f")


async def test_a_delete_names_the_very_job_and_accepts_that_it_is_gone(
    server: Server, cluster: Cluster
) -> None:
    for answer in ((200, {}), (404, refusal(404, "NotFound", "j")), (409, refusal(409, "C", "j"))):
        server.answers["DELETE", JOB] = answer
        await cluster.delete_job("a", "j", "uid-1")
    assert all('"uid": "uid-1"' in body for _, _, _, body in server.asked)
    server.answers["DELETE", JOB] = (403, refusal(403, "Forbidden", "j"))
    with pytest.raises(KubernetesError):
        await cluster.delete_job("a", "j", "uid-1")


async def test_a_status_is_merged_and_a_conflict_is_told(server: Server, cluster: Cluster) -> None:
    server.answers["PATCH", f"{FLOW}/status"] = (409, refusal(409, "Conflict", "f"))
    with pytest.raises(KubernetesError) as told:
        await cluster.patch_flow_status("a", "f", {"status": {"phase": None}})
    assert (told.value.status, told.value.missing) == (409, "")
    assert server.asked[0][2:] == ("application/merge-patch+json", '{"status": {"phase": null}}')


@pytest.mark.parametrize(
    ("policy", "binding", "expected"),
    [
        (200, 200, Presence.PRESENT),
        (404, 200, Presence.ABSENT),
        (200, 404, Presence.ABSENT),
        (403, 200, Presence.UNKNOWN),
    ],
)
async def test_the_policy_counts_only_with_its_binding(
    server: Server, cluster: Cluster, policy: int, binding: int, expected: Presence
) -> None:
    denies = {"spec": {"validationActions": ["Deny", "Audit"]}}
    for path, status in ((POLICY, policy), (BINDING, binding)):
        server.answers["GET", path] = (
            status,
            refusal(status, "x", "p") if status > 200 else denies,
        )
    assert await cluster.admission_policy("p") is expected


async def test_s01_a_policy_that_only_warns_is_none(server: Server, cluster: Cluster) -> None:
    server.answers["GET", POLICY] = (200, {})
    server.answers["GET", BINDING] = (200, {"spec": {"validationActions": ["Warn", "Audit"]}})
    assert await cluster.admission_policy("p") is Presence.ABSENT


async def test_lists_are_of_the_product_only(server: Server, cluster: Cluster) -> None:
    items = [{"metadata": {"name": "j"}, "status": {"active": 1}}]
    found = {"metadata": {"resourceVersion": "77"}, "items": items}
    server.answers["GET", "/apis/batch/v1/jobs"] = (200, found)
    assert await cluster.list_jobs() == (items, 77)
    assert "labelSelector=app.kubernetes.io/managed-by%3Ddiscoveryflow" in server.asked[0][1]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the operator has paused, without doing so."""
    taken: list[float] = []

    async def pause(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(kube, "asyncio", SimpleNamespace(sleep=pause))
    return taken


async def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    server: Server, cluster: Cluster, pauses: list[float]
) -> None:
    server.busy = [{"Retry-After": "7"}, {"Retry-After": "2"}]
    server.answers["GET", JOB] = (200, {"metadata": {"name": "j"}})
    assert await cluster.job("a", "j") == {"metadata": {"name": "j"}}
    assert pauses == [7.0, 2.0]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("busy", "waits"),
    [
        ([{}], []),
        ([{"Retry-After": "tomorrow"}], []),
        ([{"Retry-After": "61"}], []),
        ([{"Retry-After": "40"}, {"Retry-After": "40"}], [40.0]),
    ],
)
async def test_a_server_that_stays_busy_or_names_no_time_is_an_error(
    server: Server,
    cluster: Cluster,
    pauses: list[float],
    busy: list[dict[str, str]],
    waits: list[float],
) -> None:
    server.busy = list(busy)
    with pytest.raises(KubernetesError) as refused:
        await cluster.job("a", "j")
    assert refused.value.status == 429
    assert pauses == waits
    assert len(server.asked) == len(busy)


async def test_a_list_comes_in_pages_of_one_version(server: Server, cluster: Cluster) -> None:
    def page(number: int, more: str) -> dict[str, Any]:
        meta = {"resourceVersion": "41", "continue": more}
        return {"metadata": meta, "items": [{"metadata": {"uid": f"u{number}"}}]}

    jobs = "/apis/batch/v1/jobs"
    pages = iter([page(1, "to 2"), page(2, "to 3"), page(3, "")])
    server.answers = Pages(("GET", jobs), pages)
    listed, version = await cluster.list_jobs()
    assert ([raw["metadata"]["uid"] for raw in listed], version) == (["u1", "u2", "u3"], 41)
    asked = [yarl.URL(path).query for _, path, *_ in server.asked]
    assert [query.get("continue") for query in asked] == [None, "to 2", "to 3"]
    assert {(query["limit"], query["labelSelector"]) for query in asked} == {
        (str(kube.PAGE), SELECTOR)
    }


async def test_a_list_whose_version_was_forgotten_is_no_complete_list(
    server: Server, cluster: Cluster
) -> None:
    first = {"metadata": {"resourceVersion": "41", "continue": "to 2"}, "items": []}
    gone = refusal(410, "Expired", None)
    jobs = ("GET", "/apis/batch/v1/jobs")
    server.answers = Pages(jobs, iter([first]), then=(410, gone))
    with pytest.raises(KubernetesError) as told:
        await cluster.list_jobs()
    assert told.value.status == 410


class Pages(dict[tuple[str, str], tuple[int, dict[str, Any] | str]]):
    """Answers to one request: one page after the other, then `then`."""

    def __init__(
        self,
        key: tuple[str, str],
        pages: Iterator[dict[str, Any]],
        then: tuple[int, dict[str, Any]] = (500, {}),
    ) -> None:
        super().__init__({key: then})
        self._pages = pages

    def __getitem__(self, key: tuple[str, str]) -> tuple[int, dict[str, Any] | str]:
        page = next(self._pages, None)
        return super().__getitem__(key) if page is None else (200, page)
