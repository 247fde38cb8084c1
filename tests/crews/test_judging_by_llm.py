"""Real crews with the real OpenAI client against a stub model over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import LLMSettings
from discovery_core.wire.results import ColumnProfile, MappingResult
from discovery_crews.llm import classify_exception
from discovery_crews.phase import PhaseContext
from discovery_crews.phases.field_mapping import phase as field_mapping
from discovery_crews.profile import write_profile

from tests.stubs.llm_server import serve

COLUMNS = {
    "Server Name": ["web01", "web02", "db01"],
    "Memory (GB)": ["8", "16", "32"],
    "OS": ["Ubuntu 22.04", "Windows Server 2019", "RHEL 8"],
    "Contact": ["ann@example.org", "bob@example.org"],
    "Status": ["Active", "Retired"],
}
StartModel = Callable[..., LLMSettings]


@pytest.fixture
def start_model() -> Iterator[StartModel]:
    """Starts stub models; each call returns the settings that reach it."""
    servers = []

    def start(behaviour: str, script: dict[str, Any] | None = None, **more: Any) -> LLMSettings:
        delay = more.pop("delay", 5.0)
        server = serve("127.0.0.1", 0, behaviour, script, delay)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return LLMSettings(
            provider="openaiCompatible",
            base_url=f"http://127.0.0.1:{server.server_address[1]}/v1",
            model="stub-model",
            timeout_seconds=more.pop("timeout", 20.0),
        )

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _map(folder: Path, llm: LLMSettings) -> MappingResult:
    folder.mkdir(exist_ok=True)
    profile = folder / "profile.json"
    write_profile(
        profile,
        [
            ColumnProfile(
                name=name,
                type="string",
                filled=len(samples),
                missing=0,
                distinct=len(samples),
                samples=samples,
            )
            for name, samples in COLUMNS.items()
        ],
    )
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip_longest(*COLUMNS.values())]
    texts, records = folder / "records.json", folder / "records.parquet"
    texts.write_text(json.dumps([row | {"__row": n} for n, row in enumerate(rows, start=2)]))
    duckdb.execute(f"COPY (SELECT * FROM '{texts}') TO '{records}'")
    inputs = {"profile": profile, "records": records}
    outcome = field_mapping.run(PhaseContext(folder, inputs, llm=llm))
    assert isinstance(outcome.result, MappingResult)
    return outcome.result


def _targets(result: MappingResult) -> dict[str, str | None]:
    return {mapping.column: mapping.target for mapping in result.mappings}


def test_the_agents_judgement_counts(tmp_path: Path, start_model: StartModel) -> None:
    """The model takes the second candidate of one column and declines another: just those change.

    Bypassing the agent leaves the built-in answer, and the assertions on both columns fail.
    """
    builtin = _map(tmp_path / "builtin", LLMSettings())
    script = {"Server Name": 2, "Status": "decline"}
    judged = _map(tmp_path / "judged", start_model("script", script))

    before, after = _targets(builtin), _targets(judged)
    second = builtin.mappings[0].candidates[1].target
    assert before["Server Name"] == "hostname"
    assert after["Server Name"] == second != "hostname"
    assert before["Status"] == "lifecycle_status"
    assert after["Status"] is None
    changed = {column for column in COLUMNS if before[column] != after[column]}
    assert changed == {"Server Name", "Status"}
    by = {mapping.column: mapping.decided_by for mapping in judged.mappings}
    assert {column for column, who in by.items() if who == "agent"} == changed
    assert judged.mappings[0].reason.endswith("scripted")


def test_a_model_that_agrees_gives_the_built_in_answer(
    tmp_path: Path, start_model: StartModel
) -> None:
    builtin = _map(tmp_path / "builtin", LLMSettings())
    assert _map(tmp_path / "accept", start_model("accept")) == builtin


@pytest.mark.parametrize(
    ("behaviour", "codes"),
    [
        ("status-401", {ErrorCode.BAD_CREDENTIALS}),
        ("status-400", {ErrorCode.LLM_REFUSED}),
        ("status-404", {ErrorCode.LLM_REFUSED}),
        ("status-429", {ErrorCode.LLM_RATE_LIMITED}),
        ("status-500", {ErrorCode.LLM_UNAVAILABLE}),
        ("quota", {ErrorCode.LLM_QUOTA}),
        ("html", {ErrorCode.LLM_BAD_OUTPUT}),
        ("truncated", {ErrorCode.LLM_BAD_OUTPUT, ErrorCode.LLM_UNAVAILABLE}),
        ("nonsense", {ErrorCode.LLM_BAD_OUTPUT}),
        ("empty", {ErrorCode.LLM_BAD_OUTPUT}),
        ("malformed", {ErrorCode.LLM_BAD_OUTPUT}),
        ("hostile", {ErrorCode.LLM_BAD_OUTPUT}),
    ],
)
def test_a_bad_model_is_a_clear_failure(
    tmp_path: Path, start_model: StartModel, behaviour: str, codes: set[ErrorCode]
) -> None:
    with pytest.raises(Exception) as failure:  # noqa: PT011 - what it means is asserted below
        _map(tmp_path, start_model(behaviour))
    classified = classify_exception(failure.value)
    assert isinstance(classified, DiscoveryError), failure.value
    assert classified.code in codes, classified.message


def test_a_slow_model_is_given_up_at_its_timeout(tmp_path: Path, start_model: StartModel) -> None:
    with pytest.raises(Exception) as failure:  # noqa: PT011 - what it means is asserted below
        _map(tmp_path, start_model("slow", timeout=1.0, delay=8.0))
    classified = classify_exception(failure.value)
    assert classified is not None
    assert classified.code is ErrorCode.LLM_UNAVAILABLE
    assert classified.retryable


def test_an_unreachable_model_is_transient(tmp_path: Path) -> None:
    llm = LLMSettings(provider="openaiCompatible", base_url="http://127.0.0.1:9/v1", model="none")
    with pytest.raises(Exception) as failure:  # noqa: PT011 - what it means is asserted below
        _map(tmp_path, llm)
    classified = classify_exception(failure.value)
    assert classified is not None
    assert classified.code is ErrorCode.LLM_UNAVAILABLE


def test_openai_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISCOVERY_LLM_API_KEY", raising=False)
    with pytest.raises(DiscoveryError, match="apiKeySecret"):
        _map(tmp_path, LLMSettings(provider="openai", model="gpt"))
