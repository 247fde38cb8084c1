"""Each process ends well when it is asked to, and its probes tell what is wrong with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy.engine import URL

from tests.monitoring.background import until
from tests.monitoring.conftest import Installation
from tests.monitoring.processes import ApiProcess, OperatorProcess

pytestmark = pytest.mark.slow

# what Kubernetes gives a pod until it kills it (terminationGracePeriodSeconds)
GRACE = 30
APIS = {"discovery_api": "api", "discovery_api.execution": "execution"}


@pytest.fixture
def operator(installation: Installation, tmp_path: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(
        tmp_path, database=installation.url("operator"),
        kubeconfig=installation.kubernetes.kubeconfig(),
    )  # fmt: skip
    process.wait_ready()
    yield process
    process.close()


@contextmanager
def running(module: str, installation: Installation, folder: Path) -> Iterator[ApiProcess]:
    """A ready API."""
    process = ApiProcess(
        module, folder, database=installation.url(APIS[module]),
        kubernetes=installation.kubernetes.url,
    )  # fmt: skip
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()


@pytest.fixture(params=list(APIS), ids=list(APIS.values()))
def api(
    request: pytest.FixtureRequest, installation: Installation, tmp_path: Path
) -> Iterator[ApiProcess]:
    """One that the test may end."""
    with running(request.param, installation, tmp_path) as process:
        yield process


@pytest.fixture(scope="module", params=list(APIS), ids=list(APIS.values()))
def lasting_api(
    request: pytest.FixtureRequest,
    installation: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApiProcess]:
    """One for all tests that leave it as it was."""
    with running(request.param, installation, tmp_path_factory.mktemp("lasting")) as process:
        yield process


@pytest.fixture(autouse=True)
def _healthy(installation: Installation) -> Iterator[None]:
    yield
    installation.kubernetes.silent.clear()
    installation.background.run(installation.proxy.open()) if _is_shut(installation) else None


def _is_shut(installation: Installation) -> bool:
    try:
        psycopg.connect(installation.url("operator"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return True
    return False


def leaders(installation: Installation) -> int:
    """Holders whose time is not over."""
    return int(installation.sql("SELECT count(*) FROM leader WHERE expires_at > now()")[0][0])


# -- the operator ----------------------------------------------------------------------------------


def test_the_operator_gives_leadership_back_and_ends_with_0(
    installation: Installation, operator: OperatorProcess
) -> None:
    until(lambda: leaders(installation) == 1, 20, lambda: operator.text)
    installation.apply("ends", namespace="team-b")
    until(lambda: "StartAttempt" in operator.text, 20, lambda: operator.text)
    status, seconds = operator.terminate(GRACE)
    assert status == 0, operator.text[-3000:]
    assert seconds < GRACE
    assert leaders(installation) == 0
    assert "stopped" in [line["event"] for line in operator.lines()]


def test_the_operator_finishes_what_it_has_begun(
    installation: Installation, operator: OperatorProcess
) -> None:
    installation.kubernetes.slow["jobs"] = 3
    flow = installation.apply("under-way", namespace="team-b")
    state = "SELECT state FROM phase_runs WHERE flow_id = %s"
    until(lambda: installation.sql(state, flow) == [("Created",)], 30, lambda: operator.text)
    status, seconds = operator.terminate(GRACE)
    installation.kubernetes.slow.clear()
    assert (status, seconds < GRACE) == (0, True), operator.text[-3000:]
    assert installation.sql(state, flow) == [("Launched",)], "the Job's uid was written down"
    assert leaders(installation) == 0


def test_the_operator_ends_while_the_database_is_away(
    installation: Installation, operator: OperatorProcess
) -> None:
    installation.shut_database()
    status, seconds = operator.terminate(GRACE)
    assert (status, seconds < GRACE) == (0, True), operator.text[-3000:]


def test_the_operator_s_readiness_notices_a_lost_database_and_its_return(
    installation: Installation, operator: OperatorProcess
) -> None:
    installation.shut_database()
    until(lambda: operator.get("/readyz").status_code == 503, 20, lambda: operator.text)
    assert "database does not answer" in operator.get("/readyz").text
    assert operator.get("/healthz").status_code == 200, "a restart would not bring it back"
    installation.open_database()
    until(lambda: operator.get("/readyz").status_code == 200, 30, lambda: operator.text)


def test_the_operator_s_liveness_notices_a_silent_watch(
    installation: Installation, operator: OperatorProcess
) -> None:
    installation.apply("seen")
    assert operator.get("/healthz").status_code == 200
    time.sleep(2)
    assert operator.get("/healthz").status_code == 200
    installation.kubernetes.silent.add("discoveryflows")
    installation.apply("unseen")
    until(lambda: operator.get("/healthz").status_code == 500, 20, lambda: operator.text)
    assert "the watch of DiscoveryFlow delivers nothing" in operator.get("/healthz").text


def test_a_standby_notices_a_lost_database_too(
    installation: Installation, operator: OperatorProcess, tmp_path: Path
) -> None:
    until(lambda: leaders(installation) == 1, 20, lambda: operator.text)
    second = OperatorProcess(
        tmp_path / "second", database=installation.url("operator"),
        kubeconfig=installation.kubernetes.kubeconfig(),
    )  # fmt: skip
    try:
        second.wait_ready()
        # on a busy machine the second may have taken the lead over
        both = (second, operator)
        standby = until(lambda: next(filter(stands_by, both), None), 20, lambda: second.text)
        installation.shut_database()
        until(lambda: standby.get("/readyz").status_code == 503, 20, lambda: standby.text)
        installation.open_database()
        until(lambda: standby.get("/readyz").status_code == 200, 30, lambda: standby.text)
        until(lambda: leaders(installation) == 1, 20, lambda: operator.text)
    finally:
        second.close()


def stands_by(process: OperatorProcess) -> bool:
    """Whether it does not lead, and so tells nothing that only the leader knows."""
    told = process.get("/metrics").text
    return "discoveryflow_leader 0.0" in told and "discoveryflow_flows{" not in told


# -- the APIs --------------------------------------------------------------------------------------


def test_an_api_s_readiness_notices_a_lost_database_and_its_return(
    installation: Installation, lasting_api: ApiProcess
) -> None:
    api = lasting_api
    installation.shut_database()
    # what was found in the last second is told again
    until(lambda: api.ready()[0] == 503, 20, lambda: api.text)
    assert "database does not answer" in api.ready()[1]
    assert "discoveryflow_database_up 0.0" in api.get("/metrics").text
    installation.open_database()
    until(lambda: api.ready()[0] == 200, 20, lambda: api.text)
    assert "discoveryflow_database_up 1.0" in api.get("/metrics").text


def test_an_api_ends_with_0(api: ApiProcess) -> None:
    status, seconds = api.terminate(GRACE)
    assert status == 0, api.text[-3000:]
    assert seconds < GRACE
    with pytest.raises(httpx.TransportError):
        api.get("/metrics")


def test_an_api_ends_while_the_database_is_away(
    installation: Installation, api: ApiProcess
) -> None:
    installation.shut_database()
    until(lambda: api.ready()[0] == 503, 20, lambda: api.text)
    status, seconds = api.terminate(GRACE)
    assert (status, seconds < GRACE) == (0, True), api.text[-3000:]


def test_metrics_are_on_their_own_port_only(lasting_api: ApiProcess) -> None:
    api = lasting_api
    with api.client() as client:
        assert client.get("/metrics", headers={"Authorization": ""}).status_code == 404
    figures = api.get("/metrics")
    assert figures.status_code == 200
    assert 'discoveryflow_database_connections{use="limit"} 10.0' in figures.text
    assert api.get("/api/v1/discovery/flows").status_code == 404


# -- the migration ---------------------------------------------------------------------------------


def migration(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "discovery_core.store.migrate", "upgrade"],
        env=os.environ | {"DISCOVERY_DATABASE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_migration_that_is_stopped_leaves_nothing_half_done(
    installation: Installation, postgres: URL
) -> None:
    """It waits for another runner's lock; stopped there, the next one does the whole work."""
    name = f"stopped_{uuid4().hex[:12]}"
    superuser = postgres.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(superuser, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = postgres.set(drivername="postgresql", database=name)
        text = url.render_as_string(hide_password=False)
        with psycopg.connect(text, autocommit=True) as other:
            other.execute("SELECT pg_advisory_lock(7203411905)")
            process = migration(text)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event = %s"
            until(
                lambda: admin.execute(waiting, (name, "advisory")).fetchone() == (1,),
                60,
                process.poll,
            )
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=GRACE)
        assert time.monotonic() - began < GRACE
        assert process.returncode == 128 + signal.SIGTERM, "a stopped Job has not succeeded"
        assert '"component": "migration"' in errors
        assert "stopped before the end" in errors
        again = migration(text)
        _, errors = again.communicate(timeout=120)
        assert again.returncode == 0, errors
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


# -- streams ---------------------------------------------------------------------------------------


def test_the_user_api_closes_streams_before_it_ends(
    installation: Installation, tmp_path: Path
) -> None:
    read: list[str] = []
    ended = threading.Event()

    def listen(api: ApiProcess) -> None:
        with api.client() as client, client.stream("GET", "/api/v1/discovery/events") as answer:
            assert answer.status_code == 200
            read.extend(answer.iter_lines())
        ended.set()

    with running("discovery_api", installation, tmp_path) as api:
        listener = threading.Thread(target=listen, args=(api,), daemon=True)
        listener.start()
        open_stream = 'discoveryflow_api_listeners{about="all"} 1.0'
        until(lambda: open_stream in api.get("/metrics").text, 20, lambda: api.text)
        status, seconds = api.terminate(GRACE)
        assert (status, seconds < GRACE) == (0, True), api.text[-3000:]
        assert ended.wait(5), "the stream was broken off, and not ended"
        assert read[0] == "retry: 2000"
        (line,) = [x for x in api.lines() if x.get("path") == "/api/v1/discovery/events"]
        assert line["status"] == 200
        assert not re.search("Cancel .* running task", api.text)
