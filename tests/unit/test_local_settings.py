"""Settings of the local cluster: what is refused early, and what the environment overrides."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tollgate_local.errors import LocalError
from tollgate_local.settings import LoopbackShape, NodeShape, default_state, from_environment
from tollgate_local.state import Ports, Record, StateFolder

STATE = Path("/somewhere/state")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": "10.250"}, "net: '10.250'"),
        ({"net": "8.8.8"}, "not a private network"),
        ({"pods": "10.300"}, "pods: '10.300'"),
        ({"bridge": "a-name-that-is-too-long"}, "bridge:"),
        ({"cgroup": "../up"}, "cgroup:"),
        ({"nodes": 0}, "nodes: 0 is not between 1 and 9"),
        ({"port": 80}, "port: 80"),
        ({"state": Path("relative")}, "state: 'relative' is relative"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        NodeShape(**{"state": STATE, **change})


def test_variables_override_defaults() -> None:
    variables = {"TOLLGATE_LOCAL_NET": "10.9.8", "TOLLGATE_LOCAL_NODES": "2", "TOLLGATE_LOCAL_FRESH": "1"}
    settings = from_environment("node", STATE, variables)
    assert isinstance(settings, NodeShape)
    assert (settings.net, settings.nodes, settings.state) == ("10.9.8", 2, STATE)
    assert not settings.fresh, "switches are options of the command, not variables"


def test_a_variable_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(LocalError, match="TOLLGATE_LOCAL_NODES: 'two'"):
        from_environment("loopback", STATE, {"TOLLGATE_LOCAL_NODES": "two"})


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LocalError, match="node, loopback"):
        from_environment("cloud")


def test_two_clusters_with_other_bridges_share_no_interface_name() -> None:
    first, second = NodeShape(state=STATE, bridge="a0"), NodeShape(state=STATE, bridge="b0")
    assert {first.veth(k) for k in range(1, 10)}.isdisjoint(second.veth(k) for k in range(1, 10))


def test_each_shape_has_a_state_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_LOCAL_STATE", "/var/tmp/t")
    assert default_state("node") == Path("/var/tmp/t/node")
    assert default_state("loopback") == Path("/var/tmp/t/loopback")


@pytest.mark.parametrize(
    "settings",
    [
        NodeShape(state=STATE, apiserver_args=("--v=2",), nodes=3),
        LoopbackShape(state=STATE, stages=Path("/my/stages.yaml"), node_labels={"a": "b"}),
        LoopbackShape(state=STATE, stages="none", kwok=False),
    ],
)
def test_what_up_wrote_down_is_what_down_reads(settings: NodeShape | LoopbackShape, tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    record = Record(settings, Ports(1, 2, 3, 4, 5), ready=True)
    folder.write_record(record)
    assert folder.read_record() == record


def test_a_record_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"shape": "cloud"}')
    with pytest.raises(LocalError, match="Take that cluster down with the version that started it"):
        StateFolder(tmp_path).read_record()


def test_a_state_folder_goes_also_when_its_files_vanish_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.make()
    for name in ("a.sock", "b.pid", "c.log"):
        (folder.run / name).touch()
    unlink = os.unlink

    def racing(path: str, **options: Any) -> None:
        unlink(path, **options)
        unlink(path, **options)  # ours comes after the server's own

    monkeypatch.setattr(os, "unlink", racing)
    folder.remove()
    assert not folder.root.exists()
    folder.remove()


def test_a_state_folder_that_cannot_go_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.make()

    def mounted(path: str, **options: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(os, "rmdir", mounted)
    with pytest.raises(OSError, match="busy"):
        folder.remove()
