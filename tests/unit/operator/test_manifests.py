"""The Job is exactly what it should be, and nothing in it exceeds Pod Security "restricted"."""

from __future__ import annotations

import copy
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from discovery_core import mounts as folders
from discovery_core.phases import PHASES, Phase, phase_spec
from discovery_core.wire.protocol import TOKEN_AUDIENCE
from discovery_operator.manifests.job import AttemptSpec, JobSettings, build_job
from discovery_operator.manifests.likeness import difference
from discovery_operator.manifests.names import attempt_labels, job_name, label_value
from discovery_operator.manifests.serviceaccount import build_service_account
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import FLOW_ID, spec

GOLDEN = Path(__file__).with_name("golden")
SETTINGS = JobSettings(
    image="discoveryflow/crews:1.0",
    execution_url="https://discoveryflow-execution.system.svc:8443",
    execution_ca="-----BEGIN CERTIFICATE-----\n",
    image_pull_secrets=("registry",),
    resources={"limits": {"memory": "2Gi"}},
)
FIRST = AttemptSpec(
    flow_uid=FLOW_ID,
    flow_name="servers",
    namespace="team-a",
    spec=spec(targetSchema={"configMap": {"name": "fields", "key": "fields.csv"}}),
    round=1,
    phase=Phase.DATA_IMPORT,
    attempt=1,
    source_pinned=False,
)
LLM = spec(
    source={"persistentVolumeClaim": {"claimName": "exports", "path": "a/b.xlsx"}},
    llm={
        "provider": "openaiCompatible",
        "baseUrl": "https://llm.example.org/v1",
        "model": "m",
        "apiKeySecret": {"name": "llm", "key": "api-key"},
    },
    phaseTimeout="1h",
)
CASES = {
    "import-configmap": FIRST,
    "import-claim-llm": replace(FIRST, spec=LLM, attempt=2),
    "later-phase": replace(FIRST, phase=Phase.FIELD_MAPPING, round=2, source_pinned=True),
}


def served(manifest: dict[str, Any]) -> dict[str, Any]:
    """The Job as an API server gives it, with what it and the Job controller fill in."""
    raw = copy.deepcopy(manifest)
    raw["metadata"] |= {"uid": "u", "annotations": {"example.org/by": "a webhook"}}
    raw["status"] = {}
    raw["spec"] |= {
        "completionMode": "NonIndexed", "completions": 1, "parallelism": 1, "suspend": False,
        "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
    }  # fmt: skip
    pod = raw["spec"]["template"]["spec"]
    pod |= {
        "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "serviceAccount": "discoveryflow-crew",
    }  # fmt: skip
    pod["containers"][0] |= {
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "resources": {"limits": {"memory": "2048Mi"}},
    }  # fmt: skip
    for volume in pod["volumes"]:
        for kind in ("projected", "configMap"):
            if kind in volume:
                volume[kind]["defaultMode"] = 420
    return raw


