"""The policy for namespaces with flows selects crew pods, which reach what they need only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from discovery_core.phases import Phase
from discovery_operator.manifests.job import build_job

from tests.unit.operator.test_manifests import CASES, SETTINGS

EXAMPLE = Path(__file__).parents[2] / "examples" / "crew-network-policy.yaml"


@pytest.fixture(scope="module")
def policy() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", CASES)
def test_s20_the_policy_selects_crew_pods(name: str, policy: dict[str, Any]) -> None:
    labels = build_job(CASES[name], SETTINGS)["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] == "crew"
    assert Phase(CASES[name].phase)


def test_s20_crew_pods_reach_names_execution_api_and_model_only(policy: dict[str, Any]) -> None:
    spec = policy["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    reached = []
    for rule in spec["egress"]:
        # a rule without one of the two is open to everywhere, or on every port
        assert rule["to"]
        assert rule["ports"]
        for peer in rule["to"]:
            assert peer["namespaceSelector"]["matchLabels"]
            reached.append((peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
                            sorted({port["port"] for port in rule["ports"]})))  # fmt: skip
    assert reached == [("kube-system", [53]), ("discoveryflow", [8443]), ("models", [443])]
    execution = spec["egress"][1]["to"][0]["podSelector"]["matchLabels"]
    assert execution["app.kubernetes.io/component"] == "execution"
