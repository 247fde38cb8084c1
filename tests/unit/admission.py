"""Rules of the chart's admission policy, evaluated as the API server does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy import celtypes
from celpy.adapter import json_to_cel

POLICY = Path(__file__).parents[2] / "charts" / "discoveryflow" / "templates" / "admission.yaml"


def policy(setting: str) -> dict[str, Any]:
    """The policy's spec, with `setting` in place of every value that Helm fills in."""
    text = re.sub(r"^\{\{.*\n", "", POLICY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    spec = next(iter(yaml.safe_load_all(re.sub(r"\{\{.*?\}\}", setting, text))))["spec"]
    return dict(spec)


def computed(expression: str, user: str, *, approves: bool = False, **given: Any) -> Any:
    """What CEL makes of an expression for `user`; `given`: the policy's objects and variables."""

    def check(_: Any, verb: celtypes.StringType) -> celtypes.BoolType:
        return celtypes.BoolType(approves and str(verb) in ("approve", "purge"))

    environment = celpy.Environment()
    program = environment.program(
        environment.compile(expression), {"check": check, "allowed": lambda found: found}
    )
    request = {"operation": "UPDATE", "namespace": "team", "userInfo": {"username": user}}
    bound: dict[str, Any] = {"request": request, "authorizer": {"requestResource": "flows"}} | given
    return program.evaluate({name: json_to_cel(value) for name, value in bound.items()})


def rule(message: str, setting: str = "x") -> dict[str, Any]:
    """A validation of the policy, with `setting` in place of every value that Helm fills in."""
    (found,) = [one for one in policy(setting)["validations"] if one["message"] == message]
    return dict(found)
