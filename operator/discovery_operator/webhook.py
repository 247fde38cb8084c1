"""Tells a namespace's webhook what happened, as often as it takes.

The address and the key are the namespace's own, in a Secret of a fixed name, so that a team sets
up its channel with kubectl and nobody else's Secret has to be readable. Which addresses are
possible at all says the installation: the operator must not become a way to reach anything else
from inside the cluster. Messages are signed as https://www.standardwebhooks.com has it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime
from typing import Any

import aiohttp
from discovery_core.logging import get_logger
from discovery_core.loops import set_aside
from discovery_core.store import OperatorStore
from discovery_core.store.ledger.outbox import OPENED, REMINDER, Due
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from . import metrics
from .addresses import address_of, is_allowed
from .faults import CLUSTER_FAULTS, FAULTS
from .kube import Cluster, KubernetesError

log = get_logger(__name__)

SECRET = "discoveryflow-webhook"  # noqa: S105 - a name
BATCH = 50
# seconds until the next try; after the last one the message is given up
DELAYS = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0)
_KEY_PREFIX = "whsec_"


class UndeliverableError(Exception):
    """A message could not be delivered. `final` where trying again cannot help."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.final = final


def signer(key: str) -> Webhook:
    """What signs with a namespace's key: its bytes, or those that `whsec_` and base64 stand for."""
    if not key.startswith(_KEY_PREFIX):
        return Webhook(key.encode())
    try:
        # the library would leave out what is no base64, and sign with another key than was meant
        return Webhook(base64.b64decode(key.removeprefix(_KEY_PREFIX), validate=True))
    except (ValueError, EmptyWebhookSecretError):
        raise UndeliverableError(f"{SECRET}: key is not base64 after {_KEY_PREFIX}") from None


class Webhooks:
    """Delivers what the outbox holds, on the leading operator."""

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        *,
        leads: asyncio.Event,
        endpoints: tuple[str, ...],
        public_url: str,
        timeout: float,
        poll: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._leads = leads
        self._endpoints = endpoints
        self._public_url = public_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._poll = poll
        self._tls = tls

    async def run(self) -> None:
        """For ever. What fails is logged and tried again."""
        async with aiohttp.ClientSession(timeout=self._timeout) as http:
            while True:
                await self._leads.wait()
                delivered = 0
                with set_aside("webhooks"):
                    try:
                        delivered = await self.deliver(http)
                    except FAULTS as error:
                        log.warning("notifications wait", error=str(error))
                if delivered < BATCH:
                    await asyncio.sleep(self._poll)

    async def deliver(self, http: aiohttp.ClientSession) -> int:
        """One round over what is due; returns how many messages were tried."""
        messages = await self._store.due_notifications(BATCH)
        await asyncio.gather(*(self._deliver(http, message) for message in messages))
        return len(messages)

    async def _deliver(self, http: aiohttp.ClientSession, message: Due) -> None:
        """One message. Whatever is wrong with it, it is tried later, and the others now."""
        about: dict[str, Any] = {"message": message.id, "namespace": message.namespace}
        problem = UndeliverableError("it cannot be sent; the operator's log says why")
        sent: bool | None = None
        with set_aside("webhooks", **about):
            try:
                sent = await self._send(http, message)
            except UndeliverableError as error:
                problem = error
            except CLUSTER_FAULTS as error:
                problem = UndeliverableError(_network(error))
        with set_aside("webhooks", **about):
            if sent is None:
                await self._postpone(message, str(problem), final=problem.final)
                return
            state = "Delivered" if sent else "Skipped"
            metrics.NOTIFICATIONS.labels(outcome=state.lower()).inc()
            await self._store.settle_notification(message, state=state)

    async def _postpone(self, message: Due, problem: str, *, final: bool) -> None:
        delay = None if final or message.tries >= len(DELAYS) else DELAYS[message.tries]
        log.warning(
            "webhook not told",
            flow=str(message.flow_id),
            tenant=str(message.tenant_id),
            namespace=message.namespace,
            kind=message.kind,
            problem=problem,
            retry_seconds=delay,
        )
        metrics.NOTIFICATIONS.labels(outcome="failed" if delay is None else "retried").inc()
        await self._store.settle_notification(
            message, state="Failed", problem=problem, retry_seconds=delay
        )

    async def _send(self, http: aiohttp.ClientSession, message: Due) -> bool:
        """Whether there was anybody to tell. Raises UndeliverableError and network errors."""
        if not self._endpoints:
            return False
        secret = await self._secret(message)
        if secret is None:
            return False
        text, key = secret.get("url", "").strip(), secret.get("key", "").strip()
        if not text or not key:
            raise UndeliverableError(f"Secret {SECRET} needs the keys url and key, as text")
        url = address_of(text)
        if url is None or not is_allowed(url, self._endpoints):
            raise UndeliverableError(
                "the address in Secret "
                f"{SECRET} is not allowed by this installation (notifications.allowedEndpoints)"
            )
        body = json.dumps(self._payload(message), ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "discoveryflow",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer(key).sign(message.id, now, body),
        }
        async with http.post(
            url, data=body.encode(), headers=headers, allow_redirects=False, ssl=self._tls or True
        ) as answer:
            if answer.status == 410:
                raise UndeliverableError("the receiver wants no more messages (410)", final=True)
            if not 200 <= answer.status < 300:
                raise UndeliverableError(f"the receiver answered {answer.status}")
        return True

    async def _secret(self, message: Due) -> dict[str, str] | None:
        """The Secret of the message's own namespace; None where there is none any more.

        A namespace that was made anew under the name is somebody else's, so its uid is asked for
        after the Secret was read: an old one never comes back.
        """
        secret = await self._cluster.secret(message.namespace, SECRET)
        if secret is None:
            return None
        found = await self._cluster.namespace_uid(message.namespace)
        return secret if found == message.tenant_id else None

    def _payload(self, message: Due) -> dict[str, Any]:
        asks = message.kind in (OPENED, REMINDER)
        place = f"/flows/{message.flow_id}" + ("/review" if asks else "")
        name = f"{message.namespace}/{message.payload['name']}"
        if asks:
            text = f"{name} waits for the approval of its field mappings"
        else:
            text = f"{name} is {message.payload['state']}: {message.payload['event']}"
            text += f" by {message.payload['actor']}"
        if message.payload["message"]:
            text += f" ({message.payload['message']})"
        link = {"url": f"{self._public_url}{place}"} if self._public_url else {}
        return {**message.payload, "id": message.id, "text": text, **link}


def _network(error: Exception) -> str:
    """What this machine or Kubernetes says; the client also quotes what a receiver has sent."""
    if isinstance(error, KubernetesError):
        return str(error)
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {strerror}" if strerror else type(error).__name__
