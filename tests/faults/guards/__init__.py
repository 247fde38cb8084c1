"""The guards of the product, each with the test that must notice its removal."""

from .control import CONTROL, POLICY_TESTS
from .erasure import ERASURE
from .files import FILES
from .identity import IDENTITY, SUPPLY
from .model import DatabaseGuard, Guard
from .requests import REQUESTS

__all__ = ["GUARDS", "ON_THE_CLUSTER", "DatabaseGuard", "Guard"]

GUARDS: tuple[Guard | DatabaseGuard, ...] = (
    *CONTROL, *IDENTITY, *SUPPLY, *REQUESTS, *FILES, *ERASURE,
)  # fmt: skip

# rules that only an API server evaluates: each is tried there with the rule and without it
ON_THE_CLUSTER = {
    "every rule of the approval policy (ValidatingAdmissionPolicy)": (
        f"{POLICY_TESTS}::test_only_its_rule_stands_in_the_way"
    ),
    "an approver changes nothing but the answer": (
        f"{POLICY_TESTS}::test_an_approver_cannot_change_the_source"
    ),
    "the first answer wins (CEL of the resource)": (
        f"{POLICY_TESTS}::test_answering_for_real_and_once"
    ),
    "Pod Security, RBAC": "tests/cluster/test_chart.py",
    "NetworkPolicies, with and without an enforcer": "tests/cluster/test_network_policies.py",
    "a chart without images is refused": (
        "tests/cluster/test_chart.py::test_s12_a_chart_without_images_is_refused"
    ),
}
