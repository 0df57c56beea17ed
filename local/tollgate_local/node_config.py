"""The configuration files of one node: containerd, CNI, kubelet, kube-proxy. From settings and paths to text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tollgate_local.settings import NodeShape
from tollgate_local.state import StateFolder

__all__ = ["NodeFiles", "render"]


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Relative file name below the node's folder -> content."""

    files: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write them all."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def render(
    settings: NodeShape, folder: StateFolder, number: int, *, runc: str, cni: str, pause_image: str
) -> NodeFiles:
    """All files of node `number`."""
    name = f"node{number}"
    return NodeFiles(
        {
            "etc/containerd.toml": _containerd(folder.node(name), runc, cni, pause_image),
            "etc/cni/10-bridge.conflist": _cni(settings, number),
            "etc/kubelet.yaml": _kubelet(settings, folder, number),
            "etc/kube-proxy.yaml": _kube_proxy(settings, folder, name),
            "etc/hosts": f"127.0.0.1 localhost {name}\n",
            "etc/resolv.conf": "",  # pods with dnsPolicy Default get no server: nothing leaves the machine
            "etc/masquerade.nft": _masquerade(settings, number),
        }
    )


def _containerd(node: Path, runc: str, cni: str, pause_image: str) -> str:
    return f"""\
version = 3
root = '{node}/containerd'
state = '/run/containerd'
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{pause_image}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{cni}']
  conf_dir = '{node}/etc/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = '{runc}'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""


def _cni(settings: NodeShape, number: int) -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": f"{settings.pods}.{number}.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}, indent=1)


def _kubelet(settings: NodeShape, folder: StateFolder, number: int) -> str:
    name = f"node{number}"
    return f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: {settings.node_ip(number)}
tlsCertFile: {folder.pki}/{name}.crt
tlsPrivateKeyFile: {folder.pki}/{name}.key
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {folder.pki}/ca.crt}}
authorization: {{mode: Webhook}}
clusterDNS: [{settings.host_ip}]
clusterDomain: cluster.local
resolvConf: {folder.node(name)}/etc/resolv.conf
nodeLeaseDurationSeconds: {settings.lease_seconds}
maxPods: {settings.max_pods}
podLogsDir: /var/log/pods
volumePluginDir: /var/lib/kubelet/volume-plugins
# No systemd, and cgroup v1 still counts: the kubelet only warns about it
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{settings.cgroup}/{name}
enforceNodeAllocatable: []
# A container without CAP_SYS_RESOURCE may neither lower an OOM score nor raise the limit of open files
oomScoreAdj: 0
maxOpenFiles: 20000
failSwapOn: false
makeIPTablesUtilChains: false
# The disk is the user's own: how full it is must not evict pods or remove imported images, which no registry has
localStorageCapacityIsolation: false
evictionHard: {{nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", memory.available: "0%"}}
imageGCHighThresholdPercent: 100
"""


def _kube_proxy(settings: NodeShape, folder: StateFolder, name: str) -> str:
    return f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {folder.pki}/kube-proxy.kubeconfig}}
clusterCIDR: {settings.pods}.0.0/16
hostnameOverride: {name}
oomScoreAdj: 0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
nodePortAddresses: ["{settings.net}.0/24"]
conntrack: {{maxPerCore: 0, min: 0}}
"""


def _masquerade(settings: NodeShape, number: int) -> str:
    return f"""\
table ip tollgate {{
  chain post {{
    type nat hook postrouting priority 110;
    ip saddr {settings.pods}.{number}.0/24 ip daddr != {{ {settings.pods}.0.0/16, 224.0.0.0/4 }} masquerade
  }}
}}
"""
