"""What goes wrong, in words with a way out, and as an exit code that scripts can rely on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum

from kubernetes.client.exceptions import ApiException


class ExitCode(IntEnum):
    """Documented in docs/cli.md; never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    FORBIDDEN = 4
    CONFLICT = 5
    UNREACHABLE = 6
    TIMED_OUT = 7


class CliError(Exception):
    """Ends the command with a message on stderr: one line, and one for each of `more`."""

    def __init__(
        self, message: str, code: ExitCode = ExitCode.FAILED, more: Sequence[str] = ()
    ) -> None:
        self.lines = (message, *more)
        self.message = "\n".join(self.lines)
        super().__init__(self.message)
        self.code = code


_BY_STATUS = {
    401: ExitCode.FORBIDDEN,
    403: ExitCode.FORBIDDEN,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.TIMED_OUT,
    409: ExitCode.CONFLICT,
    503: ExitCode.UNREACHABLE,
}


def of_status(status: int, message: str, more: Sequence[str] = ()) -> CliError:
    """An HTTP error of Kubernetes or of the user API."""
    return CliError(message, _BY_STATUS.get(status, ExitCode.FAILED), more)


def of_kubernetes(error: ApiException) -> CliError:
    """What the API server said."""
    try:
        message = str(json.loads(error.body or "{}").get("message") or error.reason)
    except (ValueError, AttributeError):
        message = str(error.reason)
    if error.status == 404 and "could not find the requested resource" in message:
        return CliError(
            "this cluster knows no DiscoveryFlow: install the charts discoveryflow-crds and "
            "discoveryflow (docs/installation.md)",
            ExitCode.NOT_FOUND,
        )
    if "has been answered already" in message:
        return CliError(message, ExitCode.CONFLICT)
    if error.status == 401:
        message = "the API server does not accept your credentials; log in again"
    return of_status(error.status or 0, message)
