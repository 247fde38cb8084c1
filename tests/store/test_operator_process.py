"""The operator as a process runs it, all its loops together, on a real database.

Only kopf's watches are left out: what they deliver comes by the operator's own lists here.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import kopf
import psycopg
import pytest
from discovery_core.states import FlowState
from discovery_core.store import Database, ExecutionStore, OperatorStore
from discovery_core.store.migrate import create_roles
from discovery_core.tasks import end
from discovery_core.wire.protocol import Fail
from discovery_operator import main
from discovery_operator.kube import Cluster
from discovery_operator.main import Operator
from discovery_operator.settings import OperatorSettings
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from tests.postgres import DatabaseUrls, migrate
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import SPEC

pytestmark = pytest.mark.slow


class KnownCluster(FakeCluster):
    """With a cluster id, and the name that leadership and flows are kept under."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces["kube-system"] = uuid4()
        self.config_maps["team-a", "servers"] = {"data": {"servers.csv": "name\nweb01\n"}}

        self.looks = 0

    async def close(self) -> None:
        """There is nothing to close."""

    async def list_pods(self) -> tuple[list[dict[str, Any]], int]:
        self.looks += 1
        return await super().list_pods()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(url: str, cluster: FakeCluster, **changes: Any) -> AsyncIterator[int]:
    """An operator with all its loops; yields the port of its health server."""
    port = free_port()
    settings = OperatorSettings(
        database_url=url,
        crew_image="crews:test",
        execution_url="https://execution:8443",
        health_host="127.0.0.1",
        health_port=port,
        sweep_seconds=0.2,
        resync_seconds=0.4,
        **{"leader_ttl_seconds": 2, **changes},
    )
    api: Any = cluster
    task = asyncio.create_task(Operator(settings, api).run())
    try:
        yield port
        assert not task.done(), task.result()
    finally:
        await end(task)
        assert task.cancelled()


async def ask(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/{path}") as answer,
    ):
        return answer.status, await answer.text()


async def until(probe: Any, seconds: float = 15) -> Any:
    for _ in range(int(seconds / 0.05)):
        try:
            found = await probe()
        except aiohttp.ClientConnectorError:
            found = None
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


async def ready(port: int) -> bool:
    return (await ask(port, "readyz"))[0] == 200


