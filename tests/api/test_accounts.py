"""ServiceAccounts decide nothing through the user API, unless the installation lets them."""

from __future__ import annotations

from typing import Any

import pytest
from discovery_core import actions as act

from tests.api.desk import ANN, serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

ACCOUNT = "system:serviceaccount:migration:ann"
DECIDED = {"identity": "hostname:web1", "field": "owner"}
# what is written without going through the resource, whose admission policy says the same
DECISIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("DELETE", "/lessons", {"params": {"header": "name"}}),
    ("PUT", "/conflicts", {"json": DECIDED | {"choice": "keep"}}),
    ("DELETE", "/conflicts", {"params": DECIDED}),
    ("PUT", "/source-precedence", {"json": {"flows": []}}),
    ("DELETE", "/data", {}),
]


def kubernetes(flow: Flow, user: str) -> FakeKubernetes:
    """Whoever has ann's token is `user`, who holds every verb."""
    every = {user}
    return FakeKubernetes(
        flow_uid=str(flow.flow_id), identify=lambda token: user if token == "token-ann" else None,
        editors=every, viewers=every, approvers=every, purgers=every,
    )  # fmt: skip


@pytest.mark.parametrize(("method", "path", "options"), DECISIONS)
@pytest.mark.parametrize(
    ("user", "allowed", "may"),
    [(ACCOUNT, False, False), (ACCOUNT, True, True), ("ann", False, True)],
)
async def test_s11_a_serviceaccount_decides_nothing_unless_the_installation_lets_it(
    stores: Stores, method: str, path: str, options: Any, user: str, allowed: bool, may: bool
) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await stores.operator.apply(flow.flow_id, act.Cancel())
    fake = kubernetes(flow, user)
    async with serving(stores, fake, allow_service_accounts=allowed) as client:
        answer = await client.request(method, url(flow, path), headers=ANN, **options)
        assert (answer.status_code == 403) is not may, answer.text
        if not may:
            assert f"{ACCOUNT} is a ServiceAccount" in answer.json()["detail"]
            assert "a person has to do this" in answer.json()["detail"]
            assert "approval.allowServiceAccounts" in answer.json()["detail"]


@pytest.mark.parametrize(("user", "offered"), [(ACCOUNT, False), ("ann", True)])
async def test_s11_no_page_offers_a_serviceaccount_to_decide(
    stores: Stores, user: str, offered: bool
) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    async with serving(stores, kubernetes(flow, user)) as client:
        assert (await client.post("/sign-in", data={"token": "token-ann"})).status_code == 303
        page = await client.get(f"/flows/{flow.flow_id}/review")
    assert page.status_code == 200
    assert ('name="decision"' in page.text or "Approve" in page.text) is offered
