"""What phases have found, through the API: only for who may see the flow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import ImportResult, QualityPart

from tests.api.desk import ANN, API, BOB, EVE, resource, serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import SOURCE, Flow, digest_of

PREVIEW = {"columns": ["a"], "numbers": [1, 2], "rows": [["x"], [None]], "total": 2}
PROFILE = [{"name": "a", "type": "text", "filled": 1, "missing": 1, "distinct": 1}]
EDGES = (
    "from_identity,from_name,from_kind,from_in_inventory,to_identity,to_text,to_kind,"
    "to_in_inventory,kind,protocol,port,confidence,observations,evidence\r\n"
    'hostname:web1,web1,server,True,,db9,,False,connects,tcp,5432,0.9,2,"{""row"": 3}"\r\n'
)
GROUPS = {"groups": [{"group": 1}], "cycles": [], "sharedServices": []}
RESULT = ImportResult(
    rows_imported=2,
    rows_rejected=1,
    columns=["a"],
    format="csv",
    quality_score=0.8,
    quality=[QualityPart(name="completeness", score=0.5, weight=1, explanation="half")],
)
FILES = {
    Phase.DATA_IMPORT: {
        "preview": json.dumps(PREVIEW),
        "profile": json.dumps(PROFILE),
        "rejected": "row,problem\r\n3,too short\r\n",
    },
    Phase.DEPENDENCY_ANALYSIS: {"dependencies_csv": EDGES, "groups": json.dumps(GROUPS)},
}


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A finished flow whose crews have left files."""
    from tests.store import flows

    monkeypatch.setitem(flows.RESULTS, Phase.DATA_IMPORT, RESULT)
    flow = Flow(stores)
    await flow.queue()
    while str((await flow.load()).state) in ("Queued", "AwaitingApproval"):
        if (await flow.load()).request is not None:
            await flow.answer()
        await flow.start()
        pod = await flow.claim()
        extra = {
            name: await pod.upload(body.encode(), "application/json")
            for name, body in FILES.get(pod.claim.phase, {}).items()
        }
        await _complete(pod, extra)
    kubernetes.flow_uid = str(flow.flow_id)
    return flow


async def _complete(pod: object, extra: dict[str, str]) -> None:
    from tests.store.flows import Pod

    assert isinstance(pod, Pod)
    finish = pod.complete

    async def with_files(result: object, **artefacts: str) -> None:
        await finish(result, **(artefacts | extra))  # type: ignore[arg-type]

    pod.complete = with_files  # type: ignore[method-assign]
    await pod.do_phase()


