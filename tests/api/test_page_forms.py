"""Forms of pages that are refused: what is said, and what stays."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest
from discovery_core.phases import Phase
from discovery_core.resource_gate import MappingEdit

from tests.api.desk import ANN, API
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import RESULTS, WITH_UNITS, Flow


async def approve(
    client: httpx.AsyncClient, flow: Flow, units: dict[str, str], **words: str
) -> httpx.Response:
    """Sends the review as it stands, with other units."""
    now = await flow.load()
    assert now.request is not None
    page = (await client.get(f"/flows/{flow.flow_id}/review")).text
    csrf = re.search(r'data-csrf="([^"]+)"', page)
    assert csrf is not None
    fields = {
        "csrf": csrf[1],
        "action": "approve",
        "requestId": str(now.request.request_id),
        "artefactDigest": now.request.artefact_digest,
    }
    for number, mapping in enumerate(WITH_UNITS.mappings):
        proposed = mapping.transform or ""
        fields |= {
            f"column.{number}": mapping.column,
            f"target.{number}": mapping.target or "",
            f"unit.{number}": proposed,
            f"transform.{number}": units.get(mapping.column, proposed),
        }
    return await client.post(f"/flows/{flow.flow_id}/review", data=fields | words)


@pytest.fixture
async def waiting(
    stores: Stores, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> Flow:
    """A flow that asks, with a unit."""
    monkeypatch.setitem(RESULTS, Phase.FIELD_MAPPING, WITH_UNITS)
    flow = Flow(stores)
    await flow.to_gate()
    request = (await flow.load()).request
    assert request is not None
    kubernetes.flow_uid, kubernetes.request_id = str(flow.flow_id), str(request.request_id)

    async def take(value: dict[str, object], user: str) -> None:
        edits = [MappingEdit.model_validate(edit) for edit in value["edits"]]  # type: ignore[attr-defined]
        await flow.answer("Approve", by=user, edits=edits)

    kubernetes.on_answer = take
    return flow


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("MB", "column 'RAM': 'MB' is not a unit; write unit:MB or none"),
        ("a lot!", "column 'RAM': 'a lot!' is not a unit; write a unit, such as unit:MiB, or none"),
        ("unit:GHz", "'unit:GHz' is not possible for 'memory_gb' (column 'RAM'); it takes unit:MB"),
    ],
)
async def test_a_unit_that_is_none_is_said_with_its_column(
    ann: httpx.AsyncClient, waiting: Flow, unit: str, said: str
) -> None:
    answer = await approve(ann, waiting, {"RAM": unit}, reason="as <seen>", hint="RAM -> owner")
    assert answer.status_code == 422
    page = unescape(answer.text)
    assert said in page
    assert 'value="as <seen>"' in page
    assert "RAM -> owner</textarea>" in page
    assert f'value="{unit}"' in page
    assert str((await waiting.load()).state) == "AwaitingApproval"


async def test_what_the_values_say_against_the_proposal_is_shown_before_approval(
    ann: httpx.AsyncClient, waiting: Flow
) -> None:
    (finding,) = WITH_UNITS.findings
    page = unescape((await ann.get(f"/flows/{waiting.flow_id}/review")).text)
    assert "To look at before you approve: 1" in page
    assert finding in page
    shown = (await ann.get(f"{API}/flows/{waiting.flow_id}", headers=ANN)).json()
    assert shown["ui_state"]["findings"] == [finding]


async def test_a_cleared_unit_is_none(
    ann: httpx.AsyncClient, waiting: Flow, kubernetes: FakeKubernetes
) -> None:
    assert (await approve(ann, waiting, {"RAM": ""})).status_code == 303
    (answer,) = kubernetes.answers
    assert answer["edits"] == [{"column": "RAM", "target": "memory_gb", "transform": "none"}]


@pytest.mark.parametrize("other", ["Bearer token-bob", "Basic YTpi"])
async def test_a_page_answers_in_the_name_of_its_session_whatever_a_proxy_adds(
    ann: httpx.AsyncClient, waiting: Flow, kubernetes: FakeKubernetes, other: str
) -> None:
    ann.headers["Authorization"] = other
    assert (await approve(ann, waiting, {})).status_code == 303
    (answer,) = kubernetes.answers
    assert answer["decidedBy"] == "ann"


@pytest.mark.parametrize(
    ("namespace", "title"), [("", "No namespace"), ("UX Main!", "Not a namespace")]
)
async def test_a_namespace_that_is_none_is_said_so(
    ann: httpx.AsyncClient, namespace: str, title: str
) -> None:
    files: list[tuple[str, Any]] = [
        ("namespace", (None, namespace)),
        ("file", ("a.csv", b"a\n1\n", "text/csv")),
    ]
    answer = await ann.post(f"{API}/flows", files=files, headers=ANN)
    assert (answer.status_code, answer.json()["title"]) == (422, title)
    assert namespace in answer.json()["detail"]
