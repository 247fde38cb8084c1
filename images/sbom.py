"""Writes an image's bill of materials as CycloneDX JSON, so that its users can look up its parts.

    python -m images.sbom operator --image REFERENCE --base REFERENCE --debian STATUS --output FILE

It names the base image, each Python package with its version and the hashes that the build accepts
(`requirements/NAME.txt`), what the pages load (`web-assets/package-lock.json`), and the Debian
packages that `STATUS`, the image's own /var/lib/dpkg/status, says are installed.
"""

from __future__ import annotations

import argparse
import base64
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("operator", "crews", "postgres")
# Debian trixie's interpreter: what is for other systems or versions is not in the image
INTERPRETER = {
    "python_version": "3.13",
    "python_full_version": "3.13.5",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_machine": "x86_64",
}


def bill(name: str, image: str, base: str, debian: str = "") -> Bom:
    """The bill of the image `name`, known as `image`, made on `base`; both are references.

    `debian` is the text of the image's dpkg status. Raises KeyError for an unknown name.
    """
    if name not in NAMES:
        raise KeyError(name)
    made = Bom()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made.metadata.component = _container(f"discoveryflow-{name}", project["version"], image)
    parts = [_container(*_split(base)[:2], base), *_debian(debian)]
    requirements = ROOT / "requirements" / f"{name}.txt"
    if requirements.exists():
        parts += _python(requirements.read_text(encoding="utf-8"))
    if name == "operator":
        parts += _pages((ROOT / "web-assets" / "package-lock.json").read_text(encoding="utf-8"))
    for part in parts:
        made.components.add(part)
    made.register_dependency(made.metadata.component, parts)
    return made


def _split(reference: str) -> tuple[str, str, str]:
    """Repository, tag and digest of a reference; the latter two may be empty."""
    named, _, digest = reference.partition("@")
    repository, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = named, ""
    return repository, tag, digest


def _container(name: str, version: str, reference: str) -> Component:
    repository, tag, digest = _split(reference)
    purl = PackageURL(
        "oci",
        name=repository.rsplit("/", 1)[-1],
        version=digest or None,
        qualifiers={"repository_url": repository} | ({"tag": tag} if tag else {}),
    )
    hashes = [_sha256(digest)] if digest else []
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version or None,
        purl=purl,
        bom_ref=reference,
        hashes=hashes,
    )


def _sha256(digest: str) -> HashType:
    algorithm, _, content = digest.partition(":")
    if algorithm != "sha256":
        raise ValueError(f"{digest} is no sha256:… digest")
    return HashType(alg=HashAlgorithm.SHA_256, content=content)


def _python(text: str) -> Iterator[Component]:
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        wanted, *hashes = line.split(" --hash=")
        requirement = Requirement(wanted)
        if requirement.marker is not None and not requirement.marker.evaluate(INTERPRETER):
            continue
        (version,) = (part.version for part in requirement.specifier)
        purl = PackageURL("pypi", name=requirement.name, version=version)
        yield _library(purl, [_sha256(one.strip()) for one in hashes])


def _pages(text: str) -> Iterator[Component]:
    for path, package in json.loads(text)["packages"].items():
        if not path or package.get("dev"):
            continue
        algorithm, _, digest = package["integrity"].partition("-")
        if algorithm != "sha512":
            raise ValueError(f"{path} has an integrity by {algorithm}; run `npm install` anew")
        purl = PackageURL("npm", name=path.rsplit("/", 1)[-1], version=package["version"])
        value = base64.b64decode(digest).hex()
        yield _library(purl, [HashType(alg=HashAlgorithm.SHA_512, content=value)])


def _debian(text: str) -> Iterator[Component]:
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line[1:])
        if fields.get("Status", "").endswith(" installed"):
            qualifiers = {"arch": fields["Architecture"]}
            yield _library(
                PackageURL("deb", "debian", fields["Package"], fields["Version"], qualifiers), []
            )


def _library(purl: PackageURL, hashes: list[HashType]) -> Component:
    """`hashes` are those of the files that the build takes, one of them per system and version."""
    uri = XsUri(purl.to_string())
    taken = ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=uri, hashes=hashes)
    return Component(
        name=purl.name,
        version=purl.version,
        purl=purl,
        bom_ref=purl.to_string(),
        external_references=[taken] if hashes else [],
    )


def main() -> None:
    """Writes one bill."""
    parser = argparse.ArgumentParser(prog="python -m images.sbom", description=main.__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--image", required=True, help="reference of the image, best by digest")
    parser.add_argument("--base", required=True, help="reference of what it was built on")
    parser.add_argument("--debian", type=Path, help="the image's /var/lib/dpkg/status")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    debian = given.debian.read_text(encoding="utf-8") if given.debian else ""
    made = bill(given.name, given.image, given.base, debian)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    text = JsonV1Dot6(made).output_as_string(indent=1)
    given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
