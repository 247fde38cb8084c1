"""Manual, rules and dashboard agree with the code, and no label can grow without bound."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.documented import metrics, table

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts" / "discoveryflow" / "files"
MANUAL = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
# its labels are bounded by the installation's settings, codes, states and routes
BOUNDED = {
    "state",
    "code",
    "outcome",
    "kind",
    "route",
    "method",
    "status",
    "about",
    "use",
    "endpoint",
    "reason",
    "loop",
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FILES / "dashboard.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    return [rule["expr"] for rule in rules()] + shown


def known() -> set[str]:
    names: set[str] = set()
    for metric in metrics():
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return names


def test_the_manual_has_the_metrics_of_the_code() -> None:
    assert table() in MANUAL, f"docs/monitoring.md needs this table:\n{table()}"


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    asked = {name for text in expressions() for name in re.findall(r"discoveryflow_\w+", text)}
    assert len(asked) > 20
    assert asked - known() == set()


def test_every_metric_of_flows_is_looked_at_by_a_rule_or_on_the_dashboard() -> None:
    asked = " ".join(expressions())
    unseen = [m.name for m in metrics() if m.name not in asked]
    assert unseen == ["discoveryflow_timers", "discoveryflow_leader_epoch"]


def test_no_label_grows_without_bound() -> None:
    assert {label for metric in metrics() for label in metric.labels} <= BOUNDED


def test_every_alert_says_what_to_do_and_has_its_section() -> None:
    sections = re.findall(r"^### (DiscoveryFlow\w+)\n(.+)", MANUAL, re.MULTILINE)
    assert [name for name, _ in sections] == [rule["alert"] for rule in rules()]
    for rule in rules():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}
        assert len(notes["description"]) > 80
        assert notes["runbook"] == f"docs/monitoring.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert re.fullmatch(r"\d+m", rule["for"])


def test_panels_have_titles_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
