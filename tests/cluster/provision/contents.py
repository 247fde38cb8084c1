"""What is in the images that were built: their sizes, and their bills of materials."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import ClusterError
from .images import IMAGES, base_of, output, references_file, run
from .kind import docker_answers


def _references() -> dict[str, str]:
    if not references_file().exists():
        raise ClusterError("there are no images yet; run the action `images` first")
    found: dict[str, str] = json.loads(references_file().read_text())
    return found


def report_sizes() -> int:
    """Prints each image's size and its five largest parts; 1 where a limit is exceeded."""
    references = _references()
    failed = 0
    for image in IMAGES:
        if image.name not in references:
            continue
        size, parts, modules = _measure(references[image.name], image.packages)
        limit = f" (limit {image.limit} MB)" if image.limit else ""
        print(f"{image.name}: {size:.0f} MB uncompressed{limit}")
        for part, megabytes in parts:
            print(f"  {megabytes:6.1f} MB  {part}")
        if image.limit and size > image.limit:
            print(f"  too large: {size:.0f} MB > {image.limit} MB")
            failed = 1
        if image.name == "operator" and "crewai" in modules:
            print("  crewai does not belong into this image")
            failed = 1
    return failed


def write_bills(provider: str, folder: Path) -> list[Path]:
    """The bills of materials of the images that were built for `provider`, `folder`/NAME.cdx.json.

    Raises ClusterError where there are no images, or where this interpreter lacks the development
    environment's packages.
    """
    written = []
    for name, reference in _references().items():
        bill = folder / f"{name}.cdx.json"
        with _opened(reference) as root:
            run(
                *(sys.executable, "-m", "images.sbom", name, "--image", reference),
                *("--base", _by_digest(base_of(provider, name))),
                *("--output", str(bill.absolute())),
                *("--debian", str(root / "var/lib/dpkg/status")),
            )
        print(f"{name}: {len(json.loads(bill.read_text())['components'])} parts in {bill}")
        written.append(bill)
    return written


def _by_digest(base: str) -> str:
    """`base` with its digest; one that was made on this machine is named by its tag alone."""
    if "@" in base:
        return base
    digest = output(
        "buildah", "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", base
    )
    return f"{base}@{digest}"


@contextlib.contextmanager
def _opened(reference: str) -> Iterator[Path]:
    """An image's files, below a folder."""
    with tempfile.TemporaryDirectory(prefix="discoveryflow-image-") as scratch:
        if docker_answers():
            run(
                "sh",
                "-c",
                f"docker create --name df-size {reference} >/dev/null && "
                f"docker export df-size | tar -C {scratch} -xf - ; docker rm df-size >/dev/null",
            )
            yield Path(scratch)
            return
        container = output("buildah", "from", reference)
        try:
            yield Path(output("buildah", "mount", container))
        finally:
            run("buildah", "umount", container)
            run("buildah", "rm", container)


def _measure(reference: str, packages: str) -> tuple[float, list[tuple[str, float]], set[str]]:
    """Size in MB, the five largest parts, and the names below `packages`."""
    with _opened(reference) as root:
        return _weigh(root, packages)


def _weigh(root: Path, packages: str) -> tuple[float, list[tuple[str, float]], set[str]]:
    site = root / packages.lstrip("/") if packages else None
    parts: list[tuple[str, float]] = []
    modules: set[str] = set()
    if site is not None and site.is_dir():
        modules = {path.name for path in site.iterdir()}
        parts = [(f"{packages}/{name}", _megabytes(site / name)) for name in modules]
    other = [path for path in root.iterdir() if path.name not in ("proc", "sys", "dev", "opt")]
    parts += [(f"/{path.name}", _megabytes(path)) for path in other if path.is_dir()]
    parts.sort(key=lambda part: part[1], reverse=True)
    return _megabytes(root), parts[:5], modules


def _megabytes(path: Path) -> float:
    return int(output("du", "-sk", "-x", str(path)).split()[0]) / 1024
