"""Builds the product's images and brings them into the cluster, only when something changed.

A tag is the hash of everything that goes into an image, so an unchanged image is neither built
nor loaded again, and a cluster can never run a stale one. Where no registry is reached the Debian
base image is made with debootstrap; the Containerfiles take it as a build argument.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .binaries import cache_folder
from .errors import ClusterError
from .kind import docker_answers
from .locks import exclusive
from .native_config import PAUSE

ROOT = Path(__file__).resolve().parents[3]
LOCAL_BASE = "localhost/debian:trixie-slim"
LOCAL_POSTGRES_BASE = "localhost/debian-postgres:17"
BUILDAH = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}


class Loader(Protocol):
    """The part of a provider that takes images."""

    name: str

    @property
    def repository(self) -> str: ...
    def load(self, archive: Path) -> None: ...
    def has_image(self, reference: str) -> bool: ...


@dataclass(frozen=True)
class Image:
    """An image, what goes into it, and how large it may be (MB uncompressed)."""

    name: str
    inputs: tuple[str, ...]
    limit: int | None = None
    packages: str = ""

    def tag(self, base: str) -> str:
        """Hash of the base and of every file that goes in."""
        digest = hashlib.sha256(base.encode())
        for path in sorted(_files(self.inputs)):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


IMAGES = (
    Image(
        "operator",
        (
            "images/operator",
            "requirements/operator.txt",
            "core/discovery_core",
            "operator/discovery_operator",
            "api/discovery_api",
            "migrations",
            "alembic.ini",
        ),
        limit=300,
        packages="/opt/site",
    ),
    Image(
        "crews",
        (
            "images/crews",
            "requirements/crews.txt",
            "core/discovery_core",
            "crews/discovery_crews",
        ),
        limit=700,
        packages="/opt/site",
    ),
    Image("postgres", ("images/postgres",)),
)
NAMES = tuple(image.name for image in IMAGES)


def _files(inputs: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = ROOT / name
        found += [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


def references_file() -> Path:
    """Where the names of the current images are kept for demo and tests: {name: reference}."""
    return cache_folder() / "images.json"


def build_and_load(provider: Loader, names: list[str]) -> dict[str, str]:
    """Brings the named images up to date in the cluster. Returns their references."""
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ClusterError(f"there is no image {sorted(unknown)}; images are {', '.join(NAMES)}")
    _ = provider.repository  # raises before minutes go into what could not be pushed
    with exclusive(cache_folder() / ".images.lock", "builds images"):
        references: dict[str, str] = {}
        if references_file().exists():
            references = json.loads(references_file().read_text())
        if "operator" in names:
            _bring_web_assets()
        for image in IMAGES:
            if image.name in names:
                references[image.name] = _bring(provider, image)
                written = references_file().with_suffix(".new")
                written.write_text(json.dumps(references, indent=1))
                written.replace(references_file())
    return references


def _bring_web_assets() -> None:
    """The pages' packages, pinned by web-assets/package-lock.json; images copy them."""
    run("bash", "web-assets/build")


def _bring(provider: Loader, image: Image) -> str:
    docker = _by_docker(provider.name)
    base = base_of(provider.name, image.name)
    tag = image.tag(base)
    reference = f"{provider.repository}/{image.name}:{tag}"
    if provider.has_image(reference):
        print(f"{reference} is in the cluster already.")
        return reference
    started = time.monotonic()
    print(f"Building {reference} …", end=" ", flush=True)
    _build(image, base, reference, docker=docker)
    if image.tag(base) != tag:
        print("its files have changed meanwhile; once more.", flush=True)
        return _bring(provider, image)
    if provider.name == "existing":
        run("docker" if docker else "buildah", "push", "--quiet", reference)
    else:
        with tempfile.TemporaryDirectory(prefix="discoveryflow-image-") as scratch:
            archive = Path(scratch) / f"{image.name}.tar"
            _save(reference, archive, docker=docker)
            provider.load(archive)
    print(f"built and in place in {time.monotonic() - started:.0f} s", flush=True)
    return reference


def _by_docker(provider: str) -> bool:
    return provider != "native" and docker_answers()


def base_of(provider: str, name: str) -> str:
    """What the image `name` is built on: by Docker, what its Containerfile names by digest."""
    if not _by_docker(provider):
        return _local_base(postgres=name == "postgres")
    text = (ROOT / "images" / name / "Containerfile").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if line.startswith("ARG BASE="))[9:]


