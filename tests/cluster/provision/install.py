"""Installs the charts from this checkout with the images that were built from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from .errors import ClusterError
from .images import ROOT, references_file

NAMESPACE = "discoveryflow"
RELEASE = "discoveryflow"


def _run(environment: dict[str, str], *command: str, timeout: float = 400) -> str:
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise ClusterError(f"there is no `{command[0]}`; install it, or use --provider native")
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=timeout
    )
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command[:4])} … failed:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout


def _image_values() -> list[str]:
    references = json.loads(references_file().read_text())
    values = []
    for name, path in (
        ("operator", "image"),
        ("crews", "crews.image"),
        ("postgres", "postgresql.embedded.image"),
    ):
        repository, tag = references[name].rsplit(":", 1)
        values += [
            "--set",
            f"{path}.repository={repository}",
            "--set-string",
            f"{path}.tag={tag},{path}.digest=",
        ]
    return values


def _keeps_data(environment: dict[str, str]) -> bool:
    """Whether PostgreSQL gets a volume: where there is a default class; says so where not.

    What is installed already stays as it is, since a StatefulSet's claims cannot be changed.
    """
    name = f"statefulset/{RELEASE}-postgresql"
    there = _run(
        environment,
        *("kubectl", "--namespace", NAMESPACE, "get", name, "--ignore-not-found", "-o", "json"),
    )
    if there:
        return "volumeClaimTemplates" in json.loads(there)["spec"]
    classes = json.loads(_run(environment, "kubectl", "get", "storageclass", "-o", "json"))
    default = "storageclass.kubernetes.io/is-default-class"
    found = any(
        item["metadata"].get("annotations", {}).get(default) == "true" for item in classes["items"]
    )
    if not found:
        print("No StorageClass is the default: PostgreSQL's data goes with its pod.", flush=True)
    return found


def install(kubeconfig: Path, path: str, extra: list[str]) -> None:
    """Installs or upgrades both charts with the embedded Postgres and waits until all is ready.

    Raises ClusterError with the state of the pods where that takes too long.
    """
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    environment["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]
    kept = str(_keeps_data(environment)).lower()
    _run(
        environment,
        *(
            "helm",
            "upgrade",
            "--install",
            "discoveryflow-crds",
            str(ROOT / "charts/discoveryflow-crds"),
        ),
        *("--namespace", "default"),
    )
    try:
        _run(
            environment,
            *("helm", "upgrade", "--install", RELEASE, str(ROOT / "charts/discoveryflow")),
            *("--namespace", NAMESPACE, "--create-namespace"),
            *("--set", "postgresql.embedded.enabled=true"),
            *("--set", f"postgresql.embedded.persistence.enabled={kept}"),
            *_image_values(),
            *extra,
        )
        for component in ("operator", "execution", "api"):
            _run(
                environment,
                *("kubectl", "--namespace", NAMESPACE, "rollout", "status"),
                *(f"deployment/{RELEASE}-{component}", "--timeout=180s"),
            )
    except ClusterError as error:
        pods = _run(environment, "kubectl", "--namespace", NAMESPACE, "get", "pods", "-o", "wide")
        raise ClusterError(f"{error}\n{pods}") from error
    print(f"DiscoveryFlow is ready in namespace {NAMESPACE}.")


def uninstall(kubeconfig: Path, path: str) -> None:
    """Removes both releases, the resource and the namespace."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    environment["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]
    _run(environment, "helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found")
    _run(
        environment,
        *("helm", "uninstall", "discoveryflow-crds", "--namespace", "default"),
        "--ignore-not-found",
    )
    _run(
        environment,
        *("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"),
    )
    _run(
        environment,
        *("kubectl", "delete", "crd", "discoveryflows.discoveryflow.dev", "--ignore-not-found"),
        "--timeout=120s",
    )
