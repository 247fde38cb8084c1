"""The one shape of every crew: agents judge by tools, code checks and computes.

A crew is a sequence of steps. Each step is one agent with tools that show it an immutable
snapshot, and a closing tool that takes its answer, checks it and keeps it. What the closing tool
has kept is the result; an agent that talks without submitting fails the guardrail. No tool reaches
network, shell or SQL, so a cell that tries to give orders gives them to nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml
from discovery_core.wire.protocol import Judgement, LLMSettings, ToolResult, Usage
from pydantic import BaseModel

from .settings import CREWAI_ENVIRONMENT

if TYPE_CHECKING:
    from crewai.tools import BaseTool

API_KEY_VARIABLE = "DISCOVERY_LLM_API_KEY"
MAX_ITERATIONS = 12
MAX_CORRECTIONS = 2
_MOST_ANSWER = 20_000

Answer = TypeVar("Answer", bound=BaseModel)


class NoAnswerError(Exception):
    """An agent ended without an accepted answer."""


class CrewFailedError(Exception):
    """A crew broke off: `usage` is what it had cost until then, its cause is why."""

    def __init__(self, usage: Usage, cause: Exception) -> None:
        super().__init__(str(cause))
        self.usage = usage


@dataclass(frozen=True)
class ContextTool:
    """A tool without arguments that shows the agent a part of the snapshot, as text or JSON."""

    name: str
    description: str
    show: Callable[[], Any]


@dataclass(frozen=True)
class Submission(Generic[Answer]):
    """The closing tool of a step: its name starts with `submit_`.

    `schema` is what the agent fills in. `check` returns the accepted answer or raises ValueError
    saying what is wrong, which the agent is told. `recommend` is what rules would answer; the
    built-in planner submits just that.
    """

    name: str
    description: str
    schema: type[BaseModel]
    check: Callable[[dict[str, Any]], Answer]
    recommend: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One agent and its task, by their keys in config/agents.yaml and config/tasks.yaml."""

    agent: str
    task: str
    tools: tuple[ContextTool, ...]
    submission: Submission[Any]


@dataclass(frozen=True)
class CrewOutcome:
    """The accepted answers by name of their submission, and what they cost."""

    answers: dict[str, Any]
    usage: Usage


