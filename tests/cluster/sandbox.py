"""The resource, its roles and its policy under another name on the same cluster.

An installed release has its own definition, operator and admission policy; a test of a single rule
must neither meet nor disturb them. So the generated CRD and the chart's rendered objects are
installed once more with another API group, plural and name prefix: everything else is as shipped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from discovery_core.phases import Phase
from discovery_core.wire.protocol import TOKEN_AUDIENCE

from tests.cluster.kube import ROOT, Helm, Kubectl, eventually

GROUP = "discoveryflow.dev"
PLURAL = "discoveryflows"
CHART = ROOT / "charts" / "discoveryflow"
POLICY_LABEL = "discoveryflow.test/policy"


@dataclass(frozen=True)
class Sandbox:
    """A copy of the product's API whose names start with `prefix`."""

    kubectl: Kubectl
    helm: Helm
    prefix: str

    @property
    def group(self) -> str:
        return f"{self.prefix}.test"

    @property
    def plural(self) -> str:
        return f"{self.prefix}flows"

    @property
    def resource(self) -> str:
        """What kubectl calls the copied resource."""
        return f"{self.plural}.{self.group}"

    def rewrite(self, text: str) -> str:
        """YAML about the product as YAML about the copy."""
        return text.replace(PLURAL, self.plural).replace(f"{GROUP}/", f"{self.group}/")

    def define(self) -> None:
        """Install the copied definition and wait until it is served."""
        text = (ROOT / "crds" / f"{GROUP}_{PLURAL}.yaml").read_text(encoding="utf-8")
        crd = yaml.safe_load(text)
        crd["metadata"]["name"] = self.resource
        crd["spec"]["group"] = self.group
        names = crd["spec"]["names"]
        names.update(plural=self.plural, singular=self.plural[:-1], shortNames=[], categories=[])
        self.kubectl.apply(crd)
        # a definition that is new has no conditions at all yet, which `wait` takes for an error
        established = ("wait", "--for=condition=Established", f"crd/{self.resource}")
        eventually(
            lambda: self.kubectl.try_(*established, "--timeout=10s").ok,
            seconds=60,
            what=f"{self.resource} is served",
        )

    def remove(self) -> None:
        """Take away everything that carries this sandbox's label, and the definition."""
        kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies,namespaces"
        self.kubectl("delete", kinds, "-l", f"sandbox={self.prefix}", "--wait=false")
        self.kubectl("delete", "clusterroles", "-l", f"sandbox={self.prefix}")
        self.kubectl("delete", "crd", self.resource, "--wait=false")

    def labelled(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """`manifest` with the label by which `remove` finds it, and no other."""
        manifest["metadata"]["labels"] = {"sandbox": self.prefix}
        return manifest

    def rendered(self, template: str, *settings: str) -> list[dict[str, Any]]:
        """What the chart's `template` renders to, for the copy."""
        arguments = [self.prefix, str(CHART), "--namespace=default"]
        arguments += [f"--show-only=templates/{template}"]
        arguments += [f"--values={CHART}/ci/embedded-values.yaml"]
        arguments += [f"--set=fullnameOverride={self.prefix}"]
        arguments += [f"--set={setting}" for setting in settings]
        text = self.rewrite(self.helm("template", *arguments))
        text = text.replace(f"[{GROUP}]", f"[{self.group}]").replace(
            f"'{GROUP}'", f"'{self.group}'"
        )
        # crews of the copy: pods with a token for another audience, or with other names
        text = text.replace(TOKEN_AUDIENCE, self.audience)
        text = text.replace("|".join(phase.replace("_", "-") for phase in Phase), self.prefix)
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]

    def people_roles(self) -> list[dict[str, Any]]:
        """The chart's roles for people, without what would add them to the cluster's own."""
        return [
            self.labelled(manifest)
            for manifest in self.rendered("rbac.yaml")
            if manifest["kind"] == "ClusterRole"
            and manifest["metadata"]["name"].endswith(("-view", "-edit", "-approve", "-purge"))
        ]

    @property
    def audience(self) -> str:
        """Whom the tokens of the copy's crews are for."""
        return f"{self.prefix}-crews"

    def policy(
        self,
        name: str,
        *settings: str,
        without: str | None = None,
        template: str = "admission.yaml",
    ) -> list[dict[str, Any]]:
        """Policy and binding for namespaces labelled `name`, maybe without one validation.

        Raises KeyError where there is no validation with the message `without`.
        """
        policy, binding = self.rendered(template, *settings)
        if without is not None:
            kept = [v for v in policy["spec"]["validations"] if v["message"] != without]
            if len(kept) == len(policy["spec"]["validations"]):
                raise KeyError(without)
            policy["spec"]["validations"] = kept
        for manifest in (policy, binding):
            manifest["metadata"]["name"] = f"{self.prefix}-{name}"
            self.labelled(manifest)
        binding["spec"]["policyName"] = policy["metadata"]["name"]
        binding["spec"]["matchResources"] = {
            "namespaceSelector": {"matchLabels": {POLICY_LABEL: name}}
        }
        return [policy, binding]

    def namespace(self, name: str, policy: str) -> dict[str, Any]:
        """A namespace under the policy of that name."""
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": f"{self.prefix}-{name}",
                "labels": {"sandbox": self.prefix, POLICY_LABEL: policy},
            },
        }

    def flow(self, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        """A flow of the copied kind."""
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        return {
            "apiVersion": f"{self.group}/v1alpha1",
            "kind": "DiscoveryFlow",
            "metadata": metadata,
            "spec": copy.deepcopy(spec),
        }


def examples() -> Sequence[Path]:
    """Every manifest in examples/."""
    return sorted((ROOT / "examples").glob("*.yaml"))
