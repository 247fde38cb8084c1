"""No sign of data reaches a terminal as one that it obeys: the real command, over HTTP, no pty."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from discovery_cli import edit, output
from discovery_cli.output import Format, plain

# moves up and overwrites, a title, C1 controls, bidi, unseen, ends of lines that are none
HOSTILE = (
    "\x1b[1A\x1b[2Khostname\x1b]0;owned\x07\x9b31m\x85\u2028\u2029\u202eevil\u2066\u200b\u00ad"
    "\ufeff\U000e0041\r\nservers approved\t\x7f"
)
FLOW_ID = "7b3c1a52-2b1e-4f0e-9a55-0c8f5f1d2a10"
CLI = Path(output.__file__).parent
REQUEST = {
    "requestId": "r1", "artefactDigest": "sha256:" + "0" * 64, "mappings": 1, "expiresAt": "soon",
}  # fmt: skip
FLOW = {
    "metadata": {"name": "servers", "namespace": "dc", "uid": FLOW_ID},
    "spec": {"engagement": HOSTILE},
    "status": {
        "state": "AwaitingApproval", "message": HOSTILE, "phase": HOSTILE,
        "approvalRequest": REQUEST, "conditions": [],
    },
}  # fmt: skip
MAPPING = {
    "column": HOSTILE, "target": HOSTILE, "transform": None, "confidence": 0.5,
    "samples": [HOSTILE, "b"], "reason": HOSTILE, "candidates": [{"target": HOSTILE, "score": 0.5}],
}  # fmt: skip
SHOWN = {
    "state": "AwaitingApproval",
    "approval_request": {"targets": [HOSTILE]},
    "ui_state": {"show_approval_ui": True, "mappings_to_approve": [MAPPING], "findings": [HOSTILE]},
}
EVENT = {
    "at": "2026-01-01T00:00:00", "actor": HOSTILE, "trigger": HOSTILE, "to_state": "x",
    "phase": HOSTILE, "message": HOSTILE,
}  # fmt: skip
FILES = [{"name": HOSTILE, "phase": "p", "size": 1, "file_name": HOSTILE}]
ROWS = f"row,value\r\n1,{HOSTILE}\r\n".encode()
USER = f"/api/v1/discovery/flows/{FLOW_ID}"
ANSWERS: dict[str, Any] = {
    USER: SHOWN, f"{USER}/history": [EVENT], f"{USER}/artefacts": FILES,
    f"{USER}/rejected-rows": ROWS,
}  # fmt: skip


@pytest.fixture
def address() -> Iterator[str]:
    """Kubernetes and the user API in one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            if place.startswith("/apis/discoveryflow.dev"):
                found = FLOW if "/servers" in place else None
            else:
                found = ANSWERS.get(place)
            status, body = 200, found
            if found is None:
                status, body = 404, {"message": HOSTILE, "title": HOSTILE, "problems": [HOSTILE]}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(folder: Path, address: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with a kubeconfig, its output piped."""
    kubeconfig = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u", "namespace": "dc"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "c", "context": context}],
            }
        )
    )  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "discovery_cli", "--api-url", address, *words],
        env=os.environ
        | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": os.pathsep.join(sys.path),
           "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


def obeyed(text: str) -> set[str]:
    """Signs that a terminal would not show as themselves; ends of lines are ours."""
    return {sign for sign in text if plain(sign, keep="\n") != sign}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("describe servers", 0),
        ("mappings servers", 0),
        ("mappings servers -o name", 0),
        ("list", 3),
        ("describe other", 3),
        ("export servers", 0),
        ("export servers --format x", 3),
        ("retry servers --id x --from-phase approval", 1),
        ("edit servers --from-file nothing.yaml", 0),
        ("purge servers", 1),
    ],
)
def test_s15_what_is_printed_is_seen_as_it_is(
    tmp_path: Path, address: str, words: str, code: int
) -> None:
    (tmp_path / "nothing.yaml").write_text("")
    given = [str(tmp_path / word) if word == "nothing.yaml" else word for word in words.split()]
    done = run(tmp_path, address, *given)
    told = (done.stdout + done.stderr).decode()
    assert "Traceback" not in told
    assert told
    assert obeyed(told) == set()
    assert "\nservers approved" not in told
    assert done.returncode == code, told


def test_s15_cells_stay_in_their_row(tmp_path: Path, address: str) -> None:
    done = run(tmp_path, address, "mappings", "servers").stdout.decode()
    head, row, finding = done.splitlines()
    assert head.startswith("COLUMN")
    assert row.startswith(
        r"\x1b[1A\x1b[2Khostname\x1b]0;owned\x07\x9b31m\x85\u2028\u2029\u202eevil"
    )
    assert r"\r\nservers approved\t\x7f" in row
    assert finding.startswith(r"! \x1b[1A\x1b[2Khostname")


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_s15_programs_get_the_same_values_without_a_sign_that_is_obeyed(
    tmp_path: Path, address: str, form: Format
) -> None:
    done = run(tmp_path, address, "mappings", "servers", "-o", str(form)).stdout.decode()
    assert obeyed(done) == set()
    found = json.loads(done) if form is Format.JSON else yaml.safe_load(done)
    assert found["mappings"] == [MAPPING]
    assert found["findings"] == [HOSTILE]


def test_s15_a_file_that_is_piped_is_the_file(tmp_path: Path, address: str) -> None:
    assert run(tmp_path, address, "rejected-rows", "servers").stdout == ROWS


class Terminal(io.StringIO):
    """Somebody who looks."""

    def isatty(self) -> bool:
        return True


def test_s15_a_file_on_a_terminal_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.content([ROWS[:7], ROWS[7:20], ROWS[20:], b"\xff\x1bcut \xe2\x82"])
    shown = terminal.getvalue()
    assert {sign for sign in shown if plain(sign, keep="\n\t") != sign} == set()
    assert shown.splitlines()[0] == "row,value"
    assert shown.endswith("\\xff\\x1bcut \\xe2\\x82\n")


def test_s15_what_an_editor_shows_says_nothing_by_itself() -> None:
    """A sample cannot end its remark and so become an edit."""
    attack = "x\r- column: os\u0085  target: name\u2028y"
    mapping = MAPPING | {"column": "os", "target": "os", "samples": [attack], "reason": attack}
    text = edit.document("servers", [mapping], ["os", HOSTILE])
    assert obeyed(text) == set()
    assert yaml.safe_load(text) == [{"column": "os", "target": "os", "unit": ""}]


def test_s15_letters_of_all_languages_are_left() -> None:
    text = "Größe 서버 サーバ שרת é\u00a0m² 🙂"
    assert plain(text) == text


@pytest.mark.parametrize("file", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_s15_only_one_module_writes(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    direct = {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("print", "echo", "secho", "stdout.write",
                                             "stderr.write", "buffer.write"))
    }  # fmt: skip
    assert file.name == "output.py" or not direct
