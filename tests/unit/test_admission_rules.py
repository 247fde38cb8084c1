"""The admission policy's rule about volumes, evaluated as the API server does it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import celpy
import pytest
import yaml
from celpy import celtypes
from celpy.adapter import json_to_cel

POLICY = Path(__file__).parents[2] / "charts" / "discoveryflow" / "templates" / "admission.yaml"
RULES = ("unreadable PersistentVolumeClaim", "unreadable volume")
VOLUME = {"persistentVolumeClaim": {"claimName": "exports", "path": "a.csv"}}
GET, MOUNT, MAKE = (
    "/persistentvolumeclaims/team/exports/get",
    "/persistentvolumeclaims/team/exports/mount",
    "/pods/team/create",
)


def rule(message: str) -> dict[str, Any]:
    """A validation of the policy, with what Helm fills in left out."""
    text = re.sub(r"^\{\{.*\n", "", POLICY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    policy = next(iter(yaml.safe_load_all(re.sub(r"\{\{.*?\}\}", "x", text))))
    (found,) = [one for one in policy["spec"]["validations"] if one["message"] == message]
    return dict(found)


def evaluated(expression: str, source: dict[str, Any], rights: set[str]) -> Any:
    """What CEL makes of it, for a caller with `rights`: resource, namespace, name and verb."""

    def further(path: celtypes.StringType, part: celtypes.StringType) -> celtypes.StringType:
        return celtypes.StringType(f"{path}/{part}" if part else path)

    def allowed(path: celtypes.StringType) -> celtypes.BoolType:
        return celtypes.BoolType(str(path) in rights)

    steps = dict.fromkeys(("group", "resource", "namespace", "name", "check"), further)
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression), {**steps, "allowed": allowed})
    return program.evaluate(
        {
            "authorizer": celtypes.StringType(""),
            "object": json_to_cel({"spec": {"source": source}}),
            "request": json_to_cel(
                {"namespace": "team", "userInfo": {"username": "system:serviceaccount:team:lou"}}
            ),
            "variables": json_to_cel({"naming": True}),
        }
    )


def passes(source: dict[str, Any], rights: set[str]) -> bool:
    """Whether no rule about volumes refuses it."""
    return all(evaluated(rule(name)["expression"], source, rights) for name in RULES)


@pytest.mark.parametrize(
    "rights",
    [set(some) for n in range(4) for some in itertools.combinations((GET, MOUNT, MAKE), n)],
)
def test_a_volume_needs_more_than_a_look_at_its_claim(rights: set[str]) -> None:
    may = GET in rights and bool(rights & {MOUNT, MAKE})
    assert passes(VOLUME, rights) is may


def test_rights_to_another_volume_or_elsewhere_do_not_count() -> None:
    others = {MOUNT.replace("exports", "other"), MAKE.replace("team", "elsewhere")}
    assert not passes(VOLUME, {GET} | others)
    assert passes({"configMap": {"name": "a", "key": "b"}}, set())


def test_no_rule_asks_more_than_the_api_server_lets_it() -> None:
    """Each question costs 350,000 of the 1,000,000 that a rule may, and the operands a little."""
    for name in RULES:
        assert rule(name)["expression"].count(".check(") <= 2


def test_the_refusal_says_which_rights_are_missing() -> None:
    lou = "system:serviceaccount:team:lou may not read"
    claim, volume = (
        str(evaluated(rule(name)["messageExpression"], VOLUME, set())) for name in RULES
    )
    assert claim.startswith(f"{lou} PersistentVolumeClaim exports")
    assert "the verb get" in claim
    assert volume.startswith(f"{lou} what is on PersistentVolumeClaim exports")
    assert "create on pods, or the verb mount" in volume
