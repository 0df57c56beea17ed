"""The node shape: pods are real processes, and all that the operator and its chart rely on works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollgate_local import processes
from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster, NodeShape, down, leftovers_of, up
from tollgate_local.errors import StartError
from tollgate_local.images import Image, operator_image, python_image, trainer_image
from tollgate_local.testing import eventually, finished_pod, restricted_pod, site_volume

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def python(node_cluster: Cluster) -> Image:
    image = python_image()
    node_cluster.import_image(image)
    return image


def run(cluster: Cluster, namespace: str, pod: dict[str, object], seconds: float = 90) -> str:
    """Create a pod, expect that it succeeds, return its log."""
    cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", pod)
    phase, log = finished_pod(cluster.api, namespace, pod["metadata"]["name"], seconds)
    assert phase == "Succeeded", log
    return log


def test_a_restricted_pod_runs_and_its_log_is_there(node_cluster: Cluster, namespace: str, python: Image) -> None:
    code = "import os; print('uid', os.getuid()); print([l for l in open('/proc/self/status') if 'CapEff' in l])"
    log = run(node_cluster, namespace, restricted_pod("r", python.tag, ["python3", "-c", code]))
    assert "uid 65532" in log
    assert "0000000000000000" in log


def test_a_pod_that_is_not_restricted_is_refused(node_cluster: Cluster, namespace: str, python: Image) -> None:
    pod = restricted_pod("root", python.tag, ["true"], container={"securityContext": {"privileged": True}})
    with pytest.raises(ApiError, match="violates PodSecurity"):
        node_cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", pod)


SERVE = """
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(socket.gethostname().encode())
http.server.ThreadingHTTPServer(("", 7000), Handler).serve_forever()
"""


@pytest.fixture
def server(node_cluster: Cluster, namespace: str, python: Image) -> Iterator[str]:
    """A pod `web` behind the headless Service `mesh` and the Service `web`."""
    api, path = node_cluster.api, f"/api/v1/namespaces/{namespace}"
    ports = [{"port": 7000}]
    for name, extra in (("mesh", {"clusterIP": "None", "publishNotReadyAddresses": True}), ("web", {})):
        spec = {"selector": {"app": "web"}, "ports": ports, **extra}
        api.create(f"{path}/services", {"metadata": {"name": name}, "spec": spec})
    pod = restricted_pod("web", python.tag, ["python3", "-c", SERVE], hostname="web", subdomain="mesh")
    api.create(f"{path}/pods", pod)
    eventually(lambda: api.get(f"{path}/pods/web")["status"].get("phase") == "Running", 60, "the server runs")
    return namespace


def test_names_and_services_lead_to_pods(node_cluster: Cluster, server: str, python: Image) -> None:
    names = ["web.mesh", f"web.mesh.{server}.svc", f"web.mesh.{server}.svc.cluster.local", "web"]
    code = f"""
import time, urllib.request
for name in {names!r}:
    for attempt in range(300):
        try:
            print(name, urllib.request.urlopen(f"http://{{name}}:7000", timeout=2).read().decode(), flush=True)
            break
        except OSError as error:
            time.sleep(0.1)
    else:
        raise SystemExit(f"{{name}}: {{error}}")
"""
    log = run(node_cluster, server, restricted_pod("client", python.tag, ["python3", "-c", code]))
    assert log.split() == [word for name in names for word in (name, "web")]


def test_exec_reaches_into_a_pod(node_cluster: Cluster, server: str) -> None:
    done = node_cluster.kubectl("-n", server, "exec", "web", "--", "python3", "-c", "print(6 * 7)")
    assert done.stdout.strip() == "42"


def processes_of(cluster: Cluster) -> str:
    # one of them may end while they are read, hence no check
    return cluster.node_exec(["sh", "-c", "cat /proc/[0-9]*/cmdline"], check=False).stdout


def test_the_node_shows_the_pods_processes(node_cluster: Cluster, server: str) -> None:
    assert "http.server" in processes_of(node_cluster)


def test_a_projected_token_has_its_accounts_rights_and_no_more(
    node_cluster: Cluster, namespace: str, python: Image
) -> None:
    api, rbac = node_cluster.api, f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "reader"}})
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    api.create(f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    api.create(f"{rbac}/rolebindings", {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]})
    code = f"""
