"""Whatever a Secret, an object or a notification holds, it is a value or nothing, never an end."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core.store import listener
from discovery_operator.addresses import address_of, is_allowed
from discovery_operator.cache import ObjectCache, flow_of, version_of
from discovery_operator.intake import Intake
from discovery_operator.kube import Cluster
from discovery_operator.manifests.names import FLOW_UID_LABEL
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind
from discovery_operator.views import job_view, pod_view, resource_view
from discovery_operator.webhook import UndeliverableError, signer
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)
ENCODED = st.binary().map(lambda data: base64.b64encode(data).decode())
DATA = st.dictionaries(
    st.sampled_from(["url", "key"]) | st.text(), ENCODED | SCALARS, max_size=5
)  # fmt: skip


@settings(deadline=None)
@given(data=DATA | JSON)
def test_s23_a_secret_is_texts_whatever_it_holds(data: Any) -> None:
    cluster = Cluster(SimpleNamespace(), request_timeout=1)  # type: ignore[arg-type]

    async def get(path: str) -> dict[str, Any]:
        del path
        return {"metadata": {"name": "discoveryflow-webhook"}, "data": data}

    cluster._get = get  # type: ignore[method-assign]
    found = asyncio.run(cluster.secret("dc", "discoveryflow-webhook"))
    assert found is not None
    assert all(isinstance(value, str) for value in found.values())


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="htps:/.%2eE@#?\\[]x0").map("https://h".__add__))
def test_s23_an_address_is_one_or_none(text: str) -> None:
    url = address_of(text)
    assert url is None or is_allowed(url, (f"{url.scheme}://{url.authority}",))


@settings(deadline=None)
@given(key=st.text(min_size=1) | st.text(alphabet="ab+/=*", max_size=9).map("whsec_".__add__))
def test_s23_a_key_signs_or_is_refused_in_words(key: str) -> None:
    try:
        made = signer(key)
    except UndeliverableError as error:
        assert "not base64" in str(error)
    else:
        assert isinstance(made, Webhook)


@settings(deadline=None)
@given(payload=st.text() | st.uuids().map(str) | st.uuids().map(lambda uid: f"{{{uid}}}"))
def test_s23_a_notification_names_a_flow_or_nothing(payload: str) -> None:
    notification: Any = SimpleNamespace(payload=payload, pid=1)
    found = listener._named(notification)
    assert found is None or isinstance(found, UUID)


LABELS = st.none() | st.dictionaries(st.sampled_from([FLOW_UID_LABEL, "x"]), st.text())
META = st.fixed_dictionaries(
    {"uid": st.uuids().map(str), "name": st.text(), "namespace": st.text()},
    optional={
        "labels": LABELS, "resourceVersion": st.text() | st.just("²"), "generation": st.integers(),
        "ownerReferences": st.none() | st.lists(st.dictionaries(st.text(), st.text())),
    },
)  # fmt: skip


@settings(deadline=None)
@given(meta=META, spec=JSON, event=st.sampled_from([None, "ADDED", "MODIFIED", "DELETED"]))
def test_s23_an_object_is_taken_whatever_people_have_written_into_it(
    meta: dict[str, Any], spec: Any, event: str | None
) -> None:
    intake = Intake(ObjectCache(), KeyedQueue(), lambda _: None)
    raw = {"metadata": meta, "spec": spec}
    for kind in Kind:
        intake.changed(kind, event, raw)
    assert version_of(raw) >= 0
    assert flow_of(Kind.FLOW, raw) == UUID(meta["uid"])
    viewed = resource_view({**raw, "spec": spec if isinstance(spec, dict) else {}})
    assert viewed.spec is None or not viewed.spec_problem
    assert job_view(raw).uid == meta["uid"]
    assert pod_view(raw | {"spec": {}}).name == meta["name"]


@pytest.mark.parametrize(
    "bad", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"uid": 1}}]
)
def test_s23_one_object_of_a_list_hides_no_other(bad: dict[str, Any]) -> None:
    cache, flow = ObjectCache(), uuid4()
    good = {"metadata": {"uid": str(flow), "resourceVersion": "5"}}
    assert cache.replace(Kind.FLOW, [bad, good], 9) == {flow}
    assert cache.flow(flow) is not None
    assert cache.unseen([bad, good]) == {str(flow): 5}
