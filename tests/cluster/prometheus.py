"""A real Prometheus that scrapes the installed pods and judges the chart's own rules.

It is a process of this machine, so it needs a cluster whose pods this machine reaches. What the
rules give minutes gets seconds here; their expressions, metrics and causes are the real ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml
from kubernetes.client import ApiException, CoreV1Api
from urllib3.exceptions import HTTPError

from tests.cluster.kube import ROOT, eventually
from tests.cluster.product import INSTALLED_IN
from tests.cluster.provision.binaries import require
from tests.monitoring.background import free_port

RULES = ROOT / "charts" / "discoveryflow" / "files" / "alerts.yaml"
# `for` is divided by the first, windows of rates by the second
SHORTER_FOR = 60
SHORTER_WINDOW = 20
# thresholds that are ages of something in a process, which no test can set back
SHORTER_AGES = {"DiscoveryFlowWatchSilent": (300, 10), "DiscoveryFlowSweepStuck": (120, 10)}
# which pods have metrics, and on which of their ports: as the chart's PodMonitor has it
COMPONENTS = "app.kubernetes.io/component in (operator, execution, api)"
PORTS = ("health", "metrics")
_UNITS = {"s": 1, "m": 60, "h": 3600}
Found = list[dict[str, Any]]


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; builds both where they are missing."""
    return f"{require(('prometheus',))}/{name}"


def rules() -> list[dict[str, Any]]:
    """The chart's alert rules."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shortened() -> dict[str, Any]:
    """The rules as the test's Prometheus gets them."""
    return {"groups": [{"name": "all", "interval": "1s", "rules": [_short(r) for r in rules()]}]}


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]


def _short(rule: dict[str, Any]) -> dict[str, Any]:
    def window(found: re.Match[str]) -> str:
        return f"[{_seconds(found[1]) // SHORTER_WINDOW}s]"

    expression = re.sub(r"\[(\d+[smh])\]", window, rule["expr"])
    if rule["alert"] in SHORTER_AGES:
        real, short = SHORTER_AGES[rule["alert"]]
        assert expression.endswith(f"> {real}"), rule
        expression = expression.removesuffix(str(real)) + str(short)
    held = max(1, _seconds(rule["for"]) // SHORTER_FOR)
    return rule | {"expr": expression, "for": f"{held}s"}


def installed_pods(core: CoreV1Api) -> Found:
    """Where the installed pods tell their metrics, in the words of Prometheus."""
    pods = core.list_namespaced_pod(INSTALLED_IN, label_selector=COMPONENTS, _request_timeout=5)
    return [
        {
            "targets": [f"{pod.status.pod_ip}:{port.container_port}"],
            "labels": {
                "namespace": INSTALLED_IN, "pod": pod.metadata.name, "container": container.name,
            },
        }
        for pod in pods.items
        if pod.status.phase == "Running" and pod.status.pod_ip
        for container in pod.spec.containers
        for port in container.ports or []
        if port.name in PORTS
    ]  # fmt: skip


class Prometheus:
    """Scrapes what `find` finds, which it asks again each second."""

    def __init__(self, folder: Path, find: Callable[[], Found]) -> None:
        self._folder = folder
        self._port = free_port()
        self._find = find
        self._closing = threading.Event()
        self._scrape([])
        (folder / "rules.yaml").write_text(yaml.safe_dump(shortened()))
        config = {
            "global": {
                "scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s",
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "discoveryflow",
                    "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
                }
            ],
        }  # fmt: skip
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._popen = subprocess.Popen(
            [
                tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stderr=(folder / "log").open("wb"), stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()
        try:
            eventually(self._ready, seconds=60, what=f"Prometheus is ready: {folder / 'log'}")
        except BaseException:
            self.close()
            raise

    def _follow(self) -> None:
        while not self._closing.wait(1):
            # an API server that does not answer leaves the targets as they are, as in Prometheus
            with suppress(HTTPError, ApiException):
                self._scrape(self._find())

    def _scrape(self, found: Found) -> None:
        part = self._folder / "targets.part"
        part.write_text(json.dumps(found))
        part.rename(self._folder / "targets.json")

    def _ready(self) -> bool:
        assert self._popen.poll() is None, (self._folder / "log").read_text()[-3000:]
        try:
            return self._get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _get(self, path: str, **query: str) -> httpx.Response:
        return httpx.get(
            f"http://127.0.0.1:{self._port}{path}", params=query, timeout=10, trust_env=False
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector."""
        answer = self._get("/api/v1/query", query=expression).json()
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alerts(self, *states: str) -> list[dict[str, Any]]:
        """Alerts in one of these states, by default `firing`."""
        found = self._get("/api/v1/alerts").json()["data"]["alerts"]
        return [alert for alert in found if alert["state"] in (states or ("firing",))]

    def wait_firing(self, name: str, words: str, seconds: float) -> dict[str, Any]:
        """Until an alert of that name fires whose summary has these words; returns it."""
        deadline = time.monotonic() + seconds
        while True:
            firing = self.alerts()
            for alert in firing:
                summary = alert["annotations"]["summary"]
                if alert["labels"]["alertname"] == name and words in summary:
                    return alert
            assert time.monotonic() < deadline, (words, firing, *self._why(name))
            time.sleep(0.5)

    def wait_quiet(self, seconds: float) -> None:
        """Until no alert fires or is about to."""
        deadline = time.monotonic() + seconds
        while left := self.alerts("firing", "pending"):
            assert time.monotonic() < deadline, left
            time.sleep(0.5)

    def stays_quiet(self, seconds: float) -> None:
        """Fails as soon as an alert fires within that time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.alerts() == []
            time.sleep(0.5)

    def _why(self, name: str) -> tuple[object, ...]:
        (rule,) = [r for r in shortened()["groups"][0]["rules"] if r["alert"] == name]
        parts = re.split(r" (?:>=|<=|==|>|<) ", rule["expr"])
        return name, self.query(rule["expr"]), self.query(parts[0])

    def close(self) -> None:
        """Ends it."""
        self._closing.set()
        self._popen.terminate()
        self._popen.wait(30)
        self._follower.join(30)
