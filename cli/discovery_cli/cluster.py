"""Kubernetes as the kubeconfig has it: DiscoveryFlows, and what people may do with them."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from discovery_core.resource import API_VERSION, GROUP, KIND, PLURAL, VERSION
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from .errors import CliError, ExitCode, of_kubernetes

Resource = dict[str, Any]
FLOW_LABEL = "discoveryflow.dev/flow-uid"
TIMEOUT = 30


@contextmanager
def translated() -> Iterator[None]:
    """Makes a CliError of what the client raises."""
    try:
        yield
    except ApiException as error:
        raise of_kubernetes(error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise CliError(
            f"the Kubernetes API does not answer: {error}", ExitCode.UNREACHABLE
        ) from error


class Cluster:
    """One cluster and one namespace. Raises CliError."""

    def __init__(self, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
        self.api, default = _client(kubeconfig, context)
        self.namespace = namespace or default
        self._custom = client.CustomObjectsApi(self.api)
        self.core = client.CoreV1Api(self.api)

    def get(self, name: str) -> Resource:
        """A flow by name."""
        with translated():
            found: Resource = self._custom.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=TIMEOUT
            )
        return found

    def flows(self, *, everywhere: bool, selector: str, fields: str) -> list[Resource]:
        """Flows of the namespace, or of all."""
        options = {
            "label_selector": selector,
            "field_selector": fields,
            "_request_timeout": TIMEOUT,
        }
        with translated():
            if everywhere:
                found = self._custom.list_cluster_custom_object(GROUP, VERSION, PLURAL, **options)
            else:
                found = self._custom.list_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, **options
                )
        return list(found["items"])

    def create(self, body: Resource, *, dry_run: bool) -> Resource:
        """Creates a flow; with `dry_run` the API server only says whether it would."""
        with translated():
            made: Resource = self._custom.create_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                body,
                **({"dry_run": "All"} if dry_run else {}),
                _request_timeout=TIMEOUT,
            )
        return made

    def set_spec(self, name: str, field: str, value: Any) -> Resource:
        """Replaces one field of the spec as a whole."""
        patch = [{"op": "add", "path": f"/spec/{field}", "value": value}]
        with translated():
            changed: Resource = self._custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                patch,
                # the client knows merge patches only, which would blend two answers
                _content_type="application/json-patch+json",
                _request_timeout=TIMEOUT,
            )
        return changed

    def user_name(self) -> str:
        """Who the API server takes you for."""
        with translated():
            review = client.AuthenticationV1Api(self.api).create_self_subject_review(
                client.V1SelfSubjectReview(), _request_timeout=TIMEOUT
            )
        return str(review.status.user_info.username)

    def token(self) -> str | None:
        """The bearer token of the kubeconfig, if it has one."""
        found = self.api.configuration.get_api_key_with_prefix("BearerToken")
        return found.removeprefix("Bearer ").strip() if found else None

    def wait(
        self, name: str, done: Callable[[Resource], bool], seconds: float, every: float = 0.3
    ) -> Resource | None:
        """The flow once `done` holds, or None after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            flow = self.get(name)
            if done(flow):
                return flow
            if time.monotonic() >= deadline:
                return None
            time.sleep(every)

    def create_config_map(self, name: str, file_name: str, content: bytes) -> None:
        """A ConfigMap that holds a small file."""
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name))
        try:
            body.data = {file_name: content.decode()}
        except UnicodeDecodeError:
            body.binary_data = {file_name: base64.b64encode(content).decode()}
        with translated():
            self.core.create_namespaced_config_map(self.namespace, body, _request_timeout=TIMEOUT)

    def crew_pods(self, flow: Resource) -> list[Any]:
        """Pods of the flow's Jobs, the oldest first."""
        with translated():
            found = self.core.list_namespaced_pod(
                self.namespace,
                label_selector=f"{FLOW_LABEL}={flow['metadata']['uid']}",
                _request_timeout=TIMEOUT,
            )
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)


def flow_body(name: str, namespace: str, spec: Resource) -> Resource:
    """A DiscoveryFlow."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def _client(kubeconfig: str | None, context: str | None) -> tuple[client.ApiClient, str]:
    """A client and the context's namespace: the kubeconfig, or the pod's own account."""
    try:
        _, active = config.list_kube_config_contexts(config_file=kubeconfig)
        chosen = active
        if context is not None:
            every, _ = config.list_kube_config_contexts(config_file=kubeconfig)
            named = [entry for entry in every if entry["name"] == context]
            if not named:
                known = ", ".join(entry["name"] for entry in every)
                raise CliError(f"no context {context!r}; there are: {known}", ExitCode.USAGE)
            chosen = named[0]
        api = config.new_client_from_config(config_file=kubeconfig, context=context)
    except config.ConfigException as error:
        if kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise CliError(
                f"the kubeconfig cannot be used: {error}. Set KUBECONFIG or --kubeconfig.",
                ExitCode.USAGE,
            ) from error
        settings = client.Configuration()
        config.load_incluster_config(client_configuration=settings)
        own = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
        with open(own, encoding="utf-8") as stream:  # noqa: PTH123
            return client.ApiClient(settings), stream.read().strip()
    return api, chosen["context"].get("namespace") or "default"
