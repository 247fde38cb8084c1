"""What every command shares: the options of the command line, and the ends of a command."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from .api import ApiOptions, UserApi
from .cluster import Cluster
from .output import Format, plain, warn


@dataclass
class Settings:
    """Options that stand before the command."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    api: ApiOptions = field(default_factory=ApiOptions)

    def cluster(self) -> Cluster:
        """The cluster that the options and the kubeconfig name."""
        return Cluster(self.kubeconfig, self.context, self.namespace)


def settings_of(context: typer.Context) -> Settings:
    """The options before the command."""
    found = context.find_object(Settings)
    return found if found is not None else Settings()


@dataclass(frozen=True)
class Work:
    """A command at work: the cluster, and the API once it is needed."""

    settings: Settings
    cluster: Cluster

    @classmethod
    def of(cls, context: typer.Context) -> Work:
        """From the command line."""
        settings = settings_of(context)
        return cls(settings, settings.cluster())

    def api(self) -> UserApi:
        """The user API. Raises CliError where it cannot be reached."""
        return UserApi(self.cluster, self.settings.api)

    def flow_id(self, name: str) -> str:
        """The uid of a flow."""
        return str(self.cluster.get(name)["metadata"]["uid"])


FlowName = Annotated[str, typer.Argument(help="Name of the DiscoveryFlow.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="Format of the answer.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OutFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="Write there instead of standard output.")
]


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether to go on. Without a terminal nobody can be asked, so --yes is needed."""
    if yes:
        return True
    if not sys.stdin.isatty():
        warn(f"{question} Add --yes, because nobody can be asked here.")
        return False
    return typer.confirm(plain(question), default=False)


def status_of(flow: dict[str, Any]) -> dict[str, Any]:
    """The flow's status, empty before the first."""
    return dict(flow.get("status") or {})
