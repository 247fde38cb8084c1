"""However an attempt ends, its heartbeat ends before the connection that it beats over."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from discovery_core.wire.protocol import Claim, HeartbeatAnswer
from discovery_crews import runner
from discovery_crews.execution_client import ReplacedError


class Client:
    """Answers a claim and heartbeats; the first of those tells that the thread is at work."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.beating = threading.Event()

    def claim(self) -> Claim:
        return self._claim

    def heartbeat(self, _: Any, timeout: float) -> HeartbeatAnswer:
        del timeout
        self.beating.set()
        return HeartbeatAnswer(deadline=self._claim.deadline)

    def fail(self, _: Any) -> None:
        """Takes the failure."""

    def complete(self, _: Any) -> None:
        """Takes the result."""


@pytest.mark.parametrize("error", [ReplacedError("409"), ValueError("crash"), None])
def test_the_heartbeat_ends_with_the_work(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = Client(
        Claim.model_validate(
            {
                "flowId": uuid4(), "flowName": "servers", "namespace": "team-a", "round": 1,
                "phase": "data_import", "attempt": 1, "fence": 7, "heartbeatSeconds": 0.01,
                "sourceName": "servers.csv",
                "deadline": datetime.now(UTC) + timedelta(minutes=10),
            }
        )
    )  # fmt: skip

    def work(*_: Any) -> Any:
        assert client.beating.wait(30)
        if error is not None:
            raise error
        return SimpleNamespace(artefacts={})

    monkeypatch.setattr(runner, "_work", work)
    if isinstance(error, ReplacedError):
        with pytest.raises(ReplacedError):
            runner._attempt(SimpleNamespace(), client)  # type: ignore[arg-type]
    else:
        assert runner._attempt(SimpleNamespace(), client) == 0  # type: ignore[arg-type]
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]
