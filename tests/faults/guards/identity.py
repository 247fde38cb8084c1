"""The guards of who is taken for a crew pod, who answers, and whose code and keys are where."""

from __future__ import annotations

from .model import API, OPERATOR, DatabaseGuard, Guard, unless

MANIFESTS = "tests/unit/operator/test_manifests.py"
SUPPLY_CHAIN = "tests/unit/test_supply_chain.py"
DECIDE = "tests/unit/operator/test_decide.py::test_s01_no_job_is_started_while_nobody_guards_crews"
SEEN = f"{MANIFESTS}::test_s01_a_look_alike_is_seen"

IDENTITY: tuple[Guard | DatabaseGuard, ...] = (
    Guard("a look-alike Job is not adopted", f"{OPERATOR}/execute.py",
          "if not different:\n", "if True:\n",
          "tests/faults/test_keys_and_fences.py::"
          "test_s01_a_look_alike_in_an_attempts_place_is_removed_and_made_anew"),
    Guard("what a look-alike adds is seen", f"{OPERATOR}/manifests/likeness.py",
          'told = "" if _filled_in(key, theirs[key]) else where', 'told = ""',
          f"{SEEN}[init-container]"),
    Guard("a Job from before its attempt is not adopted", f"{OPERATOR}/execute.py",
          "if not different and theirs.created_at and theirs.created_at < since - CLOCKS_APART:",
          "if False:",
          "tests/faults/test_keys_and_fences.py::test_s01_a_job_from_before_its_attempt_is_removed"),
    Guard("a pod from before its Job is nobody's", f"{API}/execution/identity.py",
          *unless("pod.metadata.creation_timestamp < job.metadata.creation_timestamp"),
          "tests/api/test_execution_api.py::test_who_is_not_a_crew_pod_gets_nothing"
          "[s01-pod-from-before-its-job]"),
    Guard("a second container is seen", f"{OPERATOR}/manifests/likeness.py",
          " and len(ours) == len(theirs)", "", f"{SEEN}[second-container]"),
    Guard("no Job from the queue without the crews' policy", f"{OPERATOR}/decide.py",
          *unless("unguarded(observed)"), f"{DECIDE}[absent]"),
    Guard("no Job of an intent without the crews' policy", f"{OPERATOR}/decide_run.py",
          *unless("unguarded(observed)"), f"{DECIDE}[absent]"),
    Guard("a policy that only warns is none", f"{OPERATOR}/kube.py",
          "return Presence.PRESENT if denies else Presence.ABSENT", "return Presence.PRESENT",
          "tests/unit/operator/test_kube.py::test_s01_a_policy_that_only_warns_is_none"),
    Guard("the crews' own ServiceAccount", f"{API}/execution/identity.py",
          *unless("account != CREW_ACCOUNT"),
          "tests/api/test_execution_api.py::test_who_is_not_a_crew_pod_gets_nothing"
          "[s01-another-account]"),
)  # fmt: skip

SUPPLY = (
    Guard("the API key is for phases that ask a model", f"{OPERATOR}/manifests/job.py",
          "llm.api_key_secret if phase_spec(attempt.phase).asks_model else None",
          "llm.api_key_secret",
          f"{MANIFESTS}::test_s20_the_api_key_goes_only_to_phases_that_ask_a_model"),
    Guard("the built-in planner gets no API key", f"{OPERATOR}/manifests/job.py",
          'if secret is not None and llm.provider != "builtin":', "if secret is not None:",
          f"{MANIFESTS}::test_s20_the_builtin_planner_gets_no_api_key"),
    Guard("a release names its images by digest", "images/pin.py",
          r"[a-z0-9._:/-]*)@(sha256:[0-9a-f]{64})", r"[a-z0-9._:/-]*)[@:](.+)",
          f"{SUPPLY_CHAIN}::test_s12_a_release_without_digests_is_refused"),
)  # fmt: skip
