"""What the servers are told: flags, certificates, Stages, and where their binaries come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tollgate_local import kwok, node_config, servers
from tollgate_local.binaries import binary, module_key
from tollgate_local.errors import BuildError, LocalError
from tollgate_local.node_init import NodePlan, NodeServer
from tollgate_local.pki import Authority, service_account_key
from tollgate_local.progress import quiet
from tollgate_local.settings import LoopbackShape, NodeShape
from tollgate_local.state import Ports, Record, StateFolder

PORTS = Ports(api=6443, etcd=1, etcd_peer=2, controller_manager=3, scheduler=4)
BIN = Path("/bin/server")


def test_a_users_flag_replaces_ours(tmp_path: Path) -> None:
    settings = LoopbackShape(state=tmp_path, apiserver_args=("--authorization-mode=AlwaysAllow",))
    command = servers.apiserver(Record(settings, PORTS), StateFolder(tmp_path), BIN)
    assert [flag for flag in command if "authorization-mode" in flag] == ["--authorization-mode=AlwaysAllow"]


@pytest.mark.parametrize(
    ("settings", "host"),
    [(LoopbackShape(state=Path("/s")), "127.0.0.1"), (NodeShape(state=Path("/s"), net="10.9.8"), "10.9.8.1")],
)
def test_the_api_server_listens_on_loopback_or_the_link_only(settings: LoopbackShape | NodeShape, host: str) -> None:
    record = Record(settings, PORTS)
    assert f"--bind-address={host}" in servers.apiserver(record, StateFolder(settings.state), BIN)
    assert record.server == f"https://{host}:6443"


def test_certificates_are_signed_by_the_clusters_authority_and_name_user_and_hosts(tmp_path: Path) -> None:
    Authority(tmp_path).issue("kubelet", "system:node:n", ["system:nodes"], ["n", "10.0.0.1"])
    certificate, authority = (
        x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes()) for name in ("kubelet", "ca")
    )
    certificate.verify_directly_issued_by(authority)
    assert certificate.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert (tmp_path / "kubelet.key").stat().st_mode & 0o077 == 0


def test_the_key_of_tokens_is_kept(tmp_path: Path) -> None:
    first = service_account_key(tmp_path / "sa.key").read_bytes()
    assert service_account_key(tmp_path / "sa.key").read_bytes() == first


def test_the_nodes_files_are_what_their_readers_parse() -> None:
    settings = NodeShape(state=Path("/s"), pods="10.7")
    files = node_config.render(settings, StateFolder(Path("/s")), 2, runc="/r", cni="/c", pause_image="p:1").files
    kubelet = yaml.safe_load(files["etc/kubelet.yaml"])
    assert kubelet["address"] == settings.node_ip(2)
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert yaml.safe_load(files["etc/kube-proxy.yaml"])["hostnameOverride"] == "node2"
    assert "10.7.2.0/24" in files["etc/cni/10-bridge.conflist"]


def test_the_plan_of_a_node_survives_the_file(tmp_path: Path) -> None:
    server = NodeServer("kubelet", ("/k", "--a=b"))
    plan = NodePlan(
        "node1", "/f", "/l", "10.0.0.11/24", "10.0.0.1", {"10.2.2.0/24": "x"}, {}, {"PATH": "/p"}, (server,)
    )
    plan.write(tmp_path / "plan.json")
    assert NodePlan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("name", kwok.STAGE_SETS)
def test_every_set_of_stages_is_valid_and_has_the_nodes(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    documents = list(yaml.safe_load_all(kwok.write_stages(StateFolder(tmp_path), name).read_text()))
    assert [d["kind"] for d in documents] == ["Stage"] * len(documents)
    assert documents[0]["spec"]["resourceRef"]["kind"] == "Node"
    assert all(d["spec"]["resourceRef"]["kind"] == "Pod" for d in documents[1:])


def test_unknown_stages_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="fast, run, scripted, none"):
        kwok.write_stages(StateFolder(tmp_path), "slow")


def test_a_given_folder_of_binaries_is_used_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").write_text("")
    (tmp_path / "etcd").chmod(0o755)
    monkeypatch.setenv("TOLLGATE_K8S_BIN", str(tmp_path))
    assert binary("etcd", quiet) == tmp_path / "etcd"


def test_without_go_the_error_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_CACHE", str(tmp_path))
    monkeypatch.delenv("TOLLGATE_K8S_BIN", raising=False)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(BuildError, match=r"still to be built: etcd.*TOLLGATE_K8S_BIN"):
        binary("etcd", quiet)


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="kube-apiserver"):
        binary("dockerd", quiet)


def test_a_build_is_made_again_when_the_modules_sums_or_flags_change(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x")
    (tmp_path / "go.sum").write_text("a")
    first = module_key(tmp_path, "-s")
    (tmp_path / "README").write_text("not a source")
    assert module_key(tmp_path, "-s") == first
    (tmp_path / "go.sum").write_text("b")
    assert module_key(tmp_path, "-s") != first
    assert module_key(tmp_path, "-w") != module_key(tmp_path, "-s")


def test_the_commands_load_nothing_heavy() -> None:
    code = "import sys, tollgate_local.commands; print([m for m in ('cryptography', 'kubernetes') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
