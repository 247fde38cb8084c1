"""The OpenAPI document says what errors look like.

The framework documents its own error body, which this API never sends; every error is a Problem.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .problems import MEDIA_TYPE, Problem

_MEANINGS = {
    "401": "no bearer token, or one that Kubernetes does not accept",
    "404": "no such flow, or the caller may not see it",
    "422": "the request is not valid; `problems` names each fault",
    "503": "Kubernetes or the database does not answer; Retry-After says when to try again",
}
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def describe_problems(app: FastAPI) -> None:
    """Makes `app` document problems: the common ones everywhere, others where routes name them."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            schemas = document["components"]["schemas"]
            for name in _FRAMEWORKS_OWN:
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            for item in document["paths"].values():
                for operation in item.values():
                    _describe(operation["responses"])
        assert app.openapi_schema is not None  # noqa: S101 - set by the framework
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(responses: dict[str, Any]) -> None:
    for status, meaning in _MEANINGS.items():
        responses[status] = {"description": meaning}
    for status, response in responses.items():
        if status >= "400":
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
