"""The metrics as the code has them, written as the manual's table."""

from __future__ import annotations

from dataclasses import dataclass

import discovery_api.metrics
import discovery_core.loops
import discovery_core.store.monitoring
import discovery_operator.metrics
from discovery_operator.metrics import FROM_DATABASE
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

SOURCES = (
    ("operator", discovery_operator.metrics),
    ("APIs", discovery_api.metrics),
    ("each", discovery_core.store.monitoring),
    ("each", discovery_core.loops),
)


@dataclass(frozen=True)
class Documented:
    """One row. `process` tells who reports it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    process: str
    meaning: str

    def row(self) -> str:
        """As the manual has it."""
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.kind} | {labels} | {self.process} | {self.meaning} |"


def metrics() -> list[Documented]:
    """All of them, in the order of their definition."""
    found = []
    for process, module in SOURCES:
        found += [
            _of(metric, process)
            for metric in vars(module).values()
            if isinstance(metric, MetricWrapperBase)
        ]
        if module is discovery_operator.metrics:
            for family in FROM_DATABASE.describe():
                name = family.name + ("_total" if family.type == "counter" else "")
                labels = tuple(family._labelnames)  # type: ignore[attr-defined]
                found.append(Documented(name, family.type, labels, "leader", family.documentation))
    return found


def _of(metric: MetricWrapperBase, process: str) -> Documented:
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    kind = kinds[type(metric)]
    name = metric._name + ("_total" if kind == "counter" else "")
    return Documented(name, kind, tuple(metric._labelnames), process, metric._documentation)


def table() -> str:
    """The manual's table."""
    head = ["| Metric | Type | Labels | Of | Meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(metric.row() for metric in metrics())])
