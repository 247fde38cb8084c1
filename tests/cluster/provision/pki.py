"""Keys, certificates and kubeconfigs of the native cluster, made with openssl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "storage": "/O=system:masters/CN=storage",
}


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder. Making the same thing twice is a no-op."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not self.certificate("ca").exists():
            self._key("ca")
            _openssl(
                *("req", "-x509", "-new", "-key", str(self.key("ca")), "-days", "3650"),
                *("-subj", "/CN=discoveryflow-test", "-out", str(self.certificate("ca"))),
                # Python 3.13 verifies strictly and wants these extensions
                *("-addext", "basicConstraints=critical,CA:TRUE"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            )

    def key(self, name: str) -> Path:
        """Path of a private key."""
        return self.folder / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """Path of a certificate."""
        return self.folder / f"{name}.crt"

    def _key(self, name: str) -> None:
        _openssl(
            *("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(self.key(name)))
        )
        self.key(name).chmod(0o600)

    def issue(self, name: str, subject: str, alternatives: str) -> None:
        """A key and a certificate for `subject`; `alternatives` in openssl's notation."""
        if self.certificate(name).exists():
            return
        self._key(name)
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={alternatives}\n"
            "extendedKeyUsage=clientAuth,serverAuth\nkeyUsage=critical,digitalSignature\n"
            "basicConstraints=critical,CA:FALSE\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        _openssl(
            *("req", "-new", "-key", str(self.key(name)), "-subj", subject, "-out", str(request))
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", "3650", "-extfile", str(extensions)),
            *("-CA", str(self.certificate("ca")), "-CAkey", str(self.key("ca"))),
            *("-CAcreateserial", "-out", str(self.certificate(name))),
        )

    def service_account_keys(self) -> tuple[Path, Path]:
        """Private and public key for ServiceAccount tokens."""
        private, public = self.folder / "sa.key", self.folder / "sa.pub"
        if not public.exists():
            _openssl("genrsa", "-out", str(private), "2048")
            private.chmod(0o600)
            _openssl("rsa", "-in", str(private), "-pubout", "-out", str(public))
        return private, public

    def kubeconfig(self, user: str, server: str, context: str, path: Path) -> None:
        """Writes a kubeconfig (JSON is YAML) that refers to the files in this folder."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {
                        "server": server,
                        "certificate-authority": str(self.certificate("ca")),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate": str(self.certificate(user)),
                        "client-key": str(self.key(user)),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "current-context": context,
        }
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