@dataclass
class _Desk:
    """Where closing tools put accepted answers, and the record of executed tools.

    `shown` and `refused` are by name of the step's submission.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    shown: dict[str, list[ToolResult]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)


def prepare_environment() -> None:
    """Sets what CrewAI reads at import: no telemetry or tracing, files in a private folder."""
    os.environ.update(CREWAI_ENVIRONMENT)
    if "CREWAI_STORAGE_DIR" not in os.environ:
        os.environ["CREWAI_STORAGE_DIR"] = tempfile.mkdtemp(prefix="discovery-crewai-")


def run_crew(
    config: Path,
    steps: list[Step],
    settings: LLMSettings,
    *,
    inputs: Mapping[str, Any] | None = None,
) -> CrewOutcome:
    """Runs the steps in order and returns their accepted answers.

    `config` is the folder with agents.yaml and tasks.yaml; `inputs` fills their placeholders.
    Raises CrewFailedError, whose cause is what the model's client raised (see
    `llm.classify_exception`) or a NoAnswerError. A crew whose budget is used up starts again with
    the built-in planner, where `settings.budget` says so.
    """
    prepare_environment()
    from .llm.provider import BudgetSpentError, make_llm  # noqa: PLC0415

    desk = _Desk()
    llm = make_llm(
        settings,
        os.environ.get(API_KEY_VARIABLE),
        {step.submission.name: step.submission.recommend for step in steps},
    )
    values = dict(inputs or {"phase": config.parent.name})
    try:
        _kickoff(config, steps, llm, desk, values)
    except Exception as error:
        usage = _usage(settings, llm, desk, _judgements(config, steps, settings, desk))
        budget = settings.budget
        spent = any(isinstance(cause, BudgetSpentError) for cause in _causes(error))
        if not spent or budget is None or budget.on_budget != "Builtin":
            raise CrewFailedError(usage, error) from error
        outcome = run_crew(config, steps, LLMSettings(), inputs=inputs)
        return CrewOutcome(outcome.answers, _after_budget(usage, outcome.usage))
    judged = _judgements(config, steps, settings, desk)
    return CrewOutcome(desk.answers, _usage(settings, llm, desk, judged))


def _kickoff(
    config: Path, steps: list[Step], llm: Any, desk: _Desk, inputs: dict[str, Any]
) -> None:
    from crewai import Agent, Crew, Process, Task  # noqa: PLC0415

    agents_text = yaml.safe_load((config / "agents.yaml").read_text(encoding="utf-8"))
    tasks_text = yaml.safe_load((config / "tasks.yaml").read_text(encoding="utf-8"))
    agents, tasks = [], []
    for step in steps:
        tools = _tools(step, desk)
        agent = Agent(
            **agents_text[step.agent],
            llm=llm,
            tools=tools,
            allow_delegation=False,
            cache=False,
            memory=False,
            verbose=False,
            max_iter=MAX_ITERATIONS,
            max_retry_limit=0,
            respect_context_window=False,
            use_better_compaction=False,
        )
        agents.append(agent)
        tasks.append(
            Task(
                **tasks_text[step.task],
                agent=agent,
                tools=tools,
                guardrail=_guardrail(step, desk),
                guardrail_max_retries=MAX_CORRECTIONS,
            )
        )
    crew = Crew(
        agents=agents,
        tasks=tasks,
        process=Process.sequential,
        verbose=False,
        memory=False,
        cache=False,
        planning=False,
        tracing=False,
    )
    crew.kickoff(inputs=inputs)
    missing = [step.submission.name for step in steps if step.submission.name not in desk.answers]
    if missing:
        raise NoAnswerError(f"no accepted answer from {', '.join(missing)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; CrewAI wraps what a model's client raises."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _after_budget(spent: Usage, builtin: Usage) -> Usage:
    """What both cost, where the built-in planner went on after a model."""
    return builtin.model_copy(
        update={
            "llm_requests": spent.llm_requests,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "cost": spent.cost,
            "note": f"The budget for {spent.planner} is used up; the built-in planner judged.",
        }
    )


def prompt_version(config: Path) -> str:
    """Changes whenever the prompts in `config` do."""
    digest = hashlib.sha256()
    for name in ("agents.yaml", "tasks.yaml"):
        digest.update((config / name).read_bytes())
    return digest.hexdigest()[:12]


def _judgements(
    config: Path, steps: list[Step], settings: LLMSettings, desk: _Desk
) -> list[Judgement]:
    """What each agent that was heard judged, on what it was shown."""
    version = prompt_version(config)
    found: list[Judgement] = []
    for step in steps:
        name = step.submission.name
        answer = desk.answers.get(name)
        if answer is None and not desk.shown.get(name):
            continue
        found.append(
            Judgement(
                agent=step.agent,
                task=step.task,
                planner=_planner(settings),
                prompt_version=version,
                tool_results=desk.shown.get(name, []),
                answer="" if answer is None else answer.model_dump_json()[:_MOST_ANSWER],
                refused=desk.refused[name],
            )
        )
    return found


def _planner(settings: LLMSettings) -> str:
    return "builtin" if settings.provider == "builtin" else str(settings.model)


def _tools(step: Step, desk: _Desk) -> list[BaseTool]:
    """CrewAI tools over the step's context and its submission."""
    from crewai.tools import BaseTool  # noqa: PLC0415
    from crewai.tools.tool_failure import ToolFailure  # noqa: PLC0415

    class NoArguments(BaseModel):
        """Takes nothing."""

    class Show(BaseTool):
        args_schema: type[BaseModel] = NoArguments
        context: Any = None

        def _run(self, **_: Any) -> str:
            desk.calls.append(self.name)
            shown = self.context.show()
            text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
            digest = "sha256:" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
            desk.shown[step.submission.name].append(
                ToolResult(tool=self.name, digest=digest, characters=len(text))
            )
            return text

    class Submit(BaseTool):
        args_schema: type[BaseModel] = step.submission.schema
        result_as_answer: bool = True

        def _run(self, **arguments: Any) -> Any:
            desk.calls.append(self.name)
            try:
                accepted = step.submission.check(_plain(arguments))
            except ValueError as error:
                desk.refused[self.name] += 1
                return ToolFailure(message=f"not accepted: {error}", retryable=True)
            desk.answers[self.name] = accepted
            return accepted.model_dump_json(by_alias=True)

    shows: list[BaseTool] = [
        Show(name=tool.name, description=tool.description, context=tool) for tool in step.tools
    ]
    return [*shows, Submit(name=step.submission.name, description=step.submission.description)]


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as plain JSON values; CrewAI may hand over models."""
    return {
        key: json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else value
        for key, value in arguments.items()
    }


def _guardrail(step: Step, desk: _Desk) -> Callable[[Any], tuple[bool, Any]]:
    name = step.submission.name

    def accepted(output: Any) -> tuple[bool, Any]:
        if name in desk.answers:
            return True, output
        return False, f"call the tool {name} with your answer; text is not an answer"

    # CrewAI compares the annotation itself, which here is a string
    del accepted.__annotations__["return"]
    return accepted


def _usage(settings: LLMSettings, llm: Any, desk: _Desk, judgements: list[Judgement]) -> Usage:
    from .llm.provider import cost_of  # noqa: PLC0415

    counted = llm.get_token_usage_summary()
    budget = settings.budget
    cost = None
    if budget is not None and (budget.input_token_price or budget.output_token_price):
        cost = cost_of(budget, counted.prompt_tokens, counted.completion_tokens)
    return Usage(
        planner=_planner(settings),
        llm_requests=0 if settings.provider == "builtin" else counted.successful_requests,
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        cost=cost,
        note=settings.note,
        tool_calls=list(desk.calls),
        judgements=judgements,
    )
