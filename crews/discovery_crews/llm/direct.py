"""Requests to a language model go to its address and nowhere else.

The client of the provider's library follows redirects and takes proxies from the environment: an
endpoint could have the prompt sent elsewhere, or a page of the inside fetched. CrewAI makes a plain
client where somebody listens in, and that one follows nothing and asks no proxy.
"""

from __future__ import annotations

import httpx
from crewai.llms.hooks.base import BaseInterceptor


class Direct(BaseInterceptor[httpx.Request, httpx.Response]):
    """Changes nothing: that it is there makes the client a plain one."""

    def on_outbound(self, message: httpx.Request) -> httpx.Request:
        """The request as it is."""
        return message

    def on_inbound(self, message: httpx.Response) -> httpx.Response:
        """The response as it is."""
        return message

    async def aon_outbound(self, message: httpx.Request) -> httpx.Request:
        """The request as it is."""
        return message

    async def aon_inbound(self, message: httpx.Response) -> httpx.Response:
        """The response as it is."""
        return message
