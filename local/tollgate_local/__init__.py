"""The embedded cluster: a real Kubernetes on one machine, for the demo, for tests and for trying things out.

Two shapes. `NodeShape`: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, containerd, runc, CNI,
kube-proxy and CoreDNS; pods are processes; needs root. `LoopbackShape`: the same control plane on 127.0.0.1, with kwok
in place of nodes; no root; several at a time in different state folders.

The public API, kept stable, is in `tollgate_local.cluster`, `tollgate_local.images` and `tollgate_local.errors`:

    from tollgate_local.cluster import LoopbackShape, NodeShape, down, status, up

    cluster = up(LoopbackShape(state=folder, fresh=True, audit=True, stages="scripted"))
    cluster.kubeconfig, cluster.server, cluster.state, cluster.logs, cluster.audit_log
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": "team"}})     # get, merge, apply, delete, call
    cluster.kubectl("get", "nodes").stdout
    cluster.bin("helm")
    cluster.stop_server("kube-apiserver"); cluster.start_server("kube-apiserver")
    cluster.set_stages("none"); cluster.add_nodes(100, prefix="gpu", labels={...}, capacity={"nvidia.com/gpu": "8"})
    cluster.down(purge=True)

    cluster = up(NodeShape(state=folder, bridge="tgtest0", net="10.251.0", services="10.97", pods="10.245"))
    cluster.node_exec(["ps", "ax"]).stdout
    cluster.cut(); cluster.mend()
    cluster.stop_server("node1/kubelet"); cluster.start_server("node1/kubelet")
    image = tollgate_local.images.trainer_image(); cluster.import_image(image); image.tag

Every call that can fail raises a `tollgate_local.errors.LocalError` whose message says what to do. Importing this
package costs nothing; `tollgate_local.cluster` imports `cryptography`.
"""
