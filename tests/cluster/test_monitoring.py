"""What the chart gives a Prometheus operator and Grafana, as helm renders and promtool takes it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube import Helm
from tests.cluster.prometheus import COMPONENTS, PORTS, RULES, rules, tool
from tests.cluster.sandbox import CHART

EXTERNAL = CHART / "ci" / "external-values.yaml"
ALL_ON = [
    "--set=monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.release=prom",
    "--set=monitoring.prometheusRule.enabled=true,monitoring.prometheusRule.labels.release=prom",
    "--set=monitoring.dashboard.enabled=true,monitoring.dashboard.labels.folder=ours",
]
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture
def rendered(helm: Helm) -> Render:
    """The chart's objects with some settings."""
    return functools.partial(helm.template, "df", str(CHART), f"--values={EXTERNAL}")


def one(objects: Objects, kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(name)]
    return found


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_of_it_is_off_unless_asked_for(rendered: Render) -> None:
    kinds = {document["kind"] for document in rendered()}
    assert not kinds & {"PodMonitor", "PrometheusRule", "ConfigMap"}
    more = {document["kind"] for document in rendered(*ALL_ON)} - kinds
    assert more == {"PodMonitor", "PrometheusRule", "ConfigMap"}


def test_the_rules_are_the_file_s_and_promtool_takes_them(rendered: Render, tmp_path: Path) -> None:
    rule = one(rendered(*ALL_ON), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prom"
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(file))


def test_the_dashboard_is_the_file_s_and_its_questions_can_be_asked(
    rendered: Render, tmp_path: Path
) -> None:
    held = one(rendered(*ALL_ON), "ConfigMap", "-dashboard")
    labels = held["metadata"]["labels"]
    assert (labels["grafana_dashboard"], labels["folder"]) == ("1", "ours")
    dashboard = json.loads(held["data"]["discoveryflow.json"])
    assert dashboard == json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    recorded = [{"record": f"panel_{n}", "expr": text} for n, text in enumerate(asked)]
    file = tmp_path / "questions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": recorded}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", str(file))


def test_the_pod_monitor_finds_each_component_s_metrics(rendered: Render) -> None:
    objects = rendered(*ALL_ON)
    monitor = one(objects, "PodMonitor")
    selector = monitor["spec"]["selector"]
    (components,) = [e["values"] for e in selector["matchExpressions"]]
    ports = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    # the tests of the alerts scrape the same
    assert f"app.kubernetes.io/component in ({', '.join(components)})" == COMPONENTS
    assert ports == set(PORTS)
    found = {}
    for workload in objects:
        if workload["kind"] != "Deployment":
            continue
        template = workload["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        (container,) = template["spec"]["containers"]
        scraped = [p for p in container["ports"] if p["name"] in ports]
        found[labels["app.kubernetes.io/component"]] = [p["containerPort"] for p in scraped]
        given = {e["name"]: e.get("value") for e in container["env"]}
        if labels["app.kubernetes.io/component"] != "operator":
            assert given["DISCOVERY_METRICS_PORT"] == "8080"
    assert found == {name: [8080] for name in components}
    assert set(found) == {"operator", "execution", "api"}


def test_metrics_are_reachable_for_those_who_scrape_only(rendered: Render) -> None:
    for settings, open_to in (((), True), (("--set=networkPolicy.metricsFrom=null",), False)):
        objects = rendered(*settings)
        for component in ("operator", "execution", "api"):
            ingress = one(objects, "NetworkPolicy", f"-{component}")["spec"].get("ingress", [])
            ports = {p["port"]: rule for rule in ingress for p in rule["ports"]}
            assert (8080 in ports) is open_to
            if open_to:
                assert "namespaceSelector" in str(ports[8080]["from"])
        assert "ingress" not in one(objects, "NetworkPolicy", "-migration")["spec"]
        services = [o for o in objects if o["kind"] == "Service"]
        assert not [
            s for s in services if re.search("metrics|health|8080", str(s["spec"]["ports"]))
        ]
