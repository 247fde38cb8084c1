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


@pytest.mark.parametrize(
    "rights",
    [set(some) for n in range(4) for some in itertools.combinations((GET, MOUNT, MAKE), n)],
)
def test_a_volume_needs_more_than_a_look_at_its_claim(rights: set[str]) -> None:
    expression = rule("unreadable PersistentVolumeClaim")["expression"]
    may = GET in rights and bool(rights & {MOUNT, MAKE})
    assert bool(evaluated(expression, VOLUME, rights)) is may


def test_rights_to_another_volume_or_elsewhere_do_not_count() -> None:
    expression = rule("unreadable PersistentVolumeClaim")["expression"]
    others = {MOUNT.replace("exports", "other"), MAKE.replace("team", "elsewhere")}
    assert not evaluated(expression, VOLUME, {GET} | others)
    assert evaluated(expression, {"configMap": {"name": "a", "key": "b"}}, set())


def test_the_refusal_says_which_rights_are_missing() -> None:
    said = str(
        evaluated(rule("unreadable PersistentVolumeClaim")["messageExpression"], VOLUME, set())
    )
    assert said.startswith(
        "system:serviceaccount:team:lou may not read PersistentVolumeClaim exports"
    )
    assert "create on pods or the verb mount" in said
