"""The cache never goes back in time, and says what a watch has failed to deliver."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from discovery_operator.cache import ObjectCache
from discovery_operator.intake import Intake
from discovery_operator.manifests.names import FLOW_UID_LABEL
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind

from tests.unit.operator.builders import FLOW_ID, JOB_UID


def flow_object(version: int, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"uid": str(FLOW_ID), "resourceVersion": str(version), **meta}}


def job_object(version: int, uid: str = JOB_UID, label: str = str(FLOW_ID)) -> dict[str, Any]:
    labels = {FLOW_UID_LABEL: label}
    return {"metadata": {"uid": uid, "resourceVersion": str(version), "labels": labels}}


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = ObjectCache()
    assert cache.put(Kind.FLOW, flow_object(5))
    assert not cache.put(Kind.FLOW, flow_object(5))
    assert not cache.put(Kind.FLOW, flow_object(4))
    assert cache.put(Kind.FLOW, flow_object(6))
    known = cache.flow(FLOW_ID)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "6"


def test_versions_are_numbers_and_not_texts() -> None:
    cache = ObjectCache()
    cache.put(Kind.FLOW, flow_object(9))
    assert cache.put(Kind.FLOW, flow_object(10))


def test_what_was_deleted_does_not_come_back() -> None:
    cache = ObjectCache()
    cache.put(Kind.JOB, job_object(5))
    assert cache.remove(Kind.JOB, job_object(6))
    assert not cache.put(Kind.JOB, job_object(7))
    assert cache.jobs(FLOW_ID) == []


def test_a_list_removes_what_it_lacks_but_nothing_newer() -> None:
    cache = ObjectCache()
    cache.put(Kind.JOB, job_object(5))
    cache.put(Kind.JOB, job_object(50, uid="new"))
    assert cache.replace(Kind.JOB, [], 20) == {FLOW_ID}
    assert [raw["metadata"]["uid"] for raw in cache.jobs(FLOW_ID)] == ["new"]


def test_objects_without_a_usable_label_are_ignored() -> None:
    cache = ObjectCache()
    assert not cache.put(Kind.JOB, job_object(1, label="nonsense"))
    assert not cache.put(Kind.POD, {"metadata": {"uid": "x", "resourceVersion": "1"}})


def test_managed_fields_are_not_kept() -> None:
    cache = ObjectCache()
    cache.put(Kind.FLOW, flow_object(1, managedFields=[{"manager": "kubectl"}]))
    known = cache.flow(FLOW_ID)
    assert known is not None
    assert "managedFields" not in known["metadata"]


def test_a_silent_watch_is_found_out() -> None:
    cache = ObjectCache()
    cache.put(Kind.FLOW, flow_object(5), watched=True)
    assert cache.unseen([flow_object(5)]) == {}
    before = cache.unseen([flow_object(6)])
    assert cache.still_unseen(before) == {str(FLOW_ID)}
    cache.put(Kind.FLOW, flow_object(7), watched=True)
    assert cache.still_unseen(before) == set()


def test_a_deleted_object_is_not_waited_for() -> None:
    cache = ObjectCache()
    before = cache.unseen([flow_object(6)])
    cache.remove(Kind.FLOW, flow_object(7))
    assert cache.still_unseen(before) == set()


def test_intake_enqueues_news_and_not_the_echo_of_our_own_write() -> None:
    cache = ObjectCache()
    queue: KeyedQueue[UUID] = KeyedQueue()
    delivered: list[Kind] = []
    intake = Intake(cache, queue, delivered.append)
    cache.put(Kind.FLOW, flow_object(5))
    intake.changed(Kind.FLOW, "MODIFIED", flow_object(5))
    assert len(queue) == 0
    intake.changed(Kind.FLOW, "MODIFIED", flow_object(6))
    assert len(queue) == 1
    intake.changed(Kind.JOB, "DELETED", job_object(1))
    assert delivered == [Kind.FLOW, Kind.FLOW, Kind.JOB], "an echo shows that the watch lives"
    assert len(queue) == 1
