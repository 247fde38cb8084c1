"""Lessons can be seen and taken back by approvers; attempts show what was judged."""

from __future__ import annotations

import httpx
import pytest
from discovery_core.resource_gate import MappingEdit
from discovery_core.store.database import TenantScope
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.api.test_user_api import ANN, _url, client, flow, kubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

__all__ = ["client", "flow", "kubernetes"]
BOB = {"Authorization": "Bearer token-bob"}
EVE = {"Authorization": "Bearer token-eve"}


async def test_a_lesson_is_shown_and_can_be_taken_back(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await flow.answer(edits=[MappingEdit(column="Notes", target="owner")])
    shown = (await client.get(_url(flow, "/lessons"), headers=ANN)).json()
    assert {entry["header"]: entry["target"] for entry in shown} == {
        "name": "hostname", "ram": "memory_gb", "notes": "owner",
    }  # fmt: skip
    assert {entry["approved_by"] for entry in shown} == {"ann"}
    gone = await client.delete(_url(flow, "/lessons"), params={"header": "Notes"}, headers=ANN)
    assert gone.status_code == 204
    again = await client.delete(_url(flow, "/lessons"), params={"header": "Notes"}, headers=ANN)
    assert again.status_code == 404
    assert "no lesson for the header 'notes'" in again.json()["detail"]

    second = Flow(stores, tenant_id=flow.tenant_id, name="second")
    await second.queue()
    for _ in range(2):
        await second.run_phase()
    await second.start()
    lessons = (await second.claim()).claim.mapping_history
    assert {lesson.header for lesson in lessons} == {"name", "ram"}


async def test_a_header_that_is_approved_again_is_learned_again(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await flow.answer(edits=[MappingEdit(column="Notes", target="owner")])
    await client.delete(_url(flow, "/lessons"), params={"header": "notes"}, headers=ANN)
    second = Flow(stores, tenant_id=flow.tenant_id, name="second")
    await second.to_gate()
    await second.answer(edits=[MappingEdit(column="Notes", target="hostname")], by="bob")
    lessons = {lesson.header: lesson for lesson in await stores.api.lessons(flow.tenant_id)}
    assert (lessons["notes"].target, lessons["notes"].approved_by) == ("hostname", "bob")


async def test_only_approvers_may_unlearn(client: httpx.AsyncClient, flow: Flow) -> None:
    await flow.answer()
    url, notes = _url(flow, "/lessons"), {"header": "name"}
    refused = await client.delete(url, params=notes, headers=BOB)
    assert refused.status_code == 403
    assert "verb 'approve'" in refused.json()["detail"]
    assert (await client.delete(url, params=notes, headers=EVE)).status_code == 404
    assert (await client.delete(url, params=notes)).status_code == 401
    assert len((await client.get(url, headers=BOB)).json()) == 3


async def test_another_tenant_sees_and_loses_nothing(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await flow.answer()
    foreign = Flow(stores, name="foreign")
    await foreign.to_gate()
    assert await stores.api.lessons(foreign.tenant_id) == []
    await client.delete(_url(flow, "/lessons"), params={"header": "name"}, headers=ANN)
    await foreign.answer(by="zoe")
    lessons = await stores.api.lessons(foreign.tenant_id)
    assert {lesson.approved_by for lesson in lessons} == {"zoe"}
    assert len(await stores.api.lessons(flow.tenant_id)) == 2


async def test_attempts_show_what_they_cost(client: httpx.AsyncClient, flow: Flow) -> None:
    shown = (await client.get(_url(flow, "/attempts"), headers=ANN)).json()
    assert [(entry["phase"], entry["attempt"], entry["state"]) for entry in shown] == [
        ("data_import", 1, "Succeeded"),
        ("data_cleansing", 1, "Succeeded"),
        ("field_mapping", 1, "Succeeded"),
    ]
    assert shown[0]["usage"]["planner"] == "builtin"
    assert shown[0]["usage"]["judgements"] == []
    assert (await client.get(_url(flow, "/attempts"), headers=EVE)).status_code == 404


async def test_the_api_role_may_mark_a_lesson_and_not_rewrite_it(
    flow: Flow, stores: Stores
) -> None:
    await flow.answer()

    async def rewrite(session: AsyncSession) -> None:
        await session.execute(text("UPDATE mapping_memory SET target = 'owner'"))

    with pytest.raises(ProgrammingError, match="permission denied"):
        await stores.api.db.run(TenantScope(flow.tenant_id), rewrite)
