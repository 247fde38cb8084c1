"""Real exports, fields of one's own and large files, from source to inventory on the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.inventory import HAPPY, answer, assert_no_orphan, assets
from tests.cluster.kube import ROOT
from tests.cluster.product import Flow, Product

SHARED = ROOT.parent / "shared" / "data"
SERVERS = 20_000


@pytest.mark.parametrize(
    ("file", "rows", "name_field"),
    [
        pytest.param(
            *(SHARED / "aws-cmf" / "server-list.csv", None, "hostname"),
            marks=pytest.mark.exhaustive,
            id="server-list.csv",
        ),
        pytest.param(
            *(SHARED / "kubev2v-rvtools" / "example1.xlsx", 9, "asset_name"), id="rvtools.xlsx"
        ),
        pytest.param(
            *(SHARED / "konveyor" / "template_application_import.csv", 5, "application_name"),
            marks=pytest.mark.exhaustive,
            id="konveyor.csv",
        ),
    ],
)
def test_a_real_export_reaches_its_inventory(
    flow: Flow, file: Path, rows: int | None, name_field: str
) -> None:
    if not file.exists():
        pytest.skip(f"{file.parent.name}/{file.name} is not beside the checkout")
    flow.source(file)
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow)
    status = flow.wait("Succeeded", seconds=120)
    assert status["recordsImported"] == (rows or status["recordsImported"])
    assert status["progress"] == "6/6"
    found = assets(flow)
    assert len(found) == status["assets"] > 0
    assert all(asset["fields"].get(name_field) for asset in found)
    assert flow.history() == HAPPY
    assert_no_orphan(flow)


def test_fields_of_ones_own(flow: Flow) -> None:
    """A target schema in a ConfigMap: its fields are proposed, approved, and in the inventory."""
    flow.source("Rechner,Chargeback,Tier\nweb01,C-100,gold\nweb02,C-200,silver\n")
    fields = """
fields:
- {name: machine, description: name of the machine, synonyms: [Rechner]}
- {name: charge_to, description: who pays, synonyms: [Chargeback], pattern: "C-[0-9]+"}
- {name: service_class, description: class of service, allowedValues: [gold, silver, bronze]}
"""
    flow.kubectl("create", "configmap", "our-fields", f"--from-literal=fields.yaml={fields}")
    flow.spec["targetSchema"] = {"configMap": {"name": "our-fields", "key": "fields.yaml"}}
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow)
    flow.wait("Succeeded", seconds=120)
    assert [asset["fields"] for asset in assets(flow)] == [
        {"machine": "web01", "charge_to": "C-100", "service_class": "gold"},
        {"machine": "web02", "charge_to": "C-200", "service_class": "silver"},
    ]


def test_a_file_on_a_volume(flow: Flow, product: Product) -> None:
    """Twenty thousand servers on a PersistentVolumeClaim that somebody else has filled."""
    product.admin(
        *("label", "namespace", str(flow.kubectl.namespace), "--overwrite"),
        "pod-security.kubernetes.io/enforce=privileged",
    )
    volume = f"df-{uuid4().hex[:8]}"
    image = product.kubectl.json("get", "deployment", "discoveryflow-operator")["spec"]["template"][
        "spec"
    ]["containers"][0]["image"]
    product.admin.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": volume,
                "hostPath": {"path": f"/var/tmp/{volume}", "type": "DirectoryOrCreate"},
            },
        }
    )
    try:
        flow.kubectl.apply(_claim_and_writer(volume, image))
        flow.kubectl(
            *("wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"),
            timeout=70,
        )
        flow.spec["source"] = {
            "persistentVolumeClaim": {"claimName": "exports", "path": "in/servers.csv"}
        }
        flow.create()
        status = flow.wait("AwaitingApproval", seconds=120)
        assert status["recordsImported"] == SERVERS
        answer(flow)
        status = flow.wait("Succeeded", seconds=300)
        assert (status["assets"], status["progress"]) == (SERVERS, "6/6")
        assert flow.history() == HAPPY
        assert_no_orphan(flow)
        one = next(asset for asset in assets(flow) if asset["name"] == "srv00007")
        assert one["fields"]["memory_gb"] == 4
        assert one["fields"]["ip_address"] == ["10.0.0.7"]
    finally:
        flow.kubectl("delete", "discoveryflow", flow.name, "--ignore-not-found")
        product.admin("delete", "persistentvolume", volume, "--wait=false")


def _claim_and_writer(volume: str, image: str) -> list[dict[str, Any]]:
    write = f"""
import os
os.makedirs('/v/in')
with open('/v/in/servers.csv', 'w') as out:
    print('Name,IP,OS,RAM (MB),CPUs,Application,Depends on', file=out)
    for n in range({SERVERS}):
        print(f'srv{{n:05}},10.0.{{n // 256}}.{{n % 256}},RHEL 8,4096,2,app{{n % 200}},'
              f'srv{{(n * 7 + 1) % {SERVERS}:05}}', file=out)
"""
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "exports"},
            "spec": {
                "storageClassName": volume,
                "volumeName": volume,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "writer",
                        "image": image,
                        "command": ["python", "-c", write],
                        "securityContext": {"runAsUser": 0},
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    }
                ],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "exports"}}],
            },
        },
    ]
