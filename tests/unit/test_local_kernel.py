"""Clusters side by side: the machine is put back as it was by the last one that goes, and by none before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollgate_local.kernel import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm/overcommit_memory").write_text("0\n")
    return Machine(tmp_path / "run/machine.json", tmp_path, ["vm/overcommit_memory"], [tmp_path / "kubelet"])


def overcommit(machine: Machine) -> str:
    return (machine.sysctls / "vm/overcommit_memory").read_text().strip()


def test_the_last_cluster_puts_the_machine_back(machine: Machine, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    machine.claim(first)
    (tmp_path / "vm/overcommit_memory").write_text("1")  # as the kubelet does
    machine.claim(second)
    assert machine.release(first) == []
    assert (tmp_path / "kubelet").is_dir(), "the other cluster has mounted its own folder over it"
    assert overcommit(machine) == "1"
    assert machine.release(second) == []
    assert not (tmp_path / "kubelet").exists()
    assert overcommit(machine) == "0"
    assert not first.exists()
    assert not second.exists()


def test_a_cluster_that_vanished_with_its_folder_holds_nothing_up(machine: Machine, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    machine.claim(first)
    first.unlink()
    machine.claim(second)
    assert machine.release(second) == []
    assert not (tmp_path / "kubelet").exists()


def test_a_folder_that_was_there_before_stays(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "kubelet").mkdir()
    machine.claim(tmp_path / "first")
    assert machine.release(tmp_path / "first") == []
    assert (tmp_path / "kubelet").is_dir()


def test_what_is_not_empty_is_told_and_tried_again(machine: Machine, tmp_path: Path) -> None:
    machine.claim(tmp_path / "first")
    (tmp_path / "kubelet/pods").mkdir()
    assert machine.release(tmp_path / "first") == [f"{tmp_path / 'kubelet'} is not empty"]
    (tmp_path / "kubelet/pods").rmdir()
    assert machine.release(tmp_path / "first") == []
    assert not (tmp_path / "kubelet").exists()


def test_releasing_twice_is_safe(machine: Machine, tmp_path: Path) -> None:
    machine.claim(tmp_path / "first")
    machine.release(tmp_path / "first")
    assert machine.release(tmp_path / "first") == []
