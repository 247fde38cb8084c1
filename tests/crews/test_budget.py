"""A flow's budget for a language model: kept, told, and what follows when it is used up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from discovery_core.wire.protocol import LLMBudget, LLMSettings
from discovery_crews.crew_base import CrewFailedError, prompt_version
from discovery_crews.local_run import LocalRun
from discovery_crews.phase import PhaseOutcome
from discovery_crews.runner import classify

from tests.stubs.llm_server import serve

SOURCE = "Server Name,IP,Env\n web01 ,10.0.0.1,Prod\ndb01,10.0.0.2,prod\n"


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A model that agrees with every proposal, at 100 tokens in and 10 out a request."""
    started = serve("127.0.0.1", 0, "accept")
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


def run(folder: Path, server: ThreadingHTTPServer, budget: LLMBudget | None) -> PhaseOutcome:
    folder.mkdir()
    source = folder / "servers.csv"
    source.write_text(SOURCE)
    llm = LLMSettings(
        provider="openaiCompatible",
        base_url=f"http://127.0.0.1:{server.server_address[1]}/v1",
        model="stub-model",
        timeout_seconds=20.0,
        budget=budget,
    )
    (folder / "work").mkdir()
    return LocalRun(source, folder / "work", llm=llm).run(Phase.DATA_IMPORT)


def asked(server: ThreadingHTTPServer) -> int:
    count: int = server.RequestHandlerClass.model.requests  # type: ignore[attr-defined]
    return count


def test_within_the_budget_the_model_judges(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    budget = LLMBudget(tokens=100_000, input_token_price=2.0, output_token_price=10.0)
    usage = run(tmp_path / "a", server, budget).usage
    assert (usage.planner, usage.note) == ("stub-model", "")
    assert usage.prompt_tokens == 100 * asked(server)
    # 100 tokens at 2 and 10 tokens at 10 a million make 0.0003 a request
    assert usage.cost == pytest.approx(0.0003 * asked(server))


@pytest.mark.parametrize(
    "budget",
    [
        LLMBudget(tokens=250),
        LLMBudget(cost=0.0008, input_token_price=2.0, output_token_price=10.0),
    ],
)
def test_beyond_it_the_built_in_planner_goes_on(
    tmp_path: Path, server: ThreadingHTTPServer, budget: LLMBudget
) -> None:
    source = tmp_path / "servers.csv"
    source.write_text(SOURCE)
    (tmp_path / "builtin").mkdir()
    builtin = LocalRun(source, tmp_path / "builtin").run(Phase.DATA_IMPORT)
    outcome = run(tmp_path / "judged", server, budget)
    assert outcome.result == builtin.result
    assert outcome.usage.planner == "builtin"
    assert "The budget for stub-model is used up" in outcome.usage.note
    # the third request is the one that the budget no longer covers
    assert (asked(server), outcome.usage.llm_requests, outcome.usage.prompt_tokens) == (3, 3, 300)
    assert {judgement.planner for judgement in outcome.usage.judgements} == {"builtin"}


def test_or_the_attempt_ends_and_says_what_it_cost(
    tmp_path: Path, server: ThreadingHTTPServer
) -> None:
    with pytest.raises(CrewFailedError) as failed:
        run(tmp_path / "a", server, LLMBudget(tokens=250, on_budget="Stall"))
    told = classify(failed.value)
    assert told.code == ErrorCode.LLM_BUDGET
    assert "330 tokens of 250" in told.message
    assert "spec.llm.budget" in told.message
    assert (failed.value.usage.planner, failed.value.usage.prompt_tokens) == ("stub-model", 300)


def test_nothing_left_means_no_request_at_all(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    assert run(tmp_path / "a", server, LLMBudget(tokens=0)).usage.planner == "builtin"
    assert asked(server) == 0


def test_what_was_judged_on_what_is_kept(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    usage = run(tmp_path / "a", server, None).usage
    assert [judgement.agent for judgement in usage.judgements] == [
        "schema_validator",
        "data_quality_checker",
        "anomaly_detector",
    ]
    first = usage.judgements[0]
    assert [result.tool for result in first.tool_results] == ["list_columns", "list_observations"]
    assert all(result.characters > 0 for result in first.tool_results)
    assert first.planner == "stub-model"
    assert '"summary"' in first.answer
    again = run(tmp_path / "b", server, None).usage
    assert again.judgements == usage.judgements


def test_prompt_versions_follow_the_prompts(tmp_path: Path) -> None:
    for name in ("agents.yaml", "tasks.yaml"):
        (tmp_path / name).write_text("a: 1\n")
    before = prompt_version(tmp_path)
    (tmp_path / "tasks.yaml").write_text("a: 2\n")
    assert prompt_version(tmp_path) != before


def test_a_claim_without_the_model_has_the_built_in_planner_judge_and_say_why(
    tmp_path: Path,
) -> None:
    source = tmp_path / "servers.csv"
    source.write_text(SOURCE)
    (tmp_path / "work").mkdir()
    llm = LLMSettings(note="The built-in planner judges: the model has been unavailable.")
    usage = LocalRun(source, tmp_path / "work", llm=llm).run(Phase.DATA_IMPORT).usage
    assert (usage.planner, usage.note, usage.llm_requests) == ("builtin", llm.note, 0)