@pytest.fixture
def empty_database(postgres: URL, template: str) -> str:
    """A database without any table (the roles exist, because the template was made)."""
    assert template
    name = f"empty_{uuid4().hex[:12]}"
    superuser = postgres.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(superuser, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    engine = create_engine(postgres.set(database=name))
    with engine.begin() as connection:
        create_roles(connection, {})
    engine.dispose()
    return postgres.set(database=name).render_as_string(hide_password=False)


async def test_it_waits_for_the_schema_and_says_so(empty_database: str, postgres: URL) -> None:
    superuser = empty_database.replace("postgresql+psycopg", "postgresql")
    async with running(superuser, KnownCluster()) as port:

        async def says_what_it_waits_for() -> bool:
            status, text = await ask(port, "readyz")
            return status == 503 and "--from=cronjob/RELEASE-migration" in text

        await until(says_what_it_waits_for)
        assert (await ask(port, "healthz"))[0] == 200
        url = postgres.set(database=superuser.rsplit("/", 1)[-1].split("?")[0])
        await asyncio.to_thread(migrate, url)
        await until(lambda: ready(port), seconds=30)


async def test_it_waits_for_the_database_and_says_so() -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with running(url, KnownCluster()) as port:

        async def says_what_it_waits_for() -> bool:
            status, text = await ask(port, "readyz")
            return status == 503 and "the database does not answer" in text

        await until(says_what_it_waits_for)


async def test_all_loops_together_move_a_flow(database_urls: DatabaseUrls) -> None:
    cluster = KnownCluster()
    reader = Database(database_urls.operator, application_name="test-reader")
    crews = Database(database_urls.execution, application_name="test-crews")
    store = OperatorStore(reader, cluster.namespaces["kube-system"])
    try:
        async with running(database_urls.operator, cluster, max_running=1) as port:
            await until(lambda: ready(port))
            first = cluster.apply("team-a", "servers", SPEC)
            await until(lambda: state_is(store, first, FlowState.RUNNING))
            second = cluster.apply("team-a", "later", SPEC)
            await until(lambda: state_is(store, second, FlowState.QUEUED))
            await until(lambda: launched(store, first))
            await fail_for_good(ExecutionStore(crews), store, cluster, first)
            await until(lambda: state_is(store, first, FlowState.FAILED), seconds=3)
            await until(lambda: state_is(store, second, FlowState.RUNNING), seconds=3)
            del cluster.flows["team-a", "later"]
            await until(lambda: state_is(store, second, FlowState.CANCELLED))
            assert cluster.status("team-a", "servers")["state"] == "Failed"
            _, figures = await ask(port, "metrics")
            assert "discoveryflow_leader 1.0" in figures
            await until(lambda: counted(port, 'discoveryflow_flows{state="Failed"} 1.0'))
            # no watch runs in this test, and that is exactly what a probe has to find out
            await until(lambda: watch_is_silent(port))
        assert await store.acquire_leadership("next", ttl=5) is not None
    finally:
        await reader.close()
        await crews.close()


async def test_a_standby_is_ready_and_takes_over_from_a_killed_leader(
    database_urls: DatabaseUrls,
) -> None:
    cluster = KnownCluster()
    cluster_id = cluster.namespaces["kube-system"]
    flow = cluster.apply("team-a", "servers", SPEC)
    reader = Database(database_urls.operator, application_name="test-reader")
    store = OperatorStore(reader, cluster_id)
    command = (sys.executable, "-m", "tests.store.operator_alone", database_urls.operator)
    leader = await asyncio.create_subprocess_exec(*command, str(cluster_id))
    try:
        first = await until(lambda: epoch(database_urls), seconds=60)
        async with running(database_urls.operator, cluster, leader_ttl_seconds=3) as port:
            await until(lambda: ready(port))
            before = await takeovers(port)
            await until(lambda: epoch(database_urls))
            assert await counted(port, "discoveryflow_leader 0.0")
            assert await store.load(flow) is None
            leader.kill()
            await until(lambda: state_is(store, flow, FlowState.RUNNING))
            assert await counted(port, "discoveryflow_leader 1.0")
            assert await takeovers(port) == before + 1
            assert await epoch(database_urls) == first + 1
    finally:
        with suppress(ProcessLookupError):
            leader.kill()
        await leader.wait()
        await reader.close()


async def test_a_change_that_came_while_another_one_led_is_seen_afterwards(
    database_urls: DatabaseUrls,
) -> None:
    """Of an ended flow too, whose row says nothing of it."""
    cluster = KnownCluster()
    reader = Database(database_urls.operator, application_name="test-reader")
    crews = Database(database_urls.execution, application_name="test-crews")
    store = OperatorStore(reader, cluster.namespaces["kube-system"])
    try:
        async with running(database_urls.operator, cluster) as port:
            await until(lambda: ready(port))
            flow = cluster.apply("team-a", "servers", SPEC)
            await until(lambda: launched(store, flow))
            await fail_for_good(ExecutionStore(crews), store, cluster, flow)
            await until(lambda: state_is(store, flow, FlowState.FAILED))
            await leads(database_urls, "'rival'", "1 hour")
            await until(lambda: counted(port, "discoveryflow_leader 0.0"))
            cluster.edit("team-a", "servers", rerun={"id": "again", "fromPhase": "data_import"})
            seen = cluster.looks
            await until(lambda: looked(cluster, seen + 2))
            assert await state_is(store, flow, FlowState.FAILED)
            await leads(database_urls, "holder", "0 s")
            await until(lambda: state_is(store, flow, FlowState.RUNNING))
    finally:
        await reader.close()
        await crews.close()


async def leads(urls: DatabaseUrls, holder: str, left: str) -> None:
    """Writes who leads for how long, whoever asks."""
    async with await psycopg.AsyncConnection.connect(urls.superuser) as connection:
        await connection.execute(
            f"UPDATE leader SET holder = {holder}, epoch = epoch + 1, "
            f"expires_at = clock_timestamp() + interval '{left}'"
        )


async def looked(cluster: KnownCluster, times: int) -> bool:
    return cluster.looks >= times


class _Kopf:
    """Stands in for kopf: gives a watch up at its first start, runs until stopped at its second."""

    def __init__(self) -> None:
        self.starts = 0
        self.again = asyncio.Event()
        self.end = asyncio.Event()

    async def operator(self, *, memo: kopf.Memo, **_: object) -> None:
        self.starts += 1
        try:
            if self.starts == 1:
                raise RuntimeError("410 Gone")
            self.again.set()
            await self.end.wait()
        finally:
            await memo.stop()


async def test_it_starts_over_when_kopf_gives_a_watch_up(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _Kopf()

    async def connect(**_: object) -> KnownCluster:
        return KnownCluster()

    monkeypatch.setattr(kopf, "operator", fake.operator)
    monkeypatch.setattr(Cluster, "connect", connect)
    monkeypatch.setattr(main, "RETRY_SECONDS", 0.01)
    settings = OperatorSettings(
        database_url=database_urls.operator,
        crew_image="crews:test",
        execution_url="https://execution:8443",
        health_host="127.0.0.1",
        health_port=0,
    )
    running = asyncio.create_task(main.run(settings))
    try:
        await asyncio.wait_for(fake.again.wait(), 30)
        await until(lambda: epoch(database_urls))
        fake.end.set()
        await asyncio.wait_for(running, 30)
    finally:
        running.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert fake.starts == 2


async def test_a_signal_ends_it_while_it_waits_to_start_over() -> None:
    stop = asyncio.Event()
    pausing = asyncio.create_task(main._pause(stop))
    try:
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(pausing, 30)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert stop.is_set()


async def epoch(urls: DatabaseUrls) -> int | None:
    """The epoch of whoever leads now, by the database's clock."""
    async with await psycopg.AsyncConnection.connect(urls.superuser) as connection:
        found = await connection.execute(
            "SELECT epoch FROM leader WHERE expires_at > clock_timestamp()"
        )
        row = await found.fetchone()
    return None if row is None else int(row[0])


async def takeovers(port: int) -> float:
    _, figures = await ask(port, "metrics")
    found = re.search(r"^discoveryflow_leader_takeovers_total (\S+)$", figures, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def watch_is_silent(port: int) -> bool:
    status, text = await ask(port, "healthz")
    return status == 500 and "the watch of DiscoveryFlow delivers nothing" in text


async def counted(port: int, line: str) -> bool:
    return line in (await ask(port, "metrics"))[1]


async def state_is(store: OperatorStore, flow_id: UUID, state: FlowState) -> bool:
    flow = await store.load(flow_id)
    return flow is not None and flow.state is state


async def launched(store: OperatorStore, flow_id: UUID) -> bool:
    flow = await store.load(flow_id)
    return flow is not None and flow.run is not None and flow.run.job_uid is not None


async def fail_for_good(
    crews: ExecutionStore, store: OperatorStore, cluster: FakeCluster, flow_id: UUID
) -> None:
    """A crew pod claims the attempt and reports a permanent failure."""
    flow = await store.load(flow_id)
    assert flow is not None
    assert flow.run is not None
    tenant, pod = cluster.namespaces["team-a"], str(uuid4())
    claim = await crews.claim(
        tenant_id=tenant,
        job_name=flow.run.job_name,
        job_uid=str(flow.run.job_uid),
        flow_id=flow_id,
        pod_uid=pod,
        pod_name="pod",
    )
    failure = Fail.model_validate(
        {"fence": claim.fence, "code": "EmptyFile", "message": "the file is empty"}
    )
    await crews.fail(tenant_id=tenant, pod_uid=pod, message=failure)
