"""The cluster tool where it can be tried without a cluster: refusals, builds, tags, locks."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cluster.provision import binaries, contents, images
from tests.cluster.provision.__main__ import choose
from tests.cluster.provision.binaries import ALL_TOOLS, TOOLS, Tool, folder_of, require
from tests.cluster.provision.errors import ClusterError
from tests.cluster.provision.existing import Existing
from tests.cluster.provision.kind import Kind, docker_answers
from tests.cluster.provision.locks import exclusive
from tests.cluster.provision.native import Native
from tests.cluster.provision.processes import Processes, runs
from tests.cluster.provision.remains import Remains


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, with the few commands that scripts need."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for name in ("sh", "cat", "touch", "mkdir"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


# -- choosing a provider ---------------------------------------------------------------------------


def test_auto_is_native_where_only_docker_s_client_is(commands: Path) -> None:
    assert not docker_answers()
    script(commands, "docker", "echo 'cannot connect' >&2; exit 1")
    assert not docker_answers()
    assert choose("auto", None).name == "native"


def test_auto_is_kind_where_an_engine_answers(commands: Path) -> None:
    script(commands, "docker", "echo 29.1.0")
    assert choose("auto", None).name == "kind"


def test_existing_wants_a_context_by_name() -> None:
    with pytest.raises(ClusterError, match="--context NAME; the current context is never used"):
        choose("existing", None)


def test_existing_takes_over_the_named_context_only(commands: Path) -> None:
    script(commands, "kubectl", 'case "$*" in *view*) echo "$@";; *) exit 0;; esac')
    provider = Existing("team/east")
    provider.up()
    assert "--minify --context team/east" in provider.kubeconfig.read_text()
    assert provider.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert provider.healthy()
    provider.down()
    assert not provider.kubeconfig.exists()


def test_existing_says_where_nothing_answers(commands: Path) -> None:
    script(commands, "kubectl", 'case "$*" in *view*) echo config;; *) exit 1;; esac')
    with pytest.raises(ClusterError, match="no API server answers in context 'east'"):
        Existing("east").up()


def test_existing_wants_a_registry_before_anything_is_built(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # with no command in PATH, a build would fail in another way
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    with pytest.raises(ClusterError, match="set IMAGE_REGISTRY"):
        images.build_and_load(Existing("east"), ["operator"])
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example.org/team/")
    assert Existing("east").repository == "registry.example.org/team/discoveryflow"


def test_kind_names_the_ways_out(commands: Path) -> None:
    with pytest.raises(ClusterError, match=r"Docker engine.*\n.*native.*\n?.*existing"):
        Kind().up()
    script(commands, "docker", "echo 29.1.0")
    with pytest.raises(ClusterError, match="needs the `kind` command"):
        Kind().up()


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ("no-such-cluster", r"kind create cluster --name discoveryflow .*--kubeconfig \S+/kind"),
        ("discoveryflow", r"docker start discoveryflow-control-plane\nkind export kubeconfig"),
    ],
)
def test_kind_creates_or_restarts(commands: Path, there: str, expected: str) -> None:
    log = commands.parent / "log"
    script(commands, "docker", f'echo "docker $*" >>{log}; echo 29.1.0')
    script(
        commands, "kind", f'echo "kind $*" >>{log}; [ "$1 $2" != "get clusters" ] || echo {there}'
    )
    Kind().up()
    assert re.search(expected, log.read_text())


def test_native_wants_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"needs root.*\n.*kind.*\n?.*existing"):
        Native(tmp_path / "cluster").up()


# -- building --------------------------------------------------------------------------------------


TOOL = Tool("etcd", "v9", ("example.org/etcd/server/v3",), seconds=1)
BUILDS = """
if [ "$1" = env ]; then echo go1.26.1; exit 0; fi
while [ "$1" != -o ]; do shift; done
touch "$2/server"
"""


def test_native_wants_go(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "ALL_TOOLS", (TOOL,))
    with pytest.raises(ClusterError, match=r"no `go`.\n.*kind.*\n?.*existing"):
        require()
    script(commands, "go", "echo go1.25.9")
    with pytest.raises(ClusterError, match=r"1.26 or newer, found go1.25.9.\n.*kind.*existing"):
        require()


def test_a_build_is_kept_and_not_repeated(
    commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(binaries, "ALL_TOOLS", (TOOL,))
    script(commands, "go", BUILDS)
    assert require() == str(folder_of(TOOL))
    assert (folder_of(TOOL) / "etcd").exists()
    assert "Building etcd from source" in capsys.readouterr().out
    script(commands, "go", "exit 1")
    require()
    assert capsys.readouterr().out == ""


def test_what_is_not_of_the_cluster_is_built_where_it_is_asked_for(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = Tool("helm", "v9", ("example.org/aside/server",), seconds=1, cluster=False)
    monkeypatch.setattr(binaries, "ALL_TOOLS", (TOOL, aside))
    script(commands, "go", BUILDS)
    require()
    assert not folder_of(aside).exists()
    assert require(("helm",)) == str(folder_of(aside))
    assert (folder_of(aside) / "server").exists()


def test_a_failed_or_cut_off_build_leaves_nothing(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "ALL_TOOLS", (TOOL,))
    cut_off = folder_of(TOOL).parent / ".etcd-cutoff"
    (cut_off / "bin").mkdir(parents=True)
    script(commands, "go", f"{BUILDS}\necho 'no such module' >&2; exit 1")
    with pytest.raises(ClusterError, match=r"building etcd failed:\nno such module"):
        require()
    assert [path.name for path in folder_of(TOOL).parent.iterdir()] == [".lock"]


def test_a_build_that_takes_long_says_how_long(
    commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(binaries, "PROGRESS_SECONDS", 0.05)
    (commands / "sleep").symlink_to("/bin/sleep")
    assert binaries._follow(["sh", "-c", "sleep 0.2; echo bad >&2; exit 3"], commands) == (
        3,
        "bad\n",
    )
    assert "0 s …" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ALL_TOOLS, ids=lambda tool: tool.name)
def test_a_folder_is_named_after_the_version_that_is_built(tool: Tool) -> None:
    module = (TOOLS / tool.name / "go.mod").read_text()
    required = dict(re.findall(r"^\s*(?:require )?(\S+) (v\S+)", module, re.MULTILINE))
    named = (tool.library,) if tool.library else tool.packages
    built = {name for name in required if any(p.startswith(name) for p in named)}
    assert {required[name] for name in built} == {tool.version}


def test_a_program_of_our_own_is_built_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "TOOLS", tmp_path)
    tool = Tool("own", "v1", ("example.org/own",), seconds=1, library="example.org/library")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "main.go").write_text("package main")
    before = folder_of(tool)
    assert before.name.startswith("own-v1-")
    assert folder_of(tool) == before
    (tmp_path / "own" / "main.go").write_text("package main // changed")
    assert folder_of(tool) != before


# -- images ----------------------------------------------------------------------------------------


def test_a_tag_names_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ROOT", tmp_path)
    code = tmp_path / "code" / "a.py"
    code.parent.mkdir()
    code.write_text("a = 1")
    image = images.Image("a", ("code",))
    first = image.tag("base")
    (code.parent / "__pycache__").mkdir()
    (code.parent / "__pycache__" / "a.pyc").write_text("compiled")
    assert image.tag("base") == first
    assert image.tag("another base") != first
    code.write_text("a = 2")
    second = image.tag("base")
    code.rename(code.with_name("b.py"))
    assert len({first, second, image.tag("base")}) == 3


class _Node:
    """A provider that remembers what was loaded."""

    name = "native"
    repository = "localhost/discoveryflow"

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, archive: Path) -> None:
        self.loaded.append(archive.name)

    def has_image(self, reference: str) -> bool:
        return not reference


def test_files_that_change_during_a_build_are_built_again(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    tags = iter(["one", "two", "two", "two"])
    monkeypatch.setattr(images.Image, "tag", lambda *_: next(tags))
    monkeypatch.setattr(images, "_local_base", lambda **_: "base")
    monkeypatch.setattr(images, "_build", lambda *a, **_: built.append(a[2]))
    monkeypatch.setattr(images, "_save", lambda *_, **__: None)
    monkeypatch.setattr(images, "_bring_web_assets", lambda: None)
    node = _Node()
    references = images.build_and_load(node, ["operator"])
    assert [reference.rsplit(":")[-1] for reference in built] == ["one", "two"]
    assert references == {"operator": "localhost/discoveryflow/operator:two"}
    assert node.loaded == ["operator.tar"]


@pytest.mark.parametrize(
    ("size", "modules", "complaint"),
    [
        (299.0, {"kopf"}, None),
        (301.0, {"kopf"}, "too large: 301 MB > 300 MB"),
        (200.0, {"kopf", "crewai"}, "crewai does not belong"),
    ],
)
def test_sizes_fails_for_what_is_too_large_or_misplaced(
    commands: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: float,
    modules: set[str],
    complaint: str | None,
) -> None:
    images.references_file().parent.mkdir(parents=True)
    images.references_file().write_text('{"operator": "localhost/discoveryflow/operator:1"}')
    monkeypatch.setattr(contents, "_measure", lambda *_: (size, [("/opt/site/kopf", 9.0)], modules))
    assert contents.report_sizes() == (1 if complaint else 0)
    output = capsys.readouterr().out
    assert f"operator: {size:.0f} MB" in output
    assert complaint is None or complaint in output


# -- processes, mounts, locks ----------------------------------------------------------------------


def test_a_recycled_pid_is_not_mistaken(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "run", f"{tmp_path}/")
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    processes.start("mine", [*command, f"{tmp_path}/data"], {})
    mine = processes.pid("mine")
    other = subprocess.Popen([*command, f"{tmp_path}2/data"])
    try:
        assert mine is not None
        (tmp_path / "run" / "other.pid").write_text(str(other.pid))
        assert processes.pid("other") is None
        assert processes.missing(["mine", "other", "never"]) == ["other", "never"]
        processes.stop("other")
        assert other.poll() is None
    finally:
        processes.stop("mine")
        other.kill()
        other.wait()
    assert processes.pid("mine") is None


def test_nothing_is_deleted_below_a_mount_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # its name is its own: pods are found by it, and those of a cluster that is up would end
    work = tmp_path / f"mounted-{uuid4().hex[:8]}"
    volume = work / "kubelet" / "pods" / "volume" / "precious"
    volume.parent.mkdir(parents=True)
    volume.write_text("somebody's data")
    monkeypatch.setattr(Remains, "mounts", lambda _: [str(volume.parent)])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: _nothing())
    with pytest.raises(ClusterError, match="cannot be unmounted, so nothing below them is deleted"):
        Native(work).down()
    assert volume.read_text() == "somebody's data"


def _nothing() -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 1, stdout="", stderr="")


def _hold(lock: Path, seconds: float) -> None:
    with exclusive(lock, "holds"):
        (lock.parent / "held").touch()
        time.sleep(seconds)


def _until_held(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not (folder / "held").exists():
        assert time.monotonic() < deadline, "the other process never got the lock"
        time.sleep(0.01)


def test_a_second_run_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(lock, 0.5))
    holder.start()
    _until_held(tmp_path)
    started = time.monotonic()
    with exclusive(lock, "holds"):
        assert time.monotonic() - started > 0.2
    assert "Waiting for another run that holds" in capsys.readouterr().out
    holder.join()


def test_a_killed_run_does_not_block_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(lock, 60))
    holder.start()
    _until_held(tmp_path)
    holder.kill()
    holder.join()
    with exclusive(lock, "holds"):
        pass


def test_a_process_runs_until_the_kernel_has_taken_back_what_it_had() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert runs(process.pid)
    process.kill()
    # not collected yet: a zombie, which holds nothing
    deadline = time.monotonic() + 10
    while runs(process.pid):
        assert time.monotonic() < deadline
    assert Path(f"/proc/{process.pid}").exists()
    process.wait()
    assert not runs(process.pid)
