"""Builds Kubernetes and its companions from Go modules, once per version.

Where no release download and no container registry is reached, the Go module proxy still is. The
result is kept outside the checkout by version, so that only the first start on a machine pays.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError
from .locks import exclusive

TOOLS = Path(__file__).resolve().parent.parent / "tools"
MINIMUM_GO = (1, 26)
PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Tool:
    """A set of binaries built from one Go module. `seconds` is a cold build on two cores.

    A program of our own has a `library`, the module whose version is given here. One that is not
    of the `cluster` is built only where it is asked for by name.
    """

    name: str
    version: str
    packages: tuple[str, ...]
    seconds: int
    tags: str = ""
    ldflags: str = ""
    library: str = ""
    cluster: bool = True

    @property
    def binaries(self) -> tuple[str, ...]:
        """File names of what is built."""
        return tuple(self._binary(package) for package in self.packages)

    @staticmethod
    def _binary(package: str) -> str:
        parts = package.split("/")
        return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


_KUBERNETES = "v1.36.3"
_VERSION = "k8s.io/component-base/version"

ALL_TOOLS = (
    Tool(
        "kubernetes",
        _KUBERNETES,
        tuple(
            f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubelet",
                "kubectl",
            )
        ),
        seconds=340,
        ldflags=f"-X {_VERSION}.gitVersion={_KUBERNETES} -X {_VERSION}.gitMajor=1 "
        f"-X {_VERSION}.gitMinor=36",
    ),
    Tool("etcd", "v3.6.16", ("go.etcd.io/etcd/server/v3",), seconds=35),
    Tool(
        "containerd",
        "v2.4.2",
        tuple(
            f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "ctr", "containerd-shim-runc-v2")
        ),
        seconds=70,
        tags="no_btrfs,no_devmapper,no_zfs",
    ),
    Tool("coredns", "v1.14.7", ("github.com/coredns/coredns",), seconds=140),
    Tool("helm", "v4.3.1", ("helm.sh/helm/v4/cmd/helm",), seconds=130),
    Tool(
        "oidc-provider",
        "v3.52.0",
        ("discoveryflow.dev/cluster/oidc-provider",),
        seconds=15,
        library="github.com/zitadel/oidc/v3",
    ),
    Tool(
        "storage",
        "v13.0.0",
        ("discoveryflow.dev/cluster/storage",),
        seconds=30,
        library="sigs.k8s.io/sig-storage-lib-external-provisioner/v13",
    ),
    Tool(
        "kube-router",
        "v2.1.0",
        ("github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",),
        seconds=70,
        cluster=False,
    ),
    # scrapes addresses that a test names, so it needs none of its ways to discover any
    Tool(
        "prometheus",
        "v0.316.0",
        tuple(
            f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")
        ),
        seconds=240,
        tags="remove_all_sd",
        ldflags="-X github.com/prometheus/common/version.Version=3.16.0",
        cluster=False,
    ),
)


def cache_folder() -> Path:
    """Where built binaries and images are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "discoveryflow"


def folder_of(tool: Tool) -> Path:
    """Where the binaries of `tool` in its version are, or will be."""
    own = f"-{_sources(tool)}" if tool.library else ""
    return cache_folder() / "bin" / f"{tool.name}-{tool.version}{own}"


def _sources(tool: Tool) -> str:
    """A short hash of a program of our own, which changes without its version."""
    content = hashlib.sha256()
    for path in sorted((TOOLS / tool.name).iterdir()):
        content.update(f"{path.name}\n".encode() + path.read_bytes())
    return content.hexdigest()[:8]


def require(names: tuple[str, ...] | None = None) -> str:
    """Builds what is missing and returns a PATH prefix with all of it; by default, the cluster's.

    Raises ClusterError where Go is missing, too old, or a build fails.
    """
    wanted = [tool for tool in ALL_TOOLS if (tool.cluster if names is None else tool.name in names)]
    missing = [tool for tool in wanted if not folder_of(tool).is_dir()]
    if missing:
        _check_go()
        with exclusive(cache_folder() / "bin" / ".lock", "builds the cluster's binaries"):
            _build_all(missing)
    return os.pathsep.join(str(folder_of(tool)) for tool in wanted)


def _build_all(missing: list[Tool]) -> None:
    for scratch in (cache_folder() / "bin").glob(".*-*"):  # of a build that was cut off
        shutil.rmtree(scratch)
    missing = [tool for tool in missing if not folder_of(tool).is_dir()]
    if missing:
        total = sum(tool.seconds for tool in missing)
        print(
            f"Building {', '.join(tool.name for tool in missing)} from source: about "
            f"{total // 60 + 1} minutes on two cores, only this time "
            f"(kept in {cache_folder() / 'bin'}).",
            flush=True,
        )
        for tool in missing:
            _build(tool)


def _check_go() -> None:
    go = shutil.which("go")
    if go is None:
        raise ClusterError(
            "provider native builds Kubernetes with Go 1.26 or newer, and there is no `go`.\n"
            "Install it, or use --provider kind (needs a Docker engine) or "
            "--provider existing --context NAME."
        )
    text = subprocess.run(
        [go, "env", "GOVERSION"], check=True, capture_output=True, text=True
    ).stdout
    found = re.match(r"go(\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM_GO:
        raise ClusterError(
            f"provider native needs Go 1.26 or newer, found {text.strip()}.\n"
            "Install a newer one, or use --provider kind or --provider existing."
        )


def _build(tool: Tool) -> None:
    target = folder_of(tool)
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(f"  {tool.name} {tool.version} (about {tool.seconds} s) …", end=" ", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{tool.name}-") as scratch:
        output = Path(scratch) / "bin"
        output.mkdir()
        command = ["go", "build", "-trimpath", "-mod=readonly", "-ldflags"]
        command += [f"-s -w {tool.ldflags}".strip()]
        command += ["-tags", tool.tags] if tool.tags else []
        command += ["-o", str(output) + "/", *tool.packages]
        status, errors = _follow(command, TOOLS / tool.name)
        if status != 0:
            print("failed", flush=True)
            raise ClusterError(f"building {tool.name} failed:\n{errors[-3000:]}")
        produced = {path.name for path in output.iterdir()}
        for binary, package in zip(tool.binaries, tool.packages, strict=True):
            if binary not in produced:
                raise ClusterError(f"building {package} gave {sorted(produced)}, no {binary}")
        if tool.name == "etcd":
            (output / "server").rename(output / "etcd")
        output.rename(target)
    print(f"done in {time.monotonic() - started:.0f} s", flush=True)


def _follow(command: list[str], folder: Path) -> tuple[int, str]:
    """Runs a build, printing the seconds it has taken now and then. Returns status and errors."""
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"CGO_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        while True:
            try:
                _, errors = build.communicate(timeout=PROGRESS_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{time.monotonic() - started:.0f} s …", end=" ", flush=True)
            except BaseException:
                build.terminate()
                raise
            else:
                return build.returncode, errors