@pytest.fixture
async def client(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(stores, kubernetes) as client:
        yield client


async def test_results_of_all_phases(client: httpx.AsyncClient, flow: Flow) -> None:
    async def get(action: str) -> object:
        response = await client.get(url(flow, action), headers=ANN)
        assert response.status_code == 200, response.text
        return response.json()

    quality = await get("/quality")
    assert isinstance(quality, dict)
    assert (quality["quality_score"], quality["rows_rejected"]) == (0.8, 1)
    assert quality["columns"][0]["name"] == "a"
    assert await get("/records?phase=data_import&limit=1") == PREVIEW | {
        "numbers": [1],
        "rows": [["x"]],
    }
    graph = await get("/dependencies")
    assert isinstance(graph, dict)
    (edge,) = graph["edges"]
    assert (edge["source"], edge["target"], edge["port"]) == ("hostname:web1", "?db9", 5432)
    assert edge["evidence"] == {"row": 3}
    assert {node["id"]: node["in_inventory"] for node in graph["nodes"]} == {
        "hostname:web1": True,
        "?db9": False,
    }
    assert isinstance(await get("/strategies"), dict)
    entries = await get("/history?after=3")
    assert isinstance(entries, list)
    assert entries[0]["sequence"] == 4
    assert entries[-1]["trigger"] == "FlowSucceeded"


async def test_the_inventory_in_pages(client: httpx.AsyncClient, flow: Flow) -> None:
    first = (await client.get(url(flow, "/assets?limit=2"), headers=ANN)).json()
    assert (first["total"], first["by_type"]) == (3, {"server": 3})
    assert [item["name"] for item in first["items"]] == ["web1", "web2"]
    rest = await client.get(
        url(flow, "/assets"), params={"limit": 2, "cursor": first["next_cursor"]}, headers=ANN
    )
    assert [item["name"] for item in rest.json()["items"]] == ["web3"]
    assert rest.json()["next_cursor"] is None
    found = await client.get(url(flow, "/assets"), params={"q": "EB2"}, headers=ANN)
    assert [item["name"] for item in found.json()["items"]] == ["web2"]
    literal = await client.get(url(flow, "/assets"), params={"q": "%"}, headers=ANN)
    assert literal.json()["items"] == []


async def test_an_asset_says_where_its_values_come_from(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    (asset,) = (await client.get(url(flow, "/assets"), params={"q": "web2"}, headers=ANN)).json()[
        "items"
    ]
    assert (asset["identity_confidence"], asset["class_rule"]) == (0.8, "by_machine_facts")
    (source,) = (
        await client.get(
            url(flow, "/assets/sources"), params={"identity": asset["identity"]}, headers=ANN
        )
    ).json()
    assert (source["flow"], source["row"]) == (flow.name, 2)
    assert source["values"]["memory_gb"] == 2
    assert source["originals"]["memory_gb"] == "2 GB"
    assert source["conversions"]["memory_gb"] == {"unit": "GB", "rule": "unit_in_value"}
    nobody = await client.get(
        url(flow, "/assets/sources"), params={"identity": "fqdn:nobody"}, headers=ANN
    )
    assert nobody.status_code == 404, nobody.text


async def test_files_come_as_they_are(client: httpx.AsyncClient, flow: Flow) -> None:
    listed = (await client.get(url(flow, "/artefacts"), headers=ANN)).json()
    known = {(entry["phase"], entry["name"]): entry for entry in listed}
    assert ("data_import", "rejected") in known
    assert not [name for _, name in known if "/" in name]
    rejected = await client.get(url(flow, "/rejected-rows"), headers=ANN)
    assert rejected.text == FILES[Phase.DATA_IMPORT]["rejected"]
    saved = rejected.headers["Content-Disposition"]
    assert saved == f'attachment; filename="{flow.name}-rejected-rows.json"'
    entry = known["dependency_analysis", "groups"]
    got = await client.get(url(flow, "/artefacts/dependency_analysis/groups"), headers=ANN)
    assert got.json() == GROUPS
    assert got.headers["ETag"] == f'"{entry["digest"]}"'
    missing = await client.get(url(flow, "/artefacts/data_import/nope"), headers=ANN)
    assert missing.status_code == 404
    assert "data_import/rejected" in missing.json()["detail"]


async def test_what_is_not_there_yet_is_said(client: httpx.AsyncClient, stores: Stores) -> None:
    flow = Flow(stores)
    await flow.register()
    response = await client.get(url(flow, "/strategies"), headers=ANN)
    assert response.status_code == 404


async def test_figures(client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes) -> None:
    kubernetes.resources = [resource(flow)]
    kubernetes.cluster_viewers = {"ann"}
    found = (await client.get(f"{API}/analytics", headers=ANN)).json()["namespaces"]["migration"]
    assert found["flows"] == {"Succeeded": 1}
    assert {phase["phase"]: phase["succeeded"] for phase in found["phases"]} == dict.fromkeys(
        map(str, Phase), 1
    )
    (approved,) = found["approvals"]
    assert (approved["state"], approved["requests"], approved["by_policy"]) == ("Approved", 1, 0)
    assert sum(tenth["columns"] for tenth in found["confidence"]) == 3
    assert (await client.get(f"{API}/analytics", headers=EVE)).json()["namespaces"] == {}
    his = (await client.get(f"{API}/analytics?namespace=migration", headers=BOB)).json()
    assert list(his["namespaces"]) == ["migration"]


async def test_s22_the_source_is_for_crews_only(client: httpx.AsyncClient, flow: Flow) -> None:
    """No answer about a flow holds what stands in its source: neither by name nor by digest."""
    schema = (await client.get("/api/v1/openapi.json")).json()
    digest = digest_of(SOURCE)
    asked = []
    for path, methods in schema["paths"].items():
        if "get" not in methods or "{flow_id}" not in path or path.endswith("/events"):
            continue
        for phase in Phase if "{phase}" in path else ["-"]:
            for name in ("source", digest[7:]) if "{name}" in path else ["-"]:
                place = path.format_map(
                    {"flow_id": flow.flow_id, "phase": phase, "name": name, "attempt": 1,
                     "round": 1, "digest": digest}
                )  # fmt: skip
                answer = await client.get(place, headers=ANN, timeout=5)
                asked.append(answer.status_code)
                assert b"hunter2" not in answer.content, place
    assert 200 in asked
    listed = (await client.get(url(flow, "/artefacts"), headers=ANN)).json()
    assert "source" not in {entry["name"] for entry in listed}
    for entry in listed:
        place = url(flow, f"/artefacts/{entry['phase']}/{entry['name']}")
        answer = await client.get(place, headers=ANN)
        assert (answer.status_code, b"hunter2" in answer.content) == (200, False)
    refused = await client.get(url(flow, "/artefacts/data_import/source"), headers=ANN)
    assert refused.status_code == 404
