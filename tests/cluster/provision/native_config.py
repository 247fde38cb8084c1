"""Configuration files and command lines of the native cluster's components.

The settings that are not obvious: kubelet accepts cgroup v1 (`failCgroupV1`), containerd does not
lower OOM scores (`restrict_oom_score_adj`, where root lacks CAP_SYS_RESOURCE), network
namespaces, leases, logs and runc's state lie below the work folder so that they can be found and
removed, the pods have a control group of their own for the same reason, no image is ever collected
(none can be pulled again), the controller manager may talk faster than its default of 20 requests a
second, and pods are not masqueraded, because they only talk to each other and to this machine.

The API server takes client certificates, ServiceAccount tokens and ID tokens of the cluster's own
identity provider. Names and groups of the latter begin with `oidc:`, so that none of them can be
one of Kubernetes' own.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

PAUSE = "localhost/pause:1"
# claims that name no class get a folder below the work folder (tools/storage)
STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "folders",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "discoveryflow.dev/native",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}
OIDC_PORT = 5556
OIDC_CLIENT = "discoveryflow"
OIDC_PREFIX = "oidc:"
# where the pages are in the tests, and where a port-forward shows them
OIDC_REDIRECTS = tuple(
    f"{site}/oidc/callback"
    for site in ("https://discovery.test", "https://localhost", "http://localhost")
)
PEOPLE = {"ann": ["migration", "leads"], "ben": ["migration"]}


def network_name(work: Path) -> str:
    """Name of the pod network, unlike that of a cluster in another folder."""
    return f"discoveryflow-{work.name}"


def cgroup_name(work: Path) -> str:
    """Name of the control group of all pods, unlike that of a cluster in another folder."""
    return f"discoveryflow-{work.name}"


def write(work: Path, address: str, node: str, bridge: str, pods: str) -> None:
    """Writes all configuration files below `work`."""
    for folder in ("containerd", "kubelet", "cni", "etcd", "logs", "volumes"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "containerd.toml").write_text(_containerd(work))
    (work / "cni" / "10-bridge.conflist").write_text(json.dumps(_cni(work, bridge, pods)))
    (work / "Corefile").write_text(_corefile(work, address))
    (work / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (work / "kubelet.json").write_text(json.dumps(_kubelet(work, address)))
    (work / "proxy.json").write_text(json.dumps(_proxy(work, node)))
    (work / "authentication.json").write_text(json.dumps(_authentication(work, address)))
    if not people_file(work).exists():
        people_file(work).touch(mode=0o600)
        people_file(work).write_text(json.dumps(_people()))


def issuer(address: str) -> str:
    """Where the cluster's identity provider is."""
    return f"https://{address}:{OIDC_PORT}"


def people_file(work: Path) -> Path:
    """Who can sign in there: {"NAME": {"password", "email", "groups"}}."""
    return work / "oidc-people.json"


def _people() -> dict[str, object]:
    return {
        name: {
            "password": secrets.token_urlsafe(12),
            "email": f"{name}@example.org",
            "groups": groups,
        }
        for name, groups in PEOPLE.items()
    }


def _authentication(work: Path, address: str) -> dict[str, object]:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {
                    "url": issuer(address),
                    "audiences": [OIDC_CLIENT],
                    "certificateAuthority": (work / "pki" / "ca.crt").read_text(),
                },
                "claimMappings": {
                    "username": {"claim": "email", "prefix": OIDC_PREFIX},
                    "groups": {"claim": "groups", "prefix": OIDC_PREFIX},
                },
            }
        ],
    }


def _containerd(work: Path) -> str:
    return f"""version = 3
root = "{work}/containerd/root"
state = "{work}/containerd/state"
[grpc]
  address = "{work}/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{work}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{work}/containerd/runc"
"""


def _cni(work: Path, bridge: str, pods: str) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": network_name(work),
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{work}/cni/leases",
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def _corefile(work: Path, address: str) -> str:
    return f""".:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {work}/admin.kubeconfig
    pods insecure
  }}
  cache 5
}}
"""


def _kubelet(work: Path, address: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": f"{work}/pki/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup_name(work)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [address],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{work}/containerd/containerd.sock",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "tlsCertFile": f"{work}/pki/node.crt",
        "tlsPrivateKeyFile": f"{work}/pki/node.key",
        "resolvConf": f"{work}/resolv.conf",
        "maxPods": 250,
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": f"{work}/logs",
        "volumePluginDir": f"{work}/kubelet/volume-plugins",
    }


def _proxy(work: Path, node: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{work}/proxy.kubeconfig"},
        "clusterCIDR": "10.244.0.0/16",
        "mode": "nftables",
        "hostnameOverride": node,
        "conntrack": {"maxPerCore": 0},
    }


def commands(work: Path, address: str, node: str, services: str) -> dict[str, list[str]]:
    """Command line of each component; the first word is the binary's name."""
    pki = work / "pki"
    client, peer = "http://127.0.0.1:12379", "http://127.0.0.1:12380"
    return {
        "etcd": [
            *("etcd", "--data-dir", f"{work}/etcd", "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        ],
        "oidc-provider": [
            "oidc-provider",
            f"-issuer={issuer(address)}",
            f"-certificate={pki}/oidc-provider.crt",
            f"-key={pki}/oidc-provider.key",
            f"-people={people_file(work)}",
            f"-client={OIDC_CLIENT}",
            f"-redirects={','.join(OIDC_REDIRECTS)}",
        ],
        "apiserver": [
            "kube-apiserver",
            f"--etcd-servers={client}",
            f"--advertise-address={address}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--authentication-config={work}/authentication.json",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            f"--service-cluster-ip-range={services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "controller-manager": [
            "kube-controller-manager",
            f"--kubeconfig={work}/controller-manager.kubeconfig",
            "--use-service-account-credentials",
            "--leader-elect=false",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--allocate-node-cidrs=true",
            "--cluster-cidr=10.244.0.0/16",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
        ],
        "scheduler": [
            "kube-scheduler",
            f"--kubeconfig={work}/scheduler.kubeconfig",
            "--leader-elect=false",
        ],
        "storage": [
            "storage",
            f"-kubeconfig={work}/storage.kubeconfig",
            f"-folder={work}/volumes",
            f"-node={node}",
        ],
        "containerd": ["containerd", "-c", f"{work}/containerd.toml"],
        "coredns": ["coredns", "-conf", f"{work}/Corefile"],
        "kubelet": [
            "kubelet",
            f"--config={work}/kubelet.json",
            f"--kubeconfig={work}/node.kubeconfig",
            f"--hostname-override={node}",
            f"--node-ip={address}",
            f"--root-dir={work}/kubelet",
        ],
        "proxy": ["kube-proxy", f"--config={work}/proxy.json"],
    }
