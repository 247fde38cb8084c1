"""What the operator counts, for Prometheus. Names start with `discoveryflow_`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FLOWS = Gauge("discoveryflow_flows", "Flows by state.", ["state"])
QUEUE_LENGTH = Gauge("discoveryflow_queue_length", "Flows that wait to be reconciled.")
TIMERS = Gauge("discoveryflow_timers", "Flows that will be looked at again at a set time.")
LEADER = Gauge("discoveryflow_leader", "1 while this operator leads.")
ATTEMPTS_FAILED = Counter("discoveryflow_attempts_failed", "Failed attempts by code.", ["code"])
RECONCILE_ERRORS = Counter("discoveryflow_reconcile_errors", "Reconciliations that failed.")
RECONCILE_SECONDS = Histogram(
    "discoveryflow_reconcile_seconds",
    "Time of one reconciliation.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
TRANSITION_SECONDS = Histogram(
    "discoveryflow_transition_seconds",
    "From the commit that made a phase ready to the creation of its Job.",
    buckets=(0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
NOTIFICATIONS = Counter(
    "discoveryflow_notifications", "Messages to webhooks by what became of them.", ["outcome"]
)
