"""Command line of the cluster tool: `python3 -m tests.cluster.provision --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Protocol

from . import binaries, contents, images, install, policies
from .errors import ClusterError
from .existing import Existing
from .kind import Kind, docker_answers
from .native import NODE, SERVICES, Native


class Provider(Protocol):
    """What differs between the ways to have a cluster."""

    name: str
    kubeconfig: Path

    @property
    def repository(self) -> str: ...
    def up(self) -> None: ...
    def down(self) -> None: ...
    def healthy(self) -> bool: ...
    def load(self, archive: Path) -> None: ...
    def has_image(self, reference: str) -> bool: ...


def choose(name: str, context: str | None) -> Provider:
    """The provider of that name; `auto` is kind where Docker runs, else native."""
    if name == "auto":
        name = "kind" if docker_answers() else "native"
    if name == "existing":
        return Existing(context)
    return Kind() if name == "kind" else Native()


def chosen() -> Provider:
    """The provider that the environment names, as where no option does."""
    return choose(os.environ.get("CLUSTER_PROVIDER", "auto"), os.environ.get("CLUSTER_CONTEXT"))


def _path(provider: Provider) -> str:
    """Where the cluster's own tools are, to go before PATH."""
    return binaries.require() if provider.name == "native" else ""


def _environment(provider: Provider) -> str:
    path = _path(provider)
    lines = [f'export KUBECONFIG="{provider.kubeconfig}"']
    if path:
        lines.append(f'export PATH="{path}:$PATH"')
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.cluster.provision",
        description="A Kubernetes cluster for demo and tests.",
        epilog="native: processes on this machine (root, Go 1.26; the first start compiles for "
        "12 to 15 minutes). kind: a Docker engine. existing: a context that you name.",
    )
    parser.add_argument(
        "--provider",
        choices=("auto", "native", "kind", "existing"),
        default=os.environ.get("CLUSTER_PROVIDER", "auto"),
        help="auto (default): kind where a Docker engine answers, else native",
    )
    parser.add_argument(
        "--context",
        default=os.environ.get("CLUSTER_CONTEXT"),
        help="context of provider existing; never the current one by accident",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("up", help="start the cluster, or what of it does not run")
    actions.add_parser("down", help="stop it and leave nothing behind")
    actions.add_parser("stop", help="native: end it, and keep what is in it for the next `up`")
    actions.add_parser("status", help="tell whether it is up (exit status 0) or not (1)")
    tools = actions.add_parser("build", help="compile tools of the tests that are not there yet")
    tools.add_argument(
        "names", nargs="+", choices=sorted(t.name for t in binaries.ALL_TOOLS), metavar="NAME"
    )
    network = actions.add_parser("policies", help="native: enforce NetworkPolicies, or no more")
    network.add_argument("switch", choices=("on", "off"))
    actions.add_parser("env", help="print KUBECONFIG and PATH for eval")
    build = actions.add_parser("images", help="build what has changed and load it")
    build.add_argument("names", nargs="*", help=f"of {', '.join(images.NAMES)}; default: all")
    actions.add_parser("sizes", help="print the images' sizes and check their limits")
    bills = actions.add_parser("sbom", help="write the images' bills of materials")
    bills.add_argument("--output", type=Path, default=images.ROOT / "dist", metavar="FOLDER")
    actions.add_parser(
        "install",
        help="install the charts with the built images; further arguments go to helm upgrade",
    )
    actions.add_parser("uninstall", help="remove both releases, the resource and the namespace")
    load = actions.add_parser("load", help="load a Docker archive into the node")
    load.add_argument("archive", type=Path)
    return parser


def main() -> int:
    """Runs one action; errors are one message on standard error and exit status 1."""
    parser = _parser()
    arguments, extra = parser.parse_known_args()
    if extra and arguments.action != "install":
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return _act(arguments, extra, choose(arguments.provider, arguments.context))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _act(arguments: argparse.Namespace, extra: list[str], provider: Provider) -> int:
    action = arguments.action
    if action == "up":
        provider.up()
        if provider.name == "native":
            images.ensure_pause(provider)
        print(_environment(provider))
    elif action == "down":
        provider.down()
    elif action in ("stop", "policies"):
        if not isinstance(provider, Native):
            raise ClusterError(f"{provider.name} is not started and stopped by this tool")
        if action == "stop":
            provider.stop()
        elif arguments.switch == "on":
            policies.enforce(provider, NODE, SERVICES)
        else:
            policies.release(provider)
    elif action == "status":
        healthy = provider.healthy()
        print(f"{provider.name}: {'up' if healthy else 'down'}")
        return 0 if healthy else 1
    elif action == "env":
        print(_environment(provider))
    elif action == "build":
        print(binaries.require(tuple(arguments.names)))
    elif action == "images":
        images.build_and_load(provider, arguments.names or list(images.NAMES))
    elif action == "install":
        install.install(provider.kubeconfig, _path(provider), extra)
    elif action == "uninstall":
        install.uninstall(provider.kubeconfig, _path(provider))
    elif action == "sizes":
        return contents.report_sizes()
    elif action == "sbom":
        contents.write_bills(provider.name, arguments.output)
    else:
        provider.load(arguments.archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
