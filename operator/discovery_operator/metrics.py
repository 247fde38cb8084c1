"""What the operator counts, for Prometheus. Names start with `discoveryflow_`.

What the database tells is reported by the leader only, and by nobody once it leads no more: two
operators must not report two answers to one question. docs/monitoring.md lists all of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from discovery_core.errors import ErrorCode
from discovery_core.states import FlowState
from discovery_core.store.reads.figures import Figures
from discovery_core.store.schema import LIVE_RUN_STATES
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .slim import Kind

READY = Gauge("discoveryflow_operator_ready", "1 while the operator is ready, as /readyz says.")
QUEUE_LENGTH = Gauge("discoveryflow_queue_length", "Flows that wait to be reconciled.")
TIMERS = Gauge("discoveryflow_timers", "Flows that will be looked at again at a set time.")
LEADER = Gauge("discoveryflow_leader", "1 while this operator leads.")
LEADER_TAKEOVERS = Counter(
    "discoveryflow_leader_takeovers", "Times that this operator has become the leader."
)
LEADER_EPOCH = Gauge(
    "discoveryflow_leader_epoch", "Number of the leadership while this operator leads, else 0."
)
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
CIRCUIT_BREAKERS = Gauge(
    "discoveryflow_circuit_breaker",
    "Circuit breakers of language models' endpoints, one per tenant, by state.",
    ["endpoint", "state"],
)
PURGES = Counter(
    "discoveryflow_purges", "Removals of data by reason and outcome.", ["reason", "outcome"]
)
NOTIFICATIONS = Counter(
    "discoveryflow_notifications", "Messages to webhooks by what became of them.", ["outcome"]
)
SWEEP_AGE = Gauge("discoveryflow_sweep_age_seconds", "Time since the last sweep that succeeded.")
WATCH_AGE = Gauge(
    "discoveryflow_watch_age_seconds",
    "Time since a watch delivered an event, or a list showed that it had delivered all of them.",
    ["kind"],
)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"discoveryflow_{name}", text, value=value)


class FromDatabase(Collector):
    """Gauges of the leader's last look at the database, and the tokens counted so far."""

    def __init__(self) -> None:
        self._figures: Figures | None = None
        self._tokens: tuple[int, int] | None = None

    def take(self, figures: Figures, tokens: tuple[int, int] | None) -> None:
        """Reports these from now on; `tokens` are prompt and completion tokens."""
        self._figures, self._tokens = figures, tokens

    def drop(self) -> None:
        """Reports nothing: another operator does."""
        self._figures = self._tokens = None

    def describe(self) -> Iterable[Metric]:
        """Names and meanings, without values."""
        return self._families(Figures(), (0, 0))

    def collect(self) -> Iterable[Metric]:
        """What was taken last."""
        if self._figures is None:
            return ()
        return self._families(self._figures, self._tokens)

    @staticmethod
    def _families(figures: Figures, tokens: tuple[int, int] | None) -> Iterator[Metric]:
        flows = GaugeMetricFamily("discoveryflow_flows", "Flows by state.", labels=["state"])
        for state in FlowState:
            flows.add_metric([str(state)], figures.flows.get(state, 0))
        yield flows
        attempts = GaugeMetricFamily(
            "discoveryflow_attempts_live", "Attempts that have not ended.", labels=["state"]
        )
        for run_state in LIVE_RUN_STATES:
            attempts.add_metric([str(run_state)], figures.attempts.get(run_state, 0))
        yield attempts
        yield _gauge("slot_waiters", "Flows that are due to start.", figures.slot_waiters)
        yield _gauge(
            "slot_wait_seconds",
            "Age of the flow that has been due to start for longest, 0 without any.",
            figures.slot_seconds,
        )
        yield _gauge("approval_requests_open", "Requests that wait for people.", figures.requests)
        yield _gauge(
            "approval_requests_overdue",
            "Open requests that are past their deadline.",
            figures.requests_overdue,
        )
        yield _gauge(
            "approval_age_seconds", "Age of the oldest open request.", figures.request_seconds
        )
        yield _gauge("notifications_pending", "Messages not delivered yet.", figures.notifications)
        yield _gauge(
            "notifications_late_seconds",
            "How long the most overdue message has been due.",
            figures.notification_seconds,
        )
        if tokens is not None:
            used = CounterMetricFamily(
                "discoveryflow_crew_tokens",
                "Tokens of language models that ended attempts have used.",
                labels=["kind"],
            )
            used.add_metric(["prompt"], tokens[0])
            used.add_metric(["completion"], tokens[1])
            yield used


class Watches:
    """When each watch last showed that it lives; its age is told at every scrape."""

    def __init__(self) -> None:
        self._alive: dict[Kind, float] = {}

    def alive(self, kind: Kind) -> None:
        """The watch has just delivered, or shown that there was nothing to deliver."""
        if kind not in self._alive:
            WATCH_AGE.labels(kind=str(kind)).set_function(
                lambda: time.monotonic() - self._alive[kind]
            )
        self._alive[kind] = time.monotonic()


def start_counters() -> None:
    """Shows every counter at 0, so that its first event is an increase and not a new series."""
    for code in ErrorCode:
        ATTEMPTS_FAILED.labels(code=str(code))
    for outcome in ("delivered", "skipped", "retried", "failed"):
        NOTIFICATIONS.labels(outcome=outcome)


FROM_DATABASE = FromDatabase()
REGISTRY.register(FROM_DATABASE)
WATCHES = Watches()
start_counters()
