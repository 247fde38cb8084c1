"""A real OpenID Connect provider as a process of the tests: the one of the native cluster."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from playwright.sync_api import Page

from tests.cluster.provision import binaries
from tests.cluster.provision.pki import Authority

CLIENT = "discoveryflow"
PEOPLE = {
    "ann": {"password": "ann's own", "email": "ann@example.org", "groups": ["migration", "leads"]},
    "ben": {"password": "ben's own", "email": "ben@example.org", "groups": ["migration"]},
}


@dataclass(frozen=True)
class Issuer:
    """The running provider: its address, and the authority that signed its certificate."""

    address: str
    authority: Path

    def identify(self, token: str) -> str | None:
        """Whom a token names, if this provider has signed it for our client; as Kubernetes does."""
        with self.client() as client:
            keys = client.get(f"{self.address}/keys").json()
        try:
            claims = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"]).claims
        except JoseError:
            return None
        valid = claims["iss"] == self.address and CLIENT in claims["aud"]
        return str(claims["email"]).partition("@")[0] if valid else None

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client that trusts the provider, and follows nobody."""
        trust = ssl.create_default_context(cafile=str(self.authority))
        with httpx.Client(verify=trust, trust_env=False, timeout=30) as client:
            yield client

    def signed_in(self, client: httpx.Client, address: str, name: str, password: str) -> str:
        """Signs in where an application sends people; returns where they are sent back to."""
        form = client.get(address, follow_redirects=True)
        fields = {"id": form.url.params["id"], "name": name, "password": password, "answer": "yes"}
        done = client.post(f"{self.address}/login", data=fields)
        return str(client.get(done.headers["location"]).headers["location"])

    def id_token(self, name: str, password: str) -> str:
        """An ID token, by the code flow as any client of that name may do it."""
        verifier, back = secrets.token_urlsafe(48), "http://localhost/oidc/callback"
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": back,
            "scope": "openid email groups",
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        with self.client() as client:
            begun = httpx.URL(f"{self.address}/authorize", params=asked)
            code = httpx.URL(self.signed_in(client, str(begun), name, password)).params["code"]
            given = client.post(
                f"{self.address}/oauth/token",
                data={
                    "grant_type": "authorization_code",
                    "code": code,
                    "redirect_uri": back,
                    "client_id": CLIENT,
                    "code_verifier": verifier,
                },
            )
        assert given.status_code == 200, given.text
        return str(given.json()["id_token"])


@contextmanager
def serve(folder: Path) -> Iterator[Issuer]:
    """The provider on a free port of loopback, until the block ends."""
    authority = Authority(folder)
    authority.issue("provider", "/CN=provider", "IP:127.0.0.1")
    people = folder / "people.json"
    people.write_text(json.dumps(PEOPLE))
    executable = shutil.which("oidc-provider", path=binaries.require(("oidc-provider",)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(executable),
        f"-issuer={address}",
        f"-certificate={authority.certificate('provider')}",
        f"-key={authority.key('provider')}",
        f"-people={people}",
        f"-client={CLIENT}",
        "-redirects=http://localhost/oidc/callback",
    ]
    log = folder / "provider.log"
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            deadline = time.monotonic() + 20
            while "listening" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Issuer(address, authority.certificate("ca"))
        finally:
            process.terminate()


def answer(page: Page, name: str, password: str | None = None) -> None:
    """Fills in the provider's own page."""
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password or str(PEOPLE[name]["password"]))
    page.click("button[value=yes]")
