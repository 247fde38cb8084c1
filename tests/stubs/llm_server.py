"""An OpenAI-compatible stub: plays a model over HTTP so that real crews can be driven by it.

One file, standard library only, so that it also runs from a ConfigMap in any Python image:
`python llm_server.py --port 8000 --behaviour accept`. GET /stats tells how often it was asked.
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEHAVIOURS = (
    "accept",
    "script",
    "malformed",
    "nonsense",
    "truncated",
    "slow",
    "hostile",
    "empty",
    "html",
    "quota",
    "status-400",
    "status-401",
    "status-404",
    "status-429",
    "status-500",
)
SUBMIT_PREFIX = "submit_"


def _called(messages: list[dict[str, Any]]) -> list[str]:
    return [
        call["function"]["name"] for message in messages for call in message.get("tool_calls") or []
    ]


def _shown(messages: list[dict[str, Any]], tool: str) -> str:
    """What a tool has answered in this conversation."""
    wanted = {
        call["id"]
        for message in messages
        for call in message.get("tool_calls") or []
        if call["function"]["name"] == tool
    }
    for message in messages:
        if message.get("role") == "tool" and message.get("tool_call_id") in wanted:
            return str(message.get("content", ""))
    return ""


class Model:
    """Decides what to answer.

    `script` maps a submitting tool to its arguments, or for the mapping a column to a rank on its
    shortlist or "decline".
    """

    def __init__(self, behaviour: str, script: dict[str, Any], delay: float) -> None:
        self.behaviour = behaviour
        self.script = script
        self.delay = delay
        self.requests = 0

    def completion(self, request: dict[str, Any]) -> dict[str, Any]:
        """The body of a chat completion."""
        message = self.answer(request)
        return {
            "id": f"stub-{self.requests}",
            "object": "chat.completion",
            "created": 0,
            "model": request.get("model", "stub"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The assistant's message for a chat completion."""
        tools = [tool["function"]["name"] for tool in request.get("tools") or []]
        messages = request["messages"]
        submit = next((name for name in tools if name.startswith(SUBMIT_PREFIX)), None)
        if self.behaviour == "nonsense" or submit is None:
            return {"role": "assistant", "content": "The weather is nice today."}
        if self.behaviour == "empty":
            return {"role": "assistant", "content": ""}
        used = _called(messages)
        waiting = [name for name in tools if name != submit and name not in used]
        if waiting and self.behaviour != "hostile":
            return self._call(waiting[0], {})
        if self.behaviour == "hostile" and len(used) % 3 == 0:
            return self._call("delete_everything", {"path": "/"})
        return self._call(submit, self._arguments(submit, messages))

    def _arguments(self, submit: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        if self.behaviour == "hostile":
            return {
                "decisions": [
                    {"column": "no such column", "target": "hostname"},
                    {"column": "Memory", "target": "password"},
                ]
            }
        if self.behaviour == "script" and submit in self.script:
            scripted: dict[str, Any] = self.script[submit]
            return scripted
        if self.behaviour == "script" and submit == "submit_mapping":
            return {"decisions": self._decisions(messages)}
        return {}

    def _decisions(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shortlists = {
            row["column"]: [entry.split(" ")[0] for entry in row["shortlist"]]
            for row in json.loads(_shown(messages, "show_shortlists"))
        }
        return [
            {
                "column": column,
                "target": None if choice == "decline" else shortlists[column][int(choice) - 1],
                "reason": "scripted",
            }
            for column, choice in self.script.items()
        ]

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(arguments)
        if self.behaviour == "malformed":
            text = '{"decisions": [{"column": '
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": f"call_{self.requests}",
                    "type": "function",
                    "function": {"name": name, "arguments": text},
                }
            ],
        }


class Handler(BaseHTTPRequestHandler):
    """The two routes: chat completions and statistics."""

    model: Model

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Says nothing."""

    def do_GET(self) -> None:
        """Statistics."""
        self._send(200, json.dumps({"requests": self.model.requests}))

    def do_POST(self) -> None:
        """A chat completion."""
        length = int(self.headers.get("Content-Length", 0))
        request = json.loads(self.rfile.read(length) or b"{}")
        self.model.requests += 1
        behaviour = self.model.behaviour
        if behaviour == "html":
            self._send(200, "<html><body>Sign in to the network</body></html>", "text/html")
            return
        if behaviour == "quota":
            error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
            self._send(429, json.dumps({"error": error}))
            return
        if behaviour.startswith("status-"):
            status = int(behaviour.removeprefix("status-"))
            self._send(status, json.dumps({"error": {"message": f"stub says {status}"}}))
            return
        if behaviour == "slow":
            time.sleep(self.model.delay)
        body = json.dumps(self.model.completion(request))
        self._send(200, body[: len(body) // 2] if behaviour == "truncated" else body)

    def _send(self, status: int, body: str, media_type: str = "application/json") -> None:
        data = body.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def serve(
    host: str, port: int, behaviour: str, script: dict[str, Any] | None = None, delay: float = 5.0
) -> ThreadingHTTPServer:
    """A server that is bound but not yet running; call `serve_forever`."""
    model = Model(behaviour, script or {}, delay)
    handler = type("BoundHandler", (Handler,), {"model": model})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    return server


def main() -> None:
    """Serves until killed."""
    parser = argparse.ArgumentParser(description="OpenAI-compatible stub")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="accept")
    parser.add_argument("--script", default="{}", help='JSON, e.g. {"RAM": 2, "Notes": "decline"}')
    parser.add_argument("--delay", type=float, default=5.0)
    options = parser.parse_args()
    serve(
        options.host, options.port, options.behaviour, json.loads(options.script), options.delay
    ).serve_forever()


if __name__ == "__main__":
    main()
