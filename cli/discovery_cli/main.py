"""The command `kubectl discoveryflow` (or `discoveryflow`): options, commands, exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from . import data, flows, gate
from .api import ApiOptions
from .common import Settings
from .errors import CliError, ExitCode
from .output import say, warn

app = typer.Typer(
    name="kubectl discoveryflow",
    help="DiscoveryFlows: create them, answer their questions, get their results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (flows.app, gate.app, data.app):
    app.registered_commands += part.registered_commands


def _version(wanted: bool) -> None:
    if wanted:
        try:
            say(version("discoveryflow"))
        except PackageNotFoundError:
            say("unknown")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    kubeconfig: Annotated[str | None, typer.Option(help="Default: KUBECONFIG.")] = None,
    kube_context: Annotated[
        str | None, typer.Option("--context", help="Of the kubeconfig.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Default: the context's.")
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option(
            envvar="DISCOVERYFLOW_API_URL", help="The user API; default: by a port-forward."
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(envvar="DISCOVERYFLOW_CA_FILE", help="CA of the user API's certificate."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="DISCOVERYFLOW_TOKEN", help="For the user API; default: kubeconfig's."),
    ] = None,
    product_namespace: Annotated[
        str,
        typer.Option(envvar="DISCOVERYFLOW_NAMESPACE", help="Where the product is installed."),
    ] = "discoveryflow",
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """DiscoveryFlows: create them, answer their questions, get their results."""
    context.obj = Settings(
        kubeconfig,
        kube_context,
        namespace,
        ApiOptions(api_url, ca_file, token, product_namespace),
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except CliError as error:
        first, *more = error.lines
        warn(f"error: {first}")
        for line in more:
            warn(f"  {line}")
        return int(error.code)
    except typer.Abort:
        warn("aborted")
        return int(ExitCode.FAILED)
    except typer.TyperException as error:
        # wrong usage; what shows it is not in the base class
        show = getattr(error, "show", None)
        show() if show else warn(f"error: {error}")
        return int(ExitCode.USAGE)
    except BrokenPipeError:
        return int(ExitCode.OK)
    except KeyboardInterrupt:
        return 130
    return int(code or 0)


def run() -> None:
    """Entry point of the console scripts."""
    sys.exit(main())
