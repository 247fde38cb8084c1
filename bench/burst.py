"""What the user API holds in memory before, during and after a burst, as a process.

    PYTHONPATH=core:operator:api:crews:cli:. python -m bench.burst [--rounds 3] [--set NAME=VALUE]

A round is 300 streams of events of 15 people, 50 uploads of 4 MiB and 1,000 pages. Kubernetes is
the tests' stand-in over TLS, PostgreSQL the embedded wheel. After each round everything is closed,
and the memory is read when the server has had a few seconds. `--set` gives the process a variable
of its environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import trustme

from tests.api.desk import API, resource
from tests.api.kubernetes import FakeKubernetes
from tests.api.processes import Process, running
from tests.postgres import close_stores, fresh_database, make_template, open_stores, running_server
from tests.store.flows import Flow

MIB = 1024**2
STREAMS, PEOPLE, UPLOADS, PAGES = 300, 15, 50, 1000
UPLOAD_BYTES = 4 * MIB
AT_ONCE = 16
SETTLE_SECONDS = 5.0
LIMITS = {"requests_per_second": "0", "uploads_per_tenant": str(UPLOADS)}


@dataclass
class Burst:
    """One process under a burst. `flow` is what streams and pages show."""

    api: Process
    flow: Flow
    folder: Path

    async def streams(self, http: httpx.AsyncClient) -> None:
        """Opens all streams at once, reads their first words, and leaves."""
        opened, all_open = 0, asyncio.Event()

        async def one(number: int) -> None:
            nonlocal opened
            path = "/events" if number % 2 else f"/flows/{self.flow.flow_id}/events"
            headers = {"Authorization": f"Bearer person-{number % PEOPLE}"}
            async with http.stream("GET", f"{API}{path}", headers=headers) as answer:
                answer.raise_for_status()
                await anext(answer.aiter_bytes())
                opened += 1
                if opened == STREAMS:
                    all_open.set()
                await all_open.wait()

        await asyncio.gather(*(one(number) for number in range(STREAMS)))

    async def uploads(self, http: httpx.AsyncClient) -> None:
        """Sends all files at once."""

        async def one(number: int) -> None:
            query = {"namespace": "migration", "name": f"{number}.csv"}
            headers = {"Authorization": "Bearer person-0"}
            content = os.urandom(UPLOAD_BYTES)
            sent = await http.post(f"{API}/uploads", params=query, content=content, headers=headers)
            sent.raise_for_status()

        await asyncio.gather(*(one(number) for number in range(UPLOADS)))

    async def pages(self, http: httpx.AsyncClient) -> None:
        """Looks at pages as somebody who has signed in, some at a time."""
        begun = await http.post("/sign-in", data={"token": "person-0"})
        cookies = dict(begun.cookies.items())
        flow = f"/flows/{self.flow.flow_id}"
        places = ("/", flow, f"{flow}/review", f"{flow}/history")
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                shown = await http.get(places[number % len(places)], cookies=cookies)
                assert shown.status_code in (200, 404), shown.text

        await asyncio.gather(*(one(number) for number in range(PAGES)))

    async def round(self) -> str:
        """All three; what was held, in words."""
        words = []
        for part in (self.streams, self.uploads, self.pages):
            limits = httpx.Limits(max_connections=STREAMS + AT_ONCE)
            before = self.api.begin_to_measure()
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.api.port}", timeout=120, limits=limits
            ) as http:
                await part(http)
            most = self.api.most_memory()
            await asyncio.sleep(SETTLE_SECONDS)
            after = self.api.begin_to_measure()
            words.append(
                f"{part.__name__}: {before / MIB:.0f} → {most / MIB:.0f} → {after / MIB:.0f}"
            )
        return "  ".join(words)


async def measure(rounds: int, variables: dict[str, str]) -> None:
    """Prints the memory of each round, in MiB."""
    os.environ.update(variables)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(running_server(in_memory=True))
        urls = stack.enter_context(fresh_database(postgres, make_template(postgres)))
        stores = await open_stores(urls)
        flow = Flow(stores)
        await flow.to_gate()
        kubernetes = stand_in(flow, folder)
        async with running(
            "discovery_api", urls.api, kubernetes, folder,
            kubernetes_ca_file=str(folder / "ca.pem"), **LIMITS,
        ) as api:  # fmt: skip
            burst = Burst(api, flow, folder)
            print(f"fresh: {api.begin_to_measure() / MIB:.0f} MiB")
            for number in range(rounds):
                print(f"round {number + 1}: {await burst.round()}", flush=True)
        await close_stores(stores)


def stand_in(flow: Flow, folder: Path) -> FakeKubernetes:
    """Kubernetes, which serves by TLS and knows everybody by their token."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    people = {f"person-{number}" for number in range(PEOPLE)}
    return FakeKubernetes(
        flow_uid=str(flow.flow_id),
        namespaces={"migration": str(uuid4())},
        resources=[resource(flow)],
        identify=lambda token: token if re.fullmatch(r"person-\d+", token) else None,
        cluster_viewers=people,
        viewers=people,
        editors=people,
        approvers=people,
        tls=tls,
    )


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    variables = dict(item.split("=", 1) for item in given.set)
    asyncio.run(measure(given.rounds, variables))


if __name__ == "__main__":
    main()
