"""Acts in Kubernetes as the caller, and never as itself.

RBAC and the admission policy decide, and the API server's audit log names the person. The user
API's own ServiceAccount has no rights, so a mistake here cannot grant any.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from discovery_core.errors import ProblemError
from discovery_core.resource import GROUP, PLURAL, VERSION
from kubernetes_asyncio.client import (
    ApiClient,
    ApiException,
    AuthenticationV1Api,
    AuthorizationV1Api,
    CoreV1Api,
    CustomObjectsApi,
    V1ResourceAttributes,
    V1SelfSubjectAccessReview,
    V1SelfSubjectAccessReviewSpec,
    V1SelfSubjectReview,
)

from .kubernetes import REQUEST_TIMEOUT, UNREACHABLE, client_as, message_of
from .problems import (
    AnsweredError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NotVisibleError,
    RefusedError,
    UnauthenticatedError,
    UnavailableError,
)
from .settings import ServerSettings

# the CEL rule of the resource that lets the first answer win
_ANSWERED = "has been answered already"
# verbs of people: whoever may create tokens in a namespace can be any ServiceAccount of it
_DECISIONS = ("approve", "purge")
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class User:
    """Who the API server takes the caller for."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """Resources as Kubernetes lists them; `next` continues the list where there are more."""

    items: list[dict[str, Any]]
    next: str


class Caller:
    """One request's view of Kubernetes, with the caller's token.

    Unless `accounts_decide`, a ServiceAccount holds no verb by which people decide.
    """

    def __init__(
        self, client: ApiClient, known: User | None = None, *, accounts_decide: bool = False
    ) -> None:
        self._known = known
        self._accounts_decide = accounts_decide
        self._custom = CustomObjectsApi(client)
        self._reviews = AuthenticationV1Api(client)
        self._access = AuthorizationV1Api(client)
        self._core = CoreV1Api(client)

    async def user(self) -> User:
        """Who the API server takes the caller for; it is asked once."""
        if self._known is not None:
            return self._known
        with _translated():
            review = await self._reviews.create_self_subject_review(
                V1SelfSubjectReview(), _request_timeout=REQUEST_TIMEOUT
            )
        info = review.status.user_info
        self._known = User(info.username, tuple(info.groups or ()))
        return self._known

    async def user_name(self) -> str:
        """The caller's name, as the API server knows it."""
        return (await self.user()).name

    async def flow(self, namespace: str, name: str) -> dict[str, Any]:
        """The resource, if the caller may see it. 403 and 404 are told apart to nobody."""
        with _translated(hide=True):
            found: dict[str, Any] = await self._custom.get_namespaced_custom_object(
                GROUP, VERSION, namespace, PLURAL, name, _request_timeout=REQUEST_TIMEOUT
            )
        return found

    async def flows(
        self,
        namespace: str | None,
        *,
        selector: str = "",
        limit: int = 500,
        after: str = "",
    ) -> Listed:
        """DiscoveryFlows of a namespace, or of all with None. Raises ProblemError 403.

        `selector` is a field selector; `after` continues an earlier list (410 where it is too
        old).
        """
        options: dict[str, Any] = {"limit": limit, "_request_timeout": REQUEST_TIMEOUT}
        if selector:
            options["field_selector"] = selector
        if after:
            options["_continue"] = after
        with _translated():
            if namespace is None:
                found = await self._custom.list_cluster_custom_object(
                    GROUP, VERSION, PLURAL, **options
                )
            else:
                found = await self._custom.list_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, **options
                )
        return Listed(found["items"], (found.get("metadata") or {}).get("continue") or "")

    async def create_flow(self, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        """Creates a DiscoveryFlow. Raises ProblemError 403, 409 (it exists) or 422."""
        with _translated():
            made: dict[str, Any] = await self._custom.create_namespaced_custom_object(
                GROUP, VERSION, namespace, PLURAL, body, _request_timeout=REQUEST_TIMEOUT
            )
        return made

    async def namespace_uid(self, name: str) -> UUID:
        """The namespace's uid, which names the tenant. Raises ProblemError 403 or 404."""
        with _translated():
            found = await self._core.read_namespace(name, _request_timeout=REQUEST_TIMEOUT)
        return UUID(found.metadata.uid)

    async def may(self, verb: str, namespace: str | None, name: str | None = None) -> bool:
        """Whether the caller may do `verb` with DiscoveryFlows there (None: everywhere)."""
        if await self._is_account_that_decides(verb):
            return False
        attributes = V1ResourceAttributes(
            group=GROUP, version=VERSION, resource=PLURAL, namespace=namespace, name=name, verb=verb
        )
        review = V1SelfSubjectAccessReview(
            spec=V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        with _translated():
            answer = await self._access.create_self_subject_access_review(
                review, _request_timeout=REQUEST_TIMEOUT
            )
        return bool(answer.status.allowed)

    async def require_everywhere(self, verb: str) -> None:
        """Raises ProblemError 403 unless the caller may do `verb` in all namespaces."""
        if not await self.may(verb, None):
            raise ForbiddenError(
                f"this needs the verb {verb!r} on DiscoveryFlows in all namespaces"
            )

    async def require(self, namespace: str, name: str, verb: str) -> None:
        """Raises ProblemError 403 unless the caller may do `verb` with this DiscoveryFlow."""
        if await self._is_account_that_decides(verb):
            raise ForbiddenError(
                f"{await self.user_name()} is a ServiceAccount, and whoever may create tokens in "
                "its namespace can act as it: a person has to do this, with a name of their own "
                "(Helm value approval.allowServiceAccounts lets ServiceAccounts decide)"
            )
        if not await self.may(verb, namespace, name):
            raise ForbiddenError(
                f"this needs the verb {verb!r} on the DiscoveryFlow {namespace}/{name}"
            )

    async def _is_account_that_decides(self, verb: str) -> bool:
        if self._accounts_decide or verb not in _DECISIONS:
            return False
        return (await self.user_name()).startswith(_ACCOUNT)

    async def set_spec(self, namespace: str, name: str, field: str, value: Any) -> None:
        """Replaces one field of the spec. Raises ProblemError 403, 404, 409 or 422.

        A JSON patch replaces the field as a whole; a merge patch would blend an answer with an
        earlier one.
        """
        with _translated():
            await self._custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                namespace,
                PLURAL,
                name,
                [{"op": "add", "path": f"/spec/{field}", "value": value}],
                _request_timeout=REQUEST_TIMEOUT,
            )


@asynccontextmanager
async def acting_as(
    settings: ServerSettings,
    token: str,
    known: User | None = None,
    *,
    accounts_decide: bool = False,
) -> AsyncIterator[Caller]:
    """A client for one request; two requests never share one.

    `known` is who the caller is, where that has been asked already.
    """
    client = client_as(settings, token)
    try:
        yield Caller(client, known, accounts_decide=accounts_decide)
    finally:
        await client.close()


class _translated:  # noqa: N801 - reads as a verb
    """Makes problems of what the API server refuses."""

    def __init__(self, *, hide: bool = False) -> None:
        self._hide = hide

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiException):
            raise _problem(error, hide=self._hide) from error
        if isinstance(error, UNREACHABLE):
            raise UnavailableError(f"Kubernetes does not answer: {message_of(error)}") from error


def _problem(error: ApiException, *, hide: bool) -> ProblemError:
    message = message_of(error)
    if error.status == 401:
        return UnauthenticatedError("Kubernetes does not accept the token; it may have expired")
    if error.status == 404 or (hide and error.status == 403):
        return not_found()
    if error.status == 403:
        return ForbiddenError(message)
    if _ANSWERED in message:
        return AnsweredError(message)
    if error.status == 409:
        exists = "It exists already" if "already exists" in message else None
        return ConflictError(message, title=exists)
    if error.status == 410:
        return GoneError(message)
    if error.status in (400, 422):
        return RefusedError(message)
    return UnavailableError(f"Kubernetes does not answer: {message}")


def not_found() -> ProblemError:
    """404, the same for what does not exist and for what the caller may not see."""
    return NotVisibleError("no such flow, or you may not see it")