def _build(image: Image, base: str, reference: str, *, docker: bool) -> None:
    containerfile = ROOT / "images" / image.name / "Containerfile"
    arguments = ["--build-arg", f"BASE={base}", "--tag", reference, "--file", str(containerfile)]
    if docker:
        run("docker", "build", *arguments, str(ROOT))
        return
    with tempfile.TemporaryDirectory(prefix="discoveryflow-pip-") as scratch:
        mounts = _pip_mounts(Path(scratch))
        run("buildah", "build", "--layers", "--quiet", *mounts, *arguments, str(ROOT))


def _save(reference: str, archive: Path, *, docker: bool) -> None:
    if docker:
        run("docker", "save", "--output", str(archive), reference)
    else:
        run("buildah", "push", "--quiet", reference, f"docker-archive:{archive}:{reference}")


def _pip_mounts(scratch: Path) -> list[str]:
    """The pip settings and certificates of this machine, for the build only."""
    lines = ["[global]"]
    for name in ("index-url", "extra-index-url", "proxy"):
        value = os.environ.get(f"PIP_{name.replace('-', '_').upper()}") or _pip_setting(name)
        if value:
            lines.append(f"{name} = {value}")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    mounts = []
    if certificates.exists():
        lines.append(f"cert = {certificates}")
        mounts += ["--volume", f"{certificates}:{certificates}:ro"]
    settings = scratch / "pip.conf"
    settings.write_text("\n".join(lines) + "\n")
    return [*mounts, "--volume", f"{settings}:/etc/pip.conf:ro"]


def _pip_setting(name: str) -> str:
    done = subprocess.run(
        ["python3", "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _local_base(*, postgres: bool) -> str:
    """A Debian base made with debootstrap, once a month."""
    month = dt.datetime.now(tz=dt.UTC).strftime("%Y%m")
    reference = f"{LOCAL_POSTGRES_BASE if postgres else LOCAL_BASE}-{month}"
    if _buildah_has(reference):
        return reference
    packages = "ca-certificates" + (",postgresql-17" if postgres else ",python3,python3-venv")
    print(f"Making the Debian base {reference} with debootstrap (a minute) …", flush=True)
    with tempfile.TemporaryDirectory(prefix="discoveryflow-base-") as scratch:
        root = Path(scratch) / "root"
        run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(root))
        for waste in ("doc", "man", "locale", "info"):
            shutil.rmtree(root / "usr/share" / waste, ignore_errors=True)
        shutil.rmtree(root / "var/lib/postgresql/17", ignore_errors=True)
        for waste in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
            for path in (root / waste).rglob("*"):
                if path.is_file():
                    path.unlink()  # the folders stay: apt needs them
        archive = Path(scratch) / "root.tar"
        run("tar", "-C", str(root), "--numeric-owner", "-cf", str(archive), ".")
        containerfile = Path(scratch) / "Containerfile"
        containerfile.write_text(
            "FROM scratch\nADD root.tar /\n"
            'ENV PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n'
            'CMD ["bash"]\n'
        )
        run(
            "buildah", "build", "--quiet", "--tag", reference, "--file", str(containerfile), scratch
        )
    return reference


def _buildah_has(reference: str) -> bool:
    done = subprocess.run(
        ["buildah", "inspect", "--type", "image", reference],
        env=os.environ | BUILDAH,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def ensure_pause(provider: Loader) -> None:
    """The image that holds a pod's namespaces: a program that waits, in an empty image."""
    if provider.has_image(PAUSE):
        return
    with tempfile.TemporaryDirectory(prefix="discoveryflow-pause-") as scratch:
        archive = Path(scratch) / "pause.tar"
        source = ROOT / "images/pause"
        run("gcc", "-static", "-Os", "-s", "-o", f"{scratch}/pause", str(source / "pause.c"))
        run(
            "buildah",
            "build",
            "--quiet",
            "--tag",
            PAUSE,
            "--file",
            str(source / "Containerfile"),
            scratch,
        )
        run("buildah", "push", "--quiet", PAUSE, f"docker-archive:{archive}:{PAUSE}")
        provider.load(archive)


def output(*command: str) -> str:
    """What a command prints. Raises ClusterError with its last words where it fails."""
    done = subprocess.run(
        command, env=os.environ | BUILDAH, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(
            f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout.strip()


def run(*command: str) -> None:
    """Runs a command. Raises ClusterError with its last words where it fails."""
    output(*command)
