"""What is built and released is named by what it is, and whoever uses it can look up the parts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from images.pin import pinned
from images.sbom import INTERPRETER, bill

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
CONTAINERFILES = sorted((ROOT / "images").glob("*/Containerfile"))
VALUES = ROOT / "charts" / "discoveryflow" / "values.yaml"
DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example.org:5000/team/operator@{DIGEST}"
BASE = f"docker.io/library/debian:trixie-slim@{DIGEST}"
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Description: GNU C Library: Shared libraries
 Contains: the standard libraries

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

"""


def uses(text: str) -> list[str]:
    """Each action that a workflow names, with what stands behind it."""
    return re.findall(r"^[\s-]*uses:\s*(.+?)\s*$", text, flags=re.MULTILINE)


def is_pinned(use: str) -> bool:
    """Whether an action is named by a commit, and the version told to people."""
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}  # v\d+(\.\d+)*", use) is not None


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_s12_actions_are_named_by_commit(path: Path) -> None:
    found = uses(path.read_text(encoding="utf-8"))
    assert found
    assert [use for use in found if not is_pinned(use)] == []


@pytest.mark.parametrize(
    "use",
    ["actions/checkout@v4", "actions/checkout@3d3c42e", "actions/checkout", "a/b@" + "0" * 40],
)
def test_s12_an_action_by_tag_is_noticed(use: str) -> None:
    assert uses(f"    steps:\n      - uses: {use}\n") == [use]
    assert not is_pinned(use)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_s12_workflows_may_read_unless_a_job_says_more(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        checkouts = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
        assert [s["with"]["persist-credentials"] for s in checkouts] == [False]


def test_s12_images_are_built_on_one_base_by_digest() -> None:
    bases = set()
    for path in CONTAINERFILES:
        text = path.read_text(encoding="utf-8")
        froms = re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)
        assert set(froms) in ({"${BASE}"}, {"scratch"})
        bases |= set(re.findall(r"^ARG BASE=(.+)$", text, flags=re.MULTILINE))
    (base,) = bases
    assert re.fullmatch(r"docker\.io/library/debian:trixie-slim@sha256:[0-9a-f]{64}", base)


def test_s12_what_others_publish_is_named_by_digest_in_the_chart() -> None:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    image = values["postgresql"]["embedded"]["image"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])


def test_s12_python_packages_are_taken_by_hash_only() -> None:
    for name in ("operator", "crews"):
        text = (ROOT / "images" / name / "Containerfile").read_text(encoding="utf-8")
        (command,) = re.findall(r"pip install(?:.|\\\n)+?requirements\.txt", text)
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command.split())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in re.findall(r"pip install (?:.|\\\n)+?$", makefile, flags=re.MULTILINE):
        assert "--require-hashes" in line or "--editable ." in line


# -- a release's chart -----------------------------------------------------------------------------


def test_s12_a_release_names_its_images_by_digest_and_changes_nothing_else() -> None:
    text = VALUES.read_text(encoding="utf-8")
    crews = f"registry.example.org/team/crews@{DIGEST}"
    result = pinned(text, {"image": IMAGE, "crews.image": crews})
    values, before = yaml.safe_load(result), yaml.safe_load(text)
    settings = {"digest": DIGEST, "tag": "", "pullPolicy": "IfNotPresent"}
    assert values["image"] == settings | {"repository": "registry.example.org:5000/team/operator"}
    assert values["crews"]["image"] == settings | {"repository": "registry.example.org/team/crews"}
    for tree in (values, before):
        del tree["image"], tree["crews"]["image"]
    assert values == before
    assert result.count("#") == text.count("#")


