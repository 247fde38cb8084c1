"""The API server takes every example, and says what to write where a manifest is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube import ROOT, Kubectl
from tests.cluster.sandbox import Sandbox, examples

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "bad-manifests.yaml").read_text(encoding="utf-8")
)
CANCEL_IS_FINAL = "state Cancel is final; create another DiscoveryFlow"
EDITS_WITH_APPROVAL = "edits go with decision Approve"
HINT_WITH_ASK_AGAIN = "hint goes with decision AskAgain"
UNIT_OR_NONE = (
    "write the unit of the column's values (unit:MiB), how they write decimals (decimal:comma), "
    "both with a comma between, or none"
)
RERUN_STAYS = "this rerun has been asked for already; write another id"
FIRST_ANSWER_COUNTS = "this request has been answered already; the first answer counts"
BASE = {"engagement": "dc-east-exit", "source": {"configMap": {"name": "servers", "key": "a.csv"}}}


@pytest.fixture(scope="module")
def inside(sandbox: Sandbox) -> Iterator[Kubectl]:
    """A namespace without any admission policy: here the definition alone decides."""
    manifest = sandbox.namespace("resource", "none")
    sandbox.kubectl.apply(manifest)
    yield sandbox.kubectl.within(manifest["metadata"]["name"])
    sandbox.kubectl("delete", "namespace", manifest["metadata"]["name"], "--wait=false")


def test_the_generated_definition_is_accepted(kubectl: Kubectl) -> None:
    path = ROOT / "crds" / "discoveryflow.dev_discoveryflows.yaml"
    answer = kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
        "-f", str(path),
    )  # fmt: skip
    assert (
        "customresourcedefinition.apiextensions.k8s.io/discoveryflows.discoveryflow.dev" in answer
    )


def test_there_are_examples() -> None:
    assert len(examples()) >= 3


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.name)
def test_every_example_is_accepted(path: Path, sandbox: Sandbox, inside: Kubectl) -> None:
    manifests = sandbox.rewrite(path.read_text(encoding="utf-8"))
    outcome = inside.try_create(manifests, dry_run=True)
    assert outcome.ok, outcome.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_bad_manifests_are_refused_in_plain_words(
    case: dict[str, Any], sandbox: Sandbox, inside: Kubectl
) -> None:
    outcome = inside.try_create(sandbox.flow("bad", case["spec"]), dry_run=True)
    assert not outcome.ok
    for part in case["says"]:
        assert part in outcome.stderr
    assert "evaluation error" not in outcome.stderr
    assert "no such key" not in outcome.stderr


def test_defaults_are_filled_in(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("plain", BASE))
    created = inside.json("get", sandbox.resource, "plain")
    assert created["spec"]["state"] == "Run"
    assert created["spec"]["llm"] == {
        "provider": "builtin",
        "timeout": "60s",
        "onBudget": "Builtin",
        "onUnavailable": "Builtin",
    }
    assert created["spec"]["approvalPolicy"]["onTimeout"] == "Reject"
    assert created["spec"]["retries"]["maxAttempts"] == 3
    assert "approval" not in created["spec"]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "source": (
        {"op": "replace", "path": "/spec/source/configMap/name", "value": "other"},
        "source cannot be changed; create another DiscoveryFlow",
    ),
    "engagement": (
        {"op": "replace", "path": "/spec/engagement", "value": "other"},
        "engagement cannot be changed; create another DiscoveryFlow",
    ),
    "engagement removed": (
        {"op": "remove", "path": "/spec/engagement"},
        "engagement cannot be changed; create another DiscoveryFlow",
    ),
    "requestedBy": (
        {"op": "add", "path": "/spec/requestedBy", "value": "somebody"},
        "requestedBy cannot be changed",
    ),
    "targetSchema": (
        {
            "op": "add",
            "path": "/spec/targetSchema",
            "value": {"configMap": {"name": "fields", "key": "fields.csv"}},
        },
        "targetSchema cannot be changed; create another DiscoveryFlow",
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_immutable_stays(
    change: tuple[dict[str, Any], str], sandbox: Sandbox, inside: Kubectl
) -> None:
    operation, message = change
    inside.apply(sandbox.flow("kept", BASE))
    outcome = inside.try_patch(sandbox.resource, "kept", [operation], dry_run=True)
    assert not outcome.ok
    assert message in outcome.stderr


def test_cancel_is_final_and_suspend_is_not(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("stopped", BASE))
    for state in ("Suspend", "Run", "Cancel"):
        operation = {"op": "replace", "path": "/spec/state", "value": state}
        assert inside.try_patch(sandbox.resource, "stopped", [operation]).ok
    operation = {"op": "replace", "path": "/spec/state", "value": "Run"}
    outcome = inside.try_patch(sandbox.resource, "stopped", [operation])
    assert CANCEL_IS_FINAL in outcome.stderr


def test_every_rule_of_the_definition_is_tried() -> None:
    text = (ROOT / "crds" / "discoveryflow.dev_discoveryflows.yaml").read_text(encoding="utf-8")
    version = yaml.safe_load(text)["spec"]["versions"][0]
    tried = [part for case in CASES for part in case["says"]]
    tried += [message for _, message in CHANGES.values()]
    tried += [CANCEL_IS_FINAL, FIRST_ANSWER_COUNTS, RERUN_STAYS]
    tried += [EDITS_WITH_APPROVAL, HINT_WITH_ASK_AGAIN, UNIT_OR_NONE]
    messages = set(_messages(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    assert len(messages) > 15
    untried = {m for m in messages if not any(part in m or m in part for part in tried)}
    assert untried == set()


def _messages(schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _messages(field)
    if "items" in schema:
        yield from _messages(schema["items"])


def _answer(request_id: str, decision: str, **more: Any) -> dict[str, Any]:
    return {
        "requestId": request_id,
        "artefactDigest": "sha256:" + "a" * 64,
        "decision": decision,
        "decidedBy": "ann",
        **more,
    }


def test_the_first_answer_to_a_request_stays(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("asked", BASE))
    first, second = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

    def give(answer: dict[str, Any]) -> str:
        operation = {"op": "add", "path": "/spec/approval", "value": answer}
        return inside.try_patch(sandbox.resource, "asked", [operation]).stderr

    assert give(_answer(first, "Approve")) == ""
    assert give(_answer(first, "Approve")) == ""
    assert FIRST_ANSWER_COUNTS in give(_answer(first, "Reject"))
    assert FIRST_ANSWER_COUNTS in give(
        _answer(first, "Approve", edits=[{"column": "a", "target": "b"}])
    )
    edits = [{"column": "a", "target": "b"}]
    assert EDITS_WITH_APPROVAL in give(_answer(second, "Reject", edits=edits))
    assert HINT_WITH_ASK_AGAIN in give(_answer(second, "Reject", hint="x"))
    odd = [{"column": "a", "target": "b", "transform": "in feet"}]
    assert UNIT_OR_NONE in give(_answer(second, "Approve", edits=odd))
    assert give(_answer(second, "Reject")) == ""
    remove = {"op": "remove", "path": "/spec/approval"}
    assert inside.try_patch(sandbox.resource, "asked", [remove]).ok


def test_a_rerun_stays_as_it_was_asked_for(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("rerun", BASE))

    def give(rerun: dict[str, Any]) -> str:
        operation = {"op": "add", "path": "/spec/rerun", "value": rerun}
        return inside.try_patch(sandbox.resource, "rerun", [operation]).stderr

    assert give({"id": "one", "fromPhase": "data_import"}) == ""
    assert RERUN_STAYS in give({"id": "one", "fromPhase": "approval"})
    assert give({"id": "two", "fromPhase": "approval"}) == ""


def test_columns_and_selectors(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("shown", BASE))
    inside.apply(sandbox.flow("hidden", {**BASE, "engagement": "other"}))
    status = {
        "state": "Running",
        "phase": "data_import",
        "progress": "0/6",
        "attempt": 2,
        "assets": 7,
        "message": "reading",
    }
    operation = [{"op": "add", "path": "/status", "value": status}]
    patch = yaml.safe_dump(operation, default_flow_style=True, width=10000)
    inside("patch", sandbox.resource, "shown", "--subresource=status", "--type=json", "-p", patch)
    short = inside("get", sandbox.resource, "--field-selector", "spec.engagement=dc-east-exit")
    head = short.splitlines()[0].split()
    assert head == ["NAME", "STATE", "PHASE", "PROGRESS", "AGE"]
    assert "hidden" not in short
    wide = inside("get", sandbox.resource, "-o", "wide", "--field-selector", "status.state=Running")
    assert wide.splitlines()[0].split()[-3:] == ["ATTEMPT", "ASSETS", "MESSAGE"]
    assert len(wide.splitlines()) == 2
    assert "reading" in wide


def test_a_status_outside_the_bounds_is_refused(sandbox: Sandbox, inside: Kubectl) -> None:
    inside.apply(sandbox.flow("bounds", BASE))
    for status, part in (
        ('{"state": "Dancing"}', "Unsupported value"),
        ('{"assets": -1}', "should be greater than or equal to 0"),
        (f'{{"message": "{"x" * 5000}"}}', "may not be more than 4096"),
    ):
        outcome = inside.try_(
            "patch", sandbox.resource, "bounds", "--subresource=status", "--type=merge",
            "-p", f'{{"status": {status}}}',
        )  # fmt: skip
        assert part in outcome.stderr
