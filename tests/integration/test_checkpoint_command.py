"""`tollgate checkpoint` over folders and stores alike, and what `--resume` makes of a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from s3_server import BUCKET, CANARY, Server, s3_server
from tollgate.manifest.loader import load_document
from tollgate_trainer.laptop import starting_point
from tollgate_trainer.laptop.checkpoint_commands import checkpoint
from tollgate_trainer.laptop.preparation import LaptopError, occupied
from tollgate_trainer.lifecycle.checkpoints import Checkpoints, Identity, committed
from tollgate_trainer.lifecycle.remote.checkpoints import RemoteCheckpoints
from tollgate_trainer.lifecycle.remote.store import Place, Store
from tollgate_trainer.lifecycle.state import Best, Evaluated, LifecycleState

IDENTITY = Identity("u", 1, 1, 8, "sha256:" + "a" * 64, "sha256:" + "d" * 64)
LOSSES = {5: 2.0, 10: 1.0, 15: 1.5, 20: 1.7}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


def stage(folder: Path, step: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_text(f"weights {step}")
    best = min((loss, at) for at, loss in LOSSES.items() if at <= step)
    evaluated = Evaluated(step, {"eval_loss": LOSSES[step]})
    state = LifecycleState(step=step, best=Best("eval_loss", best[0], best[1]), last_evaluation=evaluated)
    state.write(folder)
    return ["model.bin", "lifecycle.json"]


def on_disk(root: Path) -> str:
    some = Checkpoints(root, IDENTITY, lambda: None)
    for step in LOSSES:
        some.commit(step, stage(some.prepare(step), step))
    return str(root)


def in_store(server: Server, tmp_path: Path, name: str) -> str:
    place = Place(BUCKET, name)
    some = RemoteCheckpoints(Store(place), IDENTITY)
    for step in LOSSES:
        folder = tmp_path / f"stage-{step}"
        files = stage(folder, step)
        some.upload(step, 0, folder, files)
        some.commit(step, files, {"eval_loss": LOSSES[step]})
    return place.uri()


@pytest.fixture(params=["disk", "store"])
def where(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    if request.param == "disk":
        return on_disk(tmp_path / "run")
    return in_store(server, tmp_path, tmp_path.name)


def call(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(checkpoint, list(arguments), standalone_mode=False)
    assert CANARY not in answer.output
    if answer.exception is not None:
        raise answer.exception
    return int(answer.return_value or 0), answer.output


def listed(where: str, command: str = "list") -> dict[int, dict[str, Any]]:
    _, output = call(command, where, "-o", "json")
    return {one["step"]: one for one in json.loads(output)["checkpoints"]}


def damage(where: str, step: int, text: str) -> None:
    if "://" in where:
        Store(Place.parse(where)).put(f"checkpoint-{step}/1/model.bin", text.encode())
    else:
        (Path(where) / f"checkpoints/checkpoint-{step}/model.bin").write_text(text)


def test_list_shows_each_with_the_newest_and_the_best(where: str) -> None:
    found = listed(where)
    assert list(found) == [20, 15, 10, 5]
    assert [step for step, one in found.items() if one["best"]] == [10]
    assert [step for step, one in found.items() if one["newest"]] == [20]
    assert all(one["ok"] and one["bytes"] > 0 for one in found.values())
    assert found[15]["metrics"] == {"eval_loss": 1.5}
    code, output = call("list", where)
    assert code == 0
    assert "newest" in output
    assert "best" in output


def test_verify_reads_every_byte_and_its_exit_code_tells(where: str) -> None:
    assert call("verify", where)[0] == 0
    damage(where, 15, "weightz 15")
    assert listed(where)[15]["ok"], "the same size: list does not read it"
    code, output = call("verify", where)
    assert code == 1
    assert "NO: model.bin has another" in output
    assert {step for step, one in listed(where, "verify").items() if not one["ok"]} == {15}
    damage(where, 15, "short")
    assert "bytes instead of" in listed(where)[15]["problem"]


def test_prune_keeps_the_newest_and_the_best_and_a_dry_run_removes_nothing(where: str) -> None:
    _, output = call("prune", where, "--keep-last", "1", "--dry-run", "-o", "json")
    assert [one["step"] for one in json.loads(output)["removed"]] == [15, 5]
    assert list(listed(where)) == [20, 15, 10, 5]
    call("prune", where, "--keep-last", "1", "--keep-best", "2")
    assert list(listed(where)) == [20, 15, 10]
    call("prune", where, "--after", "10")
    assert list(listed(where)) == [10]
    call("prune", where, "--all")
    assert listed(where) == {}
    assert call("verify", where)[0] == 1, "nothing is not whole"


def test_prune_does_not_disturb_a_run_at_work(tmp_path: Path) -> None:
    where = on_disk(tmp_path / "run")
    with occupied(tmp_path / "run"), pytest.raises(LaptopError, match="another tollgate command works in"):
        call("prune", where, "--all")
    assert len(committed(tmp_path / "run/checkpoints")) == 4


def test_a_run_s_folder_leads_to_its_store(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    uri = in_store(server, tmp_path, "followed")
    record = tmp_path / "run/outcomes/attempt-1/manifest.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"checkpoint": {"uri": uri}}))
    assert list(listed(str(tmp_path / "run"))) == [20, 15, 10, 5]
    for absent, words in ((str(tmp_path / "nowhere"), "is no folder"), (str(tmp_path), "holds no folder")):
        with pytest.raises(LaptopError, match=words):
            call("list", absent)


def test_resuming_from_a_store_means_its_newest_or_asks_to_remove_later_ones(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    uri = in_store(server, tmp_path, "resumed")
    document = {"name": "m", "dataset": {"path": "d"}, "checkpoint": {"uri": uri}}
    loaded = load_document(document, "m")
    assert starting_point.prepare("auto", tmp_path, loaded) == ""
    assert "step 20" in starting_point.prepare(uri, tmp_path, loaded)
    assert "step 20" in starting_point.prepare(f"{uri}/checkpoint-20", tmp_path, loaded)
    with pytest.raises(LaptopError, match=rf"tollgate checkpoint prune {uri} --after 10"):
        starting_point.prepare(f"{uri}/checkpoint-10", tmp_path, loaded)
    call("prune", uri, "--after", "10")
    assert "step 10" in starting_point.prepare(f"{uri}/checkpoint-10", tmp_path, loaded)
    for other, words in ((f"{uri}/checkpoint-7", "is not there"), ("s3://elsewhere/x", "goes on from one there only")):
        with pytest.raises(LaptopError, match=words):
            starting_point.prepare(other, tmp_path, loaded)
    local = replace(loaded, manifest=load_document({"name": "m", "dataset": {"path": "d"}}, "m").manifest)
    with pytest.raises(LaptopError, match=r"set checkpoint.uri"):
        starting_point.prepare(uri, tmp_path, local)