@pytest.mark.parametrize(
    ("path", "reference", "says"),
    [
        ("image", "registry.example.org/operator:1.0", "write REPOSITORY@sha256:"),
        ("image", "registry.example.org/operator@sha256:abc", "with 64 hex digits"),
        ("api.image", IMAGE, "there is no image at api.image"),
    ],
)
def test_s12_a_release_without_digests_is_refused(path: str, reference: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pinned(VALUES.read_text(encoding="utf-8"), {path: reference})


# what the three tools are asked goes into $CALLS; an image has its name's length as digest
STAND_INS = {
    "docker": """
case $1 in
    inspect) name=${!#%:*}; printf '%s@sha256:%064d\\n' "$name" "${#name}" ;;
    run) printf '%s\\n' 'Package: libc6' 'Status: install ok installed' 'Architecture: amd64' \\
        'Version: 1' ;;
esac
""",
    "helm": "case $1 in push) printf 'Pushed: x\\nDigest: sha256:%064d\\n' 7 >&2 ;; esac",
    "cosign": "",
}


def test_s12_a_release_signs_what_it_pushes_and_its_chart_names_it(tmp_path: Path) -> None:
    checkout, tools, calls = tmp_path / "checkout", tmp_path / "tools", tmp_path / "calls"
    for name in ("images", "charts", "requirements"):
        shutil.copytree(ROOT / name, checkout / name)
    (checkout / "web-assets").mkdir()
    for name in ("pyproject.toml", "web-assets/package-lock.json"):
        shutil.copy(ROOT / name, checkout / name)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    tools.mkdir()
    for name, does in STAND_INS.items():
        (tools / name).write_text(f'#!/bin/bash\necho {name} "$@" >> "$CALLS"\n{does}\n')
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls)}
    repository = "registry.example.org/team"
    command = ["bash", str(checkout / "images" / "release"), repository, "1.2.3"]
    subprocess.run(command, check=True, env=environment)
    values = yaml.safe_load((checkout / "dist/charts/discoveryflow/values.yaml").read_text())
    signed = [c.split()[-1] for c in calls.read_text().splitlines() if c.startswith("cosign sign")]
    images = [values["image"], values["crews"]["image"]]
    assert [f"{image['repository']}@{image['digest']}" for image in images] == signed[:2]
    assert [image["repository"] for image in images] == [
        f"{repository}/operator",
        f"{repository}/crews",
    ]
    seven = "sha256:" + "7".zfill(64)
    assert signed[2:] == [
        f"{repository}/charts/discoveryflow-crds@{seven}",
        f"{repository}/charts/discoveryflow@{seven}",
    ]
    attested = [c for c in calls.read_text().splitlines() if c.startswith("cosign attest")]
    assert [call.split()[-1] for call in attested] == signed[:2]
    for name, image in zip(("operator", "crews"), signed, strict=False):
        told = json.loads((checkout / "dist" / f"{name}.cdx.json").read_text())
        assert told["metadata"]["component"]["bom-ref"] == image


# -- bills of materials ----------------------------------------------------------------------------


def written(name: str, folder: Path) -> dict[str, Any]:
    """The bill of an image, as the command line writes it."""
    status = folder / "status"
    status.write_text(STATUS, encoding="utf-8")
    output = folder / "bills" / f"{name}.cdx.json"
    command = [sys.executable, "-m", "images.sbom", name, "--image", IMAGE, "--base", BASE]
    command += ["--debian", str(status), "--output", str(output)]
    subprocess.run(command, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", ["operator", "crews"])
def test_s12_the_bill_names_each_package_of_the_requirements(name: str, tmp_path: Path) -> None:
    found = written(name, tmp_path)
    packages = {c["purl"]: c for c in found["components"] if c["purl"].startswith("pkg:pypi/")}
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    wanted = {}
    for entry in re.split(r"\n(?=[a-zA-Z0-9])", text)[1:]:
        requirement = Requirement(entry.partition("\\")[0])
        if requirement.marker is None or requirement.marker.evaluate(INTERPRETER):
            version = str(requirement.specifier).removeprefix("==")
            hashes = set(re.findall(r"sha256:([0-9a-f]{64})", entry))
            wanted[f"pkg:pypi/{requirement.name}@{version}"] = hashes
    assert len(wanted) > 30
    assert {
        purl: {one["content"] for one in package["externalReferences"][0]["hashes"]}
        for purl, package in packages.items()
    } == wanted


def test_s12_the_bill_names_image_base_pages_and_debian_packages(tmp_path: Path) -> None:
    found = written("operator", tmp_path)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert DIGEST in found["metadata"]["component"]["purl"]
    parts = {c["name"]: c for c in found["components"]}
    assert parts["docker.io/library/debian"]["hashes"][0]["content"] == "a" * 64
    assert parts["htmx.org"]["externalReferences"][0]["hashes"][0]["alg"] == "SHA-512"
    assert parts["libc6"]["purl"] == "pkg:deb/debian/libc6@2.41-12?arch=amd64"
    assert "gone" not in parts
    assert "axe-core" not in parts
    (whole,) = [d for d in found["dependencies"] if d["ref"] == IMAGE]
    assert len(whole["dependsOn"]) == len(found["components"])


def test_s12_every_image_has_a_bill() -> None:
    names = {path.parent.name for path in CONTAINERFILES} - {"pause"}
    for name in names:
        assert bill(name, IMAGE, BASE).components
    with pytest.raises(KeyError):
        bill("pause", IMAGE, BASE)
