"""Purging from the command line: nothing goes without a yes, and only what was said goes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from discovery_cli.common import Settings
from discovery_cli.errors import CliError, ExitCode
from discovery_cli.main import main

FLOW_ID = "7b3c1a52-2b1e-4f0e-9a55-0c8f5f1d2a10"
PURGE_ID = "f3d9e5c0-7f5e-4e0f-8f0d-0a4f2c9b6d11"
DATA = f"/api/v1/discovery/flows/{FLOW_ID}/data"


class FakeCluster:
    """One flow, and a kubeconfig with a token or without."""

    def __init__(self) -> None:
        self.credential: str | None = "ann-token"

    def get(self, name: str) -> dict[str, Any]:
        if name != "servers":
            raise CliError(f"no flow {name}", ExitCode.NOT_FOUND)
        return {"metadata": {"name": name, "uid": FLOW_ID}}

    def token(self) -> str | None:
        return self.credential


@dataclass
class Api:
    """A user API on the loopback address: what it was asked, and what it answers."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)
    status: int = 202
    answer: dict[str, Any] = field(default_factory=lambda: {"purge_id": PURGE_ID})
    url: str = ""


@pytest.fixture
def api() -> Iterator[Api]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            state.asked.append((self.command, self.path, self.headers["Authorization"]))
            body = json.dumps(state.answer).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(Settings, "cluster", lambda _: fake)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return fake


class Terminal(io.StringIO):
    """A person who types."""

    def isatty(self) -> bool:
        return True


def purge(api: Api, *words: str) -> int:
    return main(["--api-url", api.url, "purge", *words])


@pytest.mark.parametrize(
    ("words", "inventory"), [((), "keep"), (("--inventory",), "remove")], ids=["data", "inventory"]
)
def test_what_was_said_is_asked_for_once(
    api: Api, words: tuple[str, ...], inventory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert purge(api, "servers", "--yes", *words) == ExitCode.OK
    assert api.asked == [("DELETE", f"{DATA}?inventory={inventory}", "Bearer ann-token")]
    assert capsys.readouterr().out == f"servers will be purged ({PURGE_ID})\n"


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ((), "Remove the data of servers for good?"),
        (("--inventory",), "Remove the data and its part of the inventory of servers for good?"),
    ],
    ids=["data", "inventory"],
)
@pytest.mark.parametrize(("typed", "asked"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_a_person_is_asked_and_silence_is_no(
    api: Api,
    words: tuple[str, ...],
    question: str,
    typed: str,
    asked: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    code = purge(api, "servers", *words)
    told = capsys.readouterr()
    assert question in told.out
    assert len(api.asked) == asked
    assert code == (ExitCode.OK if asked else ExitCode.FAILED)
    assert ("nothing is changed" in told.err) is not bool(asked)


def test_a_script_has_to_say_yes(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge(api, "servers") == ExitCode.FAILED
    assert "Add --yes, because nobody can be asked here." in capsys.readouterr().err
    assert api.asked == []


@pytest.mark.parametrize(
    ("status", "detail", "code"),
    [
        (403, "this needs the verb 'purge' on the flow", ExitCode.FORBIDDEN),
        (404, "no such flow", ExitCode.NOT_FOUND),
        (409, "the flow is Running; cancel it first", ExitCode.CONFLICT),
        (503, "the database does not answer", ExitCode.UNREACHABLE),
    ],
)
def test_a_refusal_is_told_in_the_api_s_words(
    api: Api, status: int, detail: str, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    api.status, api.answer = status, {"title": "Not possible", "detail": detail}
    assert purge(api, "servers", "--yes") == code
    told = capsys.readouterr()
    assert told.err == f"error: Not possible: {detail}\n"
    assert told.out == ""


def test_without_an_api_nothing_is_said_to_be_purged(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = Api(url="http://127.0.0.1:1")
    assert purge(nobody, "servers", "--yes") == ExitCode.UNREACHABLE
    told = capsys.readouterr()
    assert "the user API does not answer" in told.err
    assert told.out == ""


def test_without_a_token_or_a_flow_nothing_is_sent(
    api: Api, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert purge(api, "nothing", "--yes") == ExitCode.NOT_FOUND
    cluster.credential = None
    assert purge(api, "servers", "--yes") == ExitCode.USAGE
    assert "kubectl create token" in capsys.readouterr().err
    assert api.asked == []