import ssl, urllib.error, urllib.request
D = "/var/run/token"
context = ssl.create_default_context(cafile=f"{{D}}/ca.crt")
for what in ("pods", "secrets"):
    headers = {{"Authorization": "Bearer " + open(f"{{D}}/token").read()}}
    url = "https://kubernetes.default.svc/api/v1/namespaces/{namespace}/" + what
    request = urllib.request.Request(url, headers=headers)
    try:
        print(what, urllib.request.urlopen(request, context=context, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(what, error.code)
"""
    root = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    pod = restricted_pod(
        "reader",
        python.tag,
        ["python3", "-c", code],
        serviceAccountName="reader",
        volumes=[{"name": "token", "projected": {"sources": [token, root]}}],
        container={"volumeMounts": [{"name": "token", "mountPath": "/var/run/token", "readOnly": True}]},
    )
    assert run(node_cluster, namespace, pod).split() == ["pods", "200", "secrets", "403"]


def test_a_volume_over_a_folder_below_a_private_one_is_readable(
    node_cluster: Cluster, namespace: str, python: Image, tmp_path: Path
) -> None:
    # a user's environment often lies below a home that only its owner may enter
    folder = tmp_path / "site"
    folder.mkdir(mode=0o755)
    (folder / "found.py").write_text("print('found')")
    tmp_path.chmod(0o700)
    site_volume(node_cluster.api, namespace, "site", folder)
    pod = restricted_pod(
        "site",
        python.tag,
        ["python3", "/site/found.py"],
        volumes=[{"name": "site", "persistentVolumeClaim": {"claimName": "site", "readOnly": True}}],
        container={"volumeMounts": [{"name": "site", "mountPath": "/site", "readOnly": True}]},
    )
    assert run(node_cluster, namespace, pod).strip() == "found"


TORCH = """
import os, torch, torch.distributed as dist, tollgate, importlib.metadata
dist.init_process_group("gloo")
x = torch.full((4,), float(dist.get_rank() + 1))
dist.all_reduce(x)
if dist.get_rank() == 0:
    print("sum", x[0].item(), torch.__version__, tollgate.__name__, importlib.metadata.version("tollgate"))
dist.destroy_process_group()
"""


def test_the_trainer_image_runs_torch_from_the_environment_volume(
    node_cluster: Cluster, namespace: str, environment: Path
) -> None:
    image = trainer_image()
    node_cluster.import_image(image)
    site_volume(node_cluster.api, namespace, "environment", environment)
    launch = ["python3", "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", "/code/t.py"]
    api = node_cluster.api
    api.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "code"}, "data": {"t.py": TORCH}})
    mounts = {"environment": "/opt/tollgate/environment", "tmp": "/tmp", "code": "/code"}
    pod = restricted_pod(
        "torch",
        image.tag,
        launch,
        volumes=[
            {"name": "environment", "persistentVolumeClaim": {"claimName": "environment", "readOnly": True}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "code", "configMap": {"name": "code"}},
        ],
        container={
            "env": [
                {"name": "PYTHONPATH", "value": "/opt/tollgate/lib:/opt/tollgate/environment"},
                {"name": "OMP_NUM_THREADS", "value": "1"},
            ],
            "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
        },
    )
    log = run(node_cluster, namespace, pod, seconds=240)
    assert "sum 3.0" in log, log


def test_the_operator_image_has_all_that_the_operator_imports(node_cluster: Cluster, namespace: str) -> None:
    image = operator_image()
    node_cluster.import_image(image)
    code = (
        "import aiohttp, kopf, kubernetes, prometheus_client, pydantic, yaml, tollgate, tollgate_operator; print('ok')"
    )
    pod = restricted_pod("operator", image.tag, ["python3", "-c", code])
    assert run(node_cluster, namespace, pod).strip() == "ok"


def test_the_link_can_be_cut_and_mended(node_cluster: Cluster, server: str) -> None:
    logs = f"/api/v1/namespaces/{server}/pods/web/log"
    node_cluster.cut()
    try:
        with pytest.raises((ApiError, OSError)):
            _checked_log(node_cluster, logs)
    finally:
        node_cluster.mend()
    eventually(lambda: _checked_log(node_cluster, logs) is not None, 60, "the kubelet answers again")


def _checked_log(cluster: Cluster, path: str) -> str:
    status, text = cluster.api.call("GET", path, timeout=3)
    if status != 200:
        raise ApiError("GET", path, status, json.dumps(text))
    return str(text)


def test_a_held_kubelet_stays_dead_and_pods_live_on(node_cluster: Cluster, server: str) -> None:
    node_cluster.stop_server("node1/kubelet")
    try:
        assert not node_cluster.servers()["node1/kubelet"]
        assert "http.server" in processes_of(node_cluster)
    finally:
        node_cluster.start_server("node1/kubelet")
    eventually(lambda: _execs(node_cluster, server), 60, "the kubelet serves again")


def _execs(cluster: Cluster, namespace: str) -> bool:
    return cluster.kubectl("-n", namespace, "exec", "web", "--", "echo", "alive", check=False).returncode == 0


def test_down_leaves_nothing_behind_and_images_stay(tmp_path: Path) -> None:
    settings = NodeShape(
        state=tmp_path / "other",
        bridge="tgtest1",
        net="10.253.0",
        services="10.99",
        pods="10.247",
        cgroup="tollgate-test-other",
    )
    up(settings)  # beside the session's cluster
    assert down(settings)
    assert leftovers_of(settings) == []
    assert not Path("/sys/class/net/tgtest1").exists()
    again = up(settings)
    assert (
        "tollgate.local/pause" in again.node_exec([str(again.bin("ctr")), "-n", "k8s.io", "images", "ls", "-q"]).stdout
    )
    assert down(settings, purge=True)
    assert not settings.state.exists()
    assert leftovers_of(settings) == []


def test_links_of_a_cluster_whose_processes_were_killed_are_in_nobodys_way(tmp_path: Path) -> None:
    names = {"bridge": "tgtest2", "net": "10.254.0", "services": "10.98", "pods": "10.246", "cgroup": "tollgate-test-k"}
    killed = NodeShape(state=tmp_path / "killed", **names)
    up(killed)
    next_one = NodeShape(state=tmp_path / "next", **names)
    with pytest.raises(StartError, match=f"local down --state {killed.state}"):
        up(next_one)
    for process in processes.marked(killed.state):
        processes.end(process)
    shutil.rmtree(killed.state, ignore_errors=True)  # as a cleaner of temporary folders does
    assert {"interface tgtest2"} <= set(leftovers_of(killed))
    up(next_one)
    assert down(next_one, purge=True)
    assert leftovers_of(killed) == leftovers_of(next_one) == []
