"""Trainings whose checkpoints lie in a store that speaks S3, with real processes on both sides."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_server import BUCKET, CANARY, Server, forgetful, s3_server
from tollgate.contract import Outcome
from trainer_fixtures import Gang, ended, gang, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


def stored(root: Path, server: Server, prefix: str, **changes: Any) -> Gang:
    """A run whose checkpoints go to the store; its local folder never holds any."""
    steps = {"max_steps": 60, "save_steps": 10, "eval_steps": 30} | changes.pop("hyperparameters", {})
    uri = {"uri": f"s3://{BUCKET}/{prefix}"} | changes.pop("checkpoint", {})
    run = gang(root, hyperparameters=steps, checkpoint=uri, preflight=False, **changes)
    run.extra = {**server.environment, "TOLLGATE_STAGING": str(root / "staging"), "TOLLGATE_ALLOW_CPU_SHARDING": "1"}
    return run


def finished(run: Gang, attempt: int = 1, processes: int = 1) -> str:
    code, output = run.run(attempt, processes)
    assert code == 0, output
    assert CANARY not in output
    words = run.words(attempt)
    assert words.outcome is Outcome.COMPLETED
    assert words.model is not None
    return words.model.digest


def without_secrets(*roots: Path) -> None:
    """The credentials' secret is in no file that a run left."""
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        pytest.param(1, {}, id="one process"),
        pytest.param(2, {"adapter": {"type": "lora", "rank": 4}}, id="two processes, lora", marks=pytest.mark.full),
        pytest.param(2, {"parallelism": "fsdp2"}, id="two processes, fsdp2", marks=pytest.mark.full),
        pytest.param(2, {"parallelism": "zero2"}, id="two processes, zero2", marks=pytest.mark.full),
    ],
)
def test_a_run_whose_folder_is_gone_goes_on_from_the_store_bit_by_bit(
    server: Server, tmp_path: Path, processes: int, changes: dict[str, Any]
) -> None:
    prefix = f"resume-{processes}-{changes.get('parallelism', '')}"
    # The control has the same manifest, to the byte, so that the digests can be compared; its prefix is emptied after.
    control, broken = (stored(tmp_path / name, server, prefix, **changes) for name in ("control", "broken"))
    digest = finished(control, processes=processes)
    empty(server, prefix)

    with ended(broken.start(1, processes)) as process:
        wait_for(lambda: any(e["step"] >= 20 for e in broken.events("save")) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    words = broken.words(1)
    assert words.outcome is Outcome.STOPPED, output
    assert words.checkpoint is not None
    assert words.checkpoint.path == f"s3://{BUCKET}/{prefix}/checkpoint-{words.step}"
    assert words.step is not None
    assert 20 <= words.step < 60
    assert not (broken.output / "checkpoints").exists(), "nothing but the store holds checkpoints"
    before = broken.losses(1)
    without_secrets(broken.output)

    shutil.rmtree(broken.output)
    shutil.rmtree(tmp_path / "broken" / "staging", ignore_errors=True)
    resumed = finished(broken, 2, processes)
    if resumed != digest and finished(again(control), processes=processes) != digest:
        pytest.fail("inconclusive: two uninterrupted runs differ, so nothing can be said about resuming")
    assert resumed == digest
    assert broken.words(2).resumed_from_step == words.step
    assert [event["equality"] for event in broken.events("restore")] == ["bit-equal"]
    assert before | broken.losses(2) == control.losses(1)
    kept = {name.split("/")[1] for name in server.names(f"{prefix}/")}
    assert kept == {"checkpoint-50", "checkpoint-60"} or len(kept) == 2, "older ones are removed"
    assert not list((tmp_path / "broken" / "staging").rglob("*.safetensors")), "nothing is left on the node"
    without_secrets(broken.output)


def again(run: Gang) -> Gang:
    """The same run once more from nothing, but for its prefix, which it must not go on from."""
    other = Gang(run.root.with_name(f"{run.root.name}-again"), run.document, extra=dict(run.extra))
    shutil.copytree(run.root / "data", other.root / "data")
    bucket = run.document["checkpoint"]["uri"].removeprefix(f"s3://{BUCKET}/")
    empty(Server(run.extra["AWS_ENDPOINT_URL"]), bucket)
    return other


def empty(server: Server, prefix: str) -> None:
    for name in server.names(f"{prefix}/"):
        server.client().delete_object(Bucket=BUCKET, Key=name)


@pytest.mark.full
def test_a_damaged_checkpoint_in_the_store_is_passed_over_aloud_and_the_best_one_becomes_the_model(
    server: Server, tmp_path: Path
) -> None:
    run = stored(tmp_path, server, "damaged", checkpoint={"keep_best": 1, "keep_last": 2})
    finished(run)
    steps = {int(name.split("/")[1].removeprefix("checkpoint-")) for name in server.names("damaged/")}
    assert {30, 60} & steps, "an evaluated step is among those kept"
    newest = max(steps)
    name = next(name for name in server.names(f"damaged/checkpoint-{newest}/") if name.endswith("model.safetensors"))
    body = bytearray(server.client().get_object(Bucket=BUCKET, Key=name)["Body"].read())
    body[-1] ^= 1
    server.client().put_object(Bucket=BUCKET, Key=name, Body=bytes(body))
    shutil.rmtree(run.output)
    finished(run, 2)
    assert run.words(2).resumed_from_step == max(steps - {newest})
    assert any(f"checkpoint {newest} is not used" in e["message"] for e in run.events("warning"))
    assert json.loads((run.output / "model/model_info.json").read_text())["chosen_step"] in (30, 60)


@pytest.mark.full
def test_a_store_that_cannot_keep_the_promise_is_refused_before_anything_is_trained(
    server: Server, tmp_path: Path
) -> None:
    with forgetful(server) as careless:
        run = stored(tmp_path / "a", careless, "careless")
        code, output = run.run()
    assert code == 64, output
    assert "checkpoint.uri" in output
    assert "ignores If-None-Match" in output
    absent = stored(tmp_path / "b", server, "x", checkpoint={"uri": "s3://no-such-bucket/x"})
    code, output = absent.run()
    assert code == 64, output
    assert "create the bucket, or correct checkpoint.uri" in output
    assert CANARY not in output
    without_secrets(run.output, absent.output)
