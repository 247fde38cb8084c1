"""The rules that propose a 6R strategy from facts, in the order in which they are tried.

A rule names its strategy, how sure it is, what else would be reasonable, and its reason in words. A
crew may choose among a rule's alternatives and nothing else. What is not known makes a proposal
less sure and is named as a gap; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Strategy = Literal[
    "rehost", "replatform", "refactor", "repurchase", "retire", "retain", "not_applicable"
]
STRATEGIES: tuple[Strategy, ...] = (
    "rehost", "replatform", "refactor", "repurchase", "retire", "retain", "not_applicable",
)  # fmt: skip
ALL: tuple[Strategy, ...] = STRATEGIES[:-1]

Group = Mapping[str, Any]


@dataclass(frozen=True)
class Proposal:
    """What a rule says of assets with the same facts."""

    rule: str
    strategy: Strategy
    confidence: float
    alternatives: tuple[Strategy, ...]
    reason: str


@dataclass(frozen=True)
class Rule:
    """One rule: it applies where `when` holds."""

    name: str
    when: Callable[[Group], bool]
    strategy: Strategy
    confidence: float
    alternatives: tuple[Strategy, ...]
    reason: Callable[[Group], str]


def _said(text: str) -> Callable[[Group], str]:
    return lambda group: text.format(**{k: "" if v is None else v for k, v in group.items()})


RULES: tuple[Rule, ...] = (
    Rule(
        "no_workload", lambda g: g["asset_type"] not in ("server", "database", "application"),
        "not_applicable", 1.0, (),
        _said("A {asset_type} asset is no workload; the target platform brings its own."),
    ),
    Rule(
        "set_apart", lambda g: g["set_apart"] is not None, "retain", 0.9, ("retire",),
        _said("{set_apart}"),
    ),
    Rule(
        "retired", lambda g: g["retired"], "retire", 0.9, ("retain",),
        _said("The source says that it is out of use."),
    ),
    Rule(
        "hypervisor", lambda g: g["os_product"] == "esxi", "retire", 0.7, ("retain", "rehost"),
        _said("{os} hosts virtual machines; the target platform replaces it."),
    ),
    Rule(
        "unused", lambda g: g["powered_on"] is False and g["dependencies_known"]
        and not g["depended_on"],
        "retire", 0.6, ("retain", "rehost"),
        _said("Switched off, and nothing is known to need it."),
    ),
    Rule(
        "switched_off", lambda g: g["powered_on"] is False, "retire", 0.45, ("retain", "rehost"),
        lambda g: "Switched off, although others need it."
        if g["dependencies_known"] else "Switched off; dependencies are not known.",
    ),
    Rule(
        "no_cloud_platform", lambda g: not g["os_native"], "retain", 0.6,
        ("refactor", "replatform", "retire"),
        _said("{os} does not run on the usual clouds."),
    ),
    Rule(
        "hardware_bound", lambda g: g["hardware_bound"], "retain", 0.6,
        ("rehost", "replatform", "repurchase", "retire"),
        _said("A licence or device is bound to this machine; a copy elsewhere would lack it."),
    ),
    Rule(
        "service_instead", lambda g: g["service_instead"], "repurchase", 0.6,
        ("rehost", "retain", "replatform"),
        _said("Its product is sold as a service."),
    ),
    Rule(
        "managed_database", lambda g: g["asset_type"] == "database" and g["db_managed"],
        "replatform", 0.7, ("rehost", "refactor", "retain"),
        _said("{db} is offered as a managed service."),
    ),
    Rule(
        "database_end_of_life", lambda g: g["db_state"] == "end_of_life", "replatform", 0.7,
        ("rehost", "refactor", "retain"),
        _said("{db} has been out of support since {db_ends}."),
    ),
    Rule(
        "system_end_of_life", lambda g: g["os_state"] == "end_of_life", "replatform", 0.7,
        ("rehost", "refactor", "retire", "retain"),
        _said("{os} has been out of support since {os_ends}."),
    ),
    Rule(
        "paid_support", lambda g: g["os_state"] == "paid_support", "replatform", 0.55,
        ("rehost", "refactor", "retire", "retain"),
        _said("{os} is only maintained for those who pay extra, until {os_ends}."),
    ),
    Rule(
        "system_ending", lambda g: g["os_state"] == "ending", "replatform", 0.55,
        ("rehost", "retain"),
        _said("Support of {os} ends on {os_ends}, within a year."),
    ),
    Rule(
        "supported_system", lambda g: g["os_state"] == "supported", "rehost", 0.8,
        ("replatform", "retain", "refactor"),
        _said("{os} is supported until {os_ends} and runs on the usual clouds."),
    ),
    Rule(
        "known_system", lambda g: g["os"] is not None, "rehost", 0.5, ALL[1:],
        _said("{os} runs on the usual clouds; how long it is maintained is not known."),
    ),
    Rule(
        "little_known", lambda g: True, "rehost", 0.25, ALL[1:],
        _said("Too little is known to prefer anything; moving it as it is is the default."),
    ),
)  # fmt: skip


def propose(group: Group) -> Proposal:
    """What the rules say of a group of assets with the same facts.

    A strategy that the source states wins, and everything else stays possible.
    """
    stated = group["stated"]
    if stated is not None and group["asset_type"] in ("server", "database", "application"):
        others = tuple(strategy for strategy in ALL if strategy != stated)
        return Proposal("stated", stated, 0.95, others, "As stated in the source.")
    for rule in RULES:
        if rule.when(group):
            reason = rule.reason(group)
            return Proposal(rule.name, rule.strategy, rule.confidence, rule.alternatives, reason)
    raise AssertionError("the last rule always applies")
