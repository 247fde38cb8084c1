"""The commands as they are documented, each from an environment with nothing but its own extra."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.prefix) / "bin" / "uv"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
SERVERS = "Name,IP Address,Memory GB\nweb01,192.0.2.1,8\nweb02,192.0.2.2,16\n"


def installed(folder: Path, extra: str, *options: str) -> Path:
    """The folder of commands of a fresh environment with this checkout and one extra."""
    environment = folder / extra
    uv = [str(UV), "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, environment], check=True, env=CLEAN)
    python = str(environment / "bin" / "python")
    command = [*uv, "pip", "install", "--python", python, *options]
    subprocess.run([*command, f"{ROOT}[{extra}]"], check=True, env=CLEAN)
    return environment / "bin"


def run(*command: str | Path, where: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = CLEAN | {"PATH": f"{path}:{CLEAN['PATH']}", "HOME": str(where)}
    return subprocess.run(
        list(command), cwd=where, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("cli"), "cli")


@pytest.fixture(scope="module")
def crews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without what the crew image leaves out, too."""
    left_out = ROOT / "requirements" / "overrides-crews.txt"
    return installed(tmp_path_factory.mktemp("crews"), "crews", "--overrides", str(left_out))


@pytest.mark.parametrize("command", ["kubectl-discoveryflow", "discoveryflow"])
def test_the_command_line_starts(cli: Path, tmp_path: Path, command: str) -> None:
    done = run(cli / command, "--help", where=tmp_path, path=cli)
    assert (done.returncode, done.stderr) == (0, "")
    assert "approve" in done.stdout
    done = run(cli / command, "--version", where=tmp_path, path=cli)
    assert (done.returncode, done.stdout.strip()) == (0, "0.1.0")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command"),
        (["retry"], "Missing argument"),
        (["list", "--nonsense"], "No such option"),
        (["list"], "error: the kubeconfig cannot be used"),
        ([], "Usage:"),
    ],
)
def test_wrong_usage(cli: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(cli / "kubectl-discoveryflow", *arguments, where=tmp_path, path=cli)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert says in done.stdout + done.stderr


def documented() -> list[list[str]]:
    """The README's commands for crews, on the file that this test makes."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"^\$ (python -m discovery_crews .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    return [shlex.split(line.replace("rvtools.xlsx", "servers.csv")) for line in found]


def test_the_readme_names_the_install_step() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.index("pip install '.[crews]'") < text.index("python -m discovery_crews run")
    assert len(documented()) == 3


@pytest.mark.parametrize("command", documented(), ids=" ".join)
def test_the_crews_commands_of_the_readme(crews: Path, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "servers.csv").write_text(SERVERS)
    done = run(crews / "python", *command[1:], where=tmp_path, path=crews)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)
    if "--output" in command:
        assert any((tmp_path / "out").rglob("*.parquet"))
