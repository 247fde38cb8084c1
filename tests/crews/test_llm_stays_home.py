"""A model's endpoint leads nowhere, and what it says is not told on: the real client, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import LLMSettings
from discovery_crews.crew_base import prepare_environment
from discovery_crews.llm import classify_exception

prepare_environment()

from discovery_crews.llm.provider import OPENAI_URL, make_llm  # noqa: E402 - imports crewai

SECRET = "the-content-of-an-internal-page"
PROMPT = "the-customers-servers"
LIVE = '{"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": '
ANSWER = (
    LIVE
    + '[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]}'
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Site(ThreadingHTTPServer):
    """Answers everything alike, and keeps what it was asked."""

    def __init__(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body, self.headers = status, body, headers or {}
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request of a Site."""

    def answer(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        length = int(self.headers.get("Content-Length") or 0)
        site.asked.append(f"{self.command} {self.path} {self.rfile.read(length).decode()}")
        self.send_response(site.status)
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(site.body)))
        self.end_headers()
        self.wfile.write(site.body.encode())

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as above
        del format, arguments


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    """Those that are appended end with the test."""
    started: list[Site] = []
    yield started
    for site in started:
        site.shutdown()
        site.server_close()


def ask(site: Site) -> str:
    """The answer of a model at that site."""
    settings = LLMSettings(
        provider="openaiCompatible", base_url=f"{site.address}/v1", model="m", timeout_seconds=20.0
    )
    return str(make_llm(settings, "key", {}).call([{"role": "user", "content": PROMPT}]))


def refused(site: Site) -> DiscoveryError:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's; told below
        ask(site)
    classified = classify_exception(caught.value)
    assert classified is not None
    return classified


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_s05_a_redirect_is_not_followed(sites: list[Site], status: int) -> None:
    elsewhere = Site(200, SECRET)
    model = Site(status, SECRET if status != 304 else "", {"Location": f"{elsewhere.address}/page"})
    sites += [elsewhere, model]
    error = refused(model)
    assert elsewhere.asked == []
    assert len(model.asked) == 1
    assert PROMPT in model.asked[0]
    assert error.code is ErrorCode.LLM_REFUSED
    assert f"status {status}" in error.message
    assert SECRET not in error.message
    assert elsewhere.address not in error.message


def test_s05_no_proxy_of_the_environment_is_asked(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, model = Site(200, ANSWER), Site(200, ANSWER)
    sites += [proxy, model]
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, proxy.address)
    assert ask(model) == "yes"
    assert proxy.asked == []
    assert len(model.asked) == 1


def test_the_provider_s_address_is_not_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    llm = make_llm(LLMSettings(provider="openai", model="gpt-4o"), "key", {})
    assert str(llm._get_sync_client().base_url) == f"{OPENAI_URL}/"
    assert str(llm._get_async_client().base_url) == f"{OPENAI_URL}/"


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 408, 418, 422, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [f"<html>{SECRET}</html>", f'{{"error": {{"message": "{SECRET}", "code": "{SECRET}"}}}}'],
    ids=["page", "json"],
)
def test_s05_what_stands_at_the_endpoint_is_not_told_on(
    sites: list[Site], status: int, body: str
) -> None:
    kind = "text/html" if body.startswith("<") else "application/json"
    model = Site(status, body, {"Content-Type": kind})
    sites.append(model)
    error = refused(model)
    assert SECRET not in error.message
    assert status == 200 or f"status {status}" in error.message


def test_s05_garbage_instead_of_http_is_not_told_on(sites: list[Site]) -> None:
    site = Site(200, "", {"x\r\n" + SECRET: SECRET})
    sites.append(site)
    error = refused(site)
    assert SECRET not in error.message


def test_a_code_that_is_known_is_told(sites: list[Site]) -> None:
    body = f'{{"error": {{"message": "{SECRET}", "code": "context_length_exceeded"}}}}'
    model = Site(400, body, {"Content-Type": "application/json"})
    sites.append(model)
    assert "context_length_exceeded" in refused(model).message