CHANGES: dict[str, tuple[str, Any]] = {
    "image": ("containers.0.image", "evil"),
    "command": ("containers.0.command", ["sh"]),
    "arguments": ("containers.0.args", ["-c", "id"]),
    "environment": ("containers.0.env.0.value", "https://evil.example"),
    "all-of-a-secret": ("containers.0.envFrom", [{"secretRef": {"name": "x"}}]),
    "hook": ("containers.0.lifecycle", {"postStart": {"exec": {"command": ["id"]}}}),
    "second-container": ("containers.1", {"name": "y", "image": "evil"}),
    "init-container": ("initContainers", [{"name": "y", "image": "evil"}]),
    "account": ("serviceAccountName", "default"),
    "host": ("hostNetwork", True),
    "root": ("securityContext.runAsNonRoot", False),
    "volume": ("volumes.9", {"name": "z", "hostPath": {"path": "/"}}),
    "names": ("hostAliases", [{"ip": "10.0.0.1", "hostnames": ["execution"]}]),
    "resolver": ("dnsPolicy", "None"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_s01_a_look_alike_is_seen(change: str) -> None:
    ours = build_job(FIRST, SETTINGS)
    theirs = served(ours)
    path, value = CHANGES[change]
    *way, last = path.split(".")
    at: Any = theirs["spec"]["template"]["spec"]
    for step in way:
        at = at[int(step) if isinstance(at, list) else step]
    if isinstance(at, list):
        at.insert(int(last), value)
    else:
        at[last] = value
    told = difference(ours, theirs)
    assert told.startswith("spec.template.spec." + path.split(".", maxsplit=1)[0])


@pytest.mark.parametrize(
    "change", [{"manualSelector": True}, {"suspend": True}, {"parallelism": 2}, {"backoffLimit": 9}]
)
def test_s01_a_job_that_runs_otherwise_is_seen(change: dict[str, Any]) -> None:
    ours = build_job(FIRST, SETTINGS)
    theirs = served(ours)
    theirs["spec"] |= change
    assert difference(ours, theirs) == f"spec.{next(iter(change))}"
    assert difference(ours, {"metadata": {}}) != ""


@pytest.mark.parametrize("name", CASES)
def test_s01_an_attempts_own_job_is_known_again(name: str) -> None:
    ours = build_job(CASES[name], SETTINGS)
    assert difference(ours, served(ours)) == ""


@pytest.mark.parametrize("name", CASES)
def test_the_job_is_the_golden_one(name: str) -> None:
    """After an intended change: rewrite the files from `build_job` and read the difference."""
    expected = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    assert build_job(CASES[name], SETTINGS) == expected


def pod_of(attempt: AttemptSpec) -> dict[str, Any]:
    pod: dict[str, Any] = build_job(attempt, SETTINGS)["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("attempt", CASES.values(), ids=CASES)
def test_pod_security_restricted(attempt: AttemptSpec) -> None:
    """The checks of kubernetes.io/docs/concepts/security/pod-security-standards (restricted)."""
    pod = pod_of(attempt)
    (container,) = pod["containers"]
    inner = container["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert inner["readOnlyRootFilesystem"] is True
    assert "ports" not in container
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}
    for volume in pod["volumes"]:
        assert len(volume.keys() & allowed) == 1
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("attempt", CASES.values(), ids=CASES)
def test_every_mount_but_the_scratch_folder_is_read_only(attempt: AttemptSpec) -> None:
    pod = pod_of(attempt)
    mounts = {m["name"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert {m["name"] for m in pod["volumes"]} == set(mounts)
    assert [name for name, m in mounts.items() if not m.get("readOnly")] == ["tmp"]


def test_the_only_credential_is_a_short_token_for_the_execution_api() -> None:
    (source,) = [v for v in pod_of(FIRST)["volumes"] if "projected" in v]
    (token,) = source["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == TOKEN_AUDIENCE
    assert 600 <= token["serviceAccountToken"]["expirationSeconds"] <= 3600
    assert "secretKeyRef" not in json.dumps(pod_of(FIRST))


def test_the_api_key_comes_from_the_secret_and_only_where_it_is_used() -> None:
    (key,) = [e for e in pod_of(CASES["import-claim-llm"])["containers"][0]["env"]
              if "valueFrom" in e]  # fmt: skip
    assert key == {
        "name": "DISCOVERY_LLM_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "llm", "key": "api-key"}},
    }


def key_in(attempt: AttemptSpec) -> bool:
    return "DISCOVERY_LLM_API_KEY" in json.dumps(pod_of(attempt))


@pytest.mark.parametrize("phase", list(Phase))
def test_s20_the_api_key_goes_only_to_phases_that_ask_a_model(
    phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = replace(CASES["import-claim-llm"], phase=phase)
    crew = importlib.import_module(f"discovery_crews.phases.{phase}.phase")
    assert phase_spec(phase).asks_model is hasattr(crew, "run_crew")
    assert key_in(attempt) is phase_spec(phase).asks_model
    silent = tuple(replace(known, asks_model=known.name != phase) for known in PHASES)
    monkeypatch.setattr("discovery_core.phases.PHASES", silent)
    assert not key_in(attempt)


def test_s20_the_builtin_planner_gets_no_api_key() -> None:
    with_key = spec(llm={"provider": "builtin"})
    with_key.llm.api_key_secret = LLM.llm.api_key_secret
    assert not key_in(replace(FIRST, spec=with_key))


def test_the_users_objects_are_mounted_only_until_they_are_stored() -> None:
    names = {v["name"] for v in pod_of(FIRST)["volumes"]}
    pinned = {v["name"] for v in pod_of(replace(FIRST, source_pinned=True))["volumes"]}
    assert (names, pinned) == ({"tmp", "token", "source", "schema"}, {"tmp", "token"})


def test_the_folders_are_the_ones_that_the_claim_names() -> None:
    def paths(attempt: AttemptSpec) -> set[str]:
        return {m["mountPath"] for m in pod_of(attempt)["containers"][0]["volumeMounts"]}

    assert {folders.SOURCE_FOLDER, folders.SCHEMA_FOLDER} <= paths(FIRST)
    assert folders.VOLUME_FOLDER in paths(CASES["import-claim-llm"])
    assert folders.TOKEN_FOLDER in paths(CASES["later-phase"])


def test_deadlines_and_ownership() -> None:
    job = build_job(CASES["import-claim-llm"], SETTINGS)
    assert job["spec"]["activeDeadlineSeconds"] == 3600 + 600
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (str(FLOW_ID), True)
    assert owner["blockOwnerDeletion"] is False


def test_the_crews_account_has_no_token_of_its_own() -> None:
    account = build_service_account("team-a")
    assert account["metadata"]["namespace"] == "team-a"
    assert account["automountServiceAccountToken"] is False


NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?\Z")


@given(NAMES, st.uuids(), st.integers(1, 99), st.sampled_from(list(Phase)), st.integers(1, 999))
def test_names_and_labels_are_always_legal(
    name: str, uid: UUID, number: int, phase: Phase, attempt: int
) -> None:
    made = job_name(name, uid, round=number, phase=phase, attempt=attempt)
    assert len(made) <= 63
    assert made.strip("-") == made
    assert all(c.isalnum() or c == "-" for c in made)
    assert made == made.lower()
    labels = attempt_labels(name, uid, round=number, phase=phase, attempt=attempt)
    assert all(0 < len(value) <= 63 for value in labels.values())
    assert label_value(name)[-1].isalnum()


def test_each_attempt_has_a_name_of_its_own() -> None:
    names = {
        job_name(name, uid, round=number, phase=phase, attempt=attempt)
        for name in ("servers", "servers-of-the-second-data-centre")
        for uid in (FLOW_ID, UUID(int=1))
        for number in (1, 2)
        for phase in Phase
        for attempt in (1, 2)
    }
    assert len(names) == 2 * 2 * 2 * len(Phase) * 2
