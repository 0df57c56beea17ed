"""Bit-equal resume, cell by cell: {DDP, ZeRO-2, ZeRO-3, FSDP2} x {full, LoRA, MoE-LoRA}; two processes.

The protocol: dropout is on; a control and a second uninterrupted run must be equal first, else nothing can be said;
then a run that was stopped and resumed must have the same loss, as exact hexadecimal, at every step on every rank, and
the same finished weights, by their digest. OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tollgate.contract import Env, FailureReason, Outcome
from tollgate.parallelism import ALLOW_CPU
from tollgate_trainer.lifecycle.memory import FIELD
from tollgate_trainer.models import load_finished
from tollgate_trainer.models.moe_lora.config import WEIGHTS_FILE
from trainer_fixtures import TINY_LLAMA, Gang, gang
from trainer_ranks import SLOW, Ranks, ranks

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("resume-matrix")]

PROCESSES = 2
STEPS = {"max_steps": 12, "save_steps": 4, "eval_steps": 6, "gradient_accumulation_steps": 2}
"""Five steps make an epoch of the 73 documents, so the steps go over two epoch ends."""

FULL: dict[str, Any] = {}
LORA = {"adapter": {"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}}
MOE = {"adapter": {"type": "moe-lora", "rank": 2, "alpha": 4, "dropout": 0.1, "experts": 4, "top_k": 2}}

STREAMED = {"dataset": {"streaming": True}}
PACKED = {"hyperparameters": {"packing": True}}

Plot = dict[str, Any]
AT_A_STEP: list[Plot] = [{"kind": "signal", "rank": 1, "step": 7}]
DURING_A_SAVE: list[Plot] = [{"kind": "signal-in-save", "rank": 0, "step": 4}]
KILLED_IN_A_SAVE: list[Plot] = [{"kind": "kill-in-save", "rank": 0, "step": 8}]
TWICE_IN_ONE_EPOCH: list[Plot] = [
    {"kind": "signal", "rank": 0, "step": 6},
    {"kind": "signal", "rank": 1, "step": 8},
]

full = pytest.mark.full
CELLS = [
    pytest.param("ddp", FULL, KILLED_IN_A_SAVE, id="ddp-full", marks=full),
    pytest.param("ddp", LORA, DURING_A_SAVE, id="ddp-lora"),
    pytest.param("ddp", MOE, TWICE_IN_ONE_EPOCH, id="ddp-moe-lora", marks=full),
    pytest.param("zero2", FULL, AT_A_STEP, id="zero2-full"),
    pytest.param("zero2", LORA, TWICE_IN_ONE_EPOCH, id="zero2-lora", marks=full),
    pytest.param("zero2", MOE, DURING_A_SAVE, id="zero2-moe-lora", marks=full),
    pytest.param("zero3", FULL, KILLED_IN_A_SAVE, id="zero3-full", marks=full),
    pytest.param("zero3", LORA, DURING_A_SAVE, id="zero3-lora", marks=full),
    pytest.param("zero3", MOE, TWICE_IN_ONE_EPOCH, id="zero3-moe-lora"),
    pytest.param("fsdp2", FULL, AT_A_STEP, id="fsdp2-full", marks=full),
    pytest.param("fsdp2", LORA, KILLED_IN_A_SAVE, id="fsdp2-lora", marks=full),
    pytest.param("fsdp2", MOE, KILLED_IN_A_SAVE, id="fsdp2-moe-lora", marks=full),
    pytest.param("ddp", FULL | STREAMED, TWICE_IN_ONE_EPOCH, id="ddp-full-streaming", marks=full),
    pytest.param("zero2", LORA | PACKED, TWICE_IN_ONE_EPOCH, id="zero2-lora-packing", marks=full),
    pytest.param("zero1", FULL, AT_A_STEP, id="zero1-full", marks=full),
    pytest.param("zero2", {"parallelism_options": {"offload": "cpu"}}, AT_A_STEP, id="zero2-offload", marks=full),
    pytest.param("zero3", {"parallelism_options": {"offload": "cpu"}}, AT_A_STEP, id="zero3-offload", marks=full),
]


@pytest.fixture(scope="module")
def forked() -> Iterator[Ranks]:
    with ranks() as running:
        yield running


def sharded(root: Path, strategy: str, **changes: Any) -> Gang:
    """A run of twelve steps over two processes."""
    steps = STEPS | changes.pop("hyperparameters", {})
    return gang(root, parallelism=strategy, hyperparameters=steps, **changes, extra={ALLOW_CPU: "1"})


def finished(forked: Ranks, run: Gang, attempt: int = 1, processes: int = PROCESSES) -> str:
    """Run an attempt to its end and answer the model's digest."""
    codes = forked.run(run, attempt, processes)
    assert codes == [0] * processes, log(run, attempt)
    model = run.words(attempt).model
    assert model is not None
    return model.digest


def log(run: Gang, attempt: int) -> str:
    """The end of what an attempt's processes wrote."""
    return (run.root / f"attempt-{attempt}.log").read_text(encoding="utf-8")[-6000:]


@pytest.mark.parametrize(("strategy", "changes", "plots"), CELLS)
def test_a_stopped_and_resumed_training_is_bit_equal_on_every_rank(
    tmp_path: Path, forked: Ranks, strategy: str, changes: dict[str, Any], plots: list[Plot]
) -> None:
    control, again, broken = (sharded(tmp_path / name, strategy, **changes) for name in ("control", "again", "broken"))
    digest = finished(forked, control)
    assert finished(forked, again) == digest, "inconclusive: two uninterrupted runs differ"
    last = len(plots) + 1
    for attempt, plot in enumerate(plots, 1):
        codes = forked.run(broken, attempt, PROCESSES, plot)
        stopped = [75] * PROCESSES
        assert codes == stopped if plot["kind"] != "kill-in-save" else codes[0] == -9, log(broken, attempt)
    assert finished(forked, broken, last) == digest
    assert [event["equality"] for event in broken.events("restore")] == ["bit-equal"] * len(plots)
    for rank in range(PROCESSES):
        expected = control.losses(1, rank)
        assert sorted(expected) == list(range(1, STEPS["max_steps"] + 1))
        assert again.losses(1, rank) == expected, "inconclusive: two uninterrupted runs differ"
        for attempt in range(1, last + 1):
            told = broken.losses(attempt, rank)
            assert told, "an attempt that did no step shows nothing"
            assert told == {step: expected[step] for step in told}
        assert max(broken.losses(last, rank)) == STEPS["max_steps"]
        assert min(broken.losses(last, rank)) > 1, "it began anew instead of going on"


def test_shards_of_two_fsdp2_processes_are_gone_on_from_by_one_with_equal_losses(tmp_path: Path, forked: Ranks) -> None:
    """Without dropout, whose masks belong to a process; sums are taken in another order, so nearly equal."""
    still = {"model": {"config": TINY_LLAMA | {"attention_dropout": 0.0}}}
    control, run = (sharded(tmp_path / name, "fsdp2", **still) for name in ("control", "run"))
    finished(forked, control)
    assert forked.run(run, 1, PROCESSES, AT_A_STEP[0]) == [75, 75], log(run, 1)
    finished(forked, run, 2, processes=1)
    (restore,) = run.events("restore")
    assert restore["equality"] == "statistical"
    assert "world: 2 -> 1" in restore["because"]
    expected = {event["step"]: event["loss"] for event in control.events("step")}
    told = {event["step"]: event["loss"] for event in run.events("step") if event["step"] > restore["step"]}
    assert sorted(told) == list(range(restore["step"] + 1, 13))
    assert told == pytest.approx({step: expected[step] for step in told}, rel=1e-5)
    weights, others = (load_file(one.output / "model" / "model.safetensors") for one in (control, run))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)


@full
def test_deepspeed_shards_are_refused_by_another_number_of_processes(tmp_path: Path, forked: Ranks) -> None:
    run = sharded(tmp_path, "zero2")
    assert forked.run(run, 1, PROCESSES, AT_A_STEP[0]) == [75, 75], log(run, 1)
    assert forked.run(run, 2, 1) == [64], log(run, 2)
    (failure,) = run.failures(2)
    assert failure.reason == FailureReason.OUTPUT
    assert failure.error is not None
    assert "2 DeepSpeed shards and this attempt has 1 process" in failure.error.message
    assert finished(forked, run, 3)


@pytest.mark.parametrize("strategy", ["zero2", pytest.param("zero3", marks=full), pytest.param("fsdp2", marks=full)])
def test_a_nan_on_one_rank_stops_both_before_the_step_and_the_checkpoint_is_finite(
    tmp_path: Path, forked: Ranks, strategy: str
) -> None:
    run = sharded(tmp_path, strategy)
    assert forked.run(run, 1, PROCESSES, {"kind": "nan", "rank": 1, "step": 7}) == [70, 70], log(run, 1)
    failures = run.failures()
    assert [words.reason for words in failures] == [FailureReason.NON_FINITE] * 2
    error, checkpoint = failures[0].error, failures[0].checkpoint
    assert error is not None
    assert "step 7" in error.message
    assert "rank 1: loss nan, samples" in error.message
    assert checkpoint is not None
    assert checkpoint.step == 4
    finished(forked, run, 2)
    assert run.words(2).outcome is Outcome.COMPLETED
    assert run.words(2).resumed_from_step == 4


@full
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_the_best_weights_become_whole_again_and_an_ended_run_is_finished_without_a_step(
    tmp_path: Path, forked: Ranks, strategy: str
) -> None:
    """No evaluation is five nats better than the first, so patience ends the training and step 6 is chosen."""
    keep = {"early_stopping": {"patience": 1, "min_delta": 5.0}}
    control, run = (sharded(tmp_path / name, strategy, **keep) for name in ("control", "run"))
    digest = finished(forked, control)
    finished(forked, run)
    (run.output / "model" / "model_info.json").unlink()
    assert finished(forked, run, 2) == digest


@full
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_gradient_checkpointing_changes_no_loss(tmp_path: Path, forked: Ranks, strategy: str) -> None:
    plain = sharded(tmp_path / "plain", strategy)
    again = sharded(tmp_path / "again", strategy, hyperparameters={"gradient_checkpointing": True})
    finished(forked, plain)
    finished(forked, again)
    assert again.losses(1) == plain.losses(1)


@full
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_a_strategy_computes_what_ddp_computes(tmp_path: Path, forked: Ranks, strategy: str) -> None:
    plain, other = sharded(tmp_path / "ddp", "ddp"), sharded(tmp_path / "other", strategy)
    finished(forked, plain)
    finished(forked, other)
    expected = {step: float.fromhex(loss) for step, loss in plain.losses(1).items()}
    assert {step: float.fromhex(loss) for step, loss in other.losses(1).items()} == pytest.approx(expected, rel=1e-4)


@full
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_an_adapter_over_a_saved_base_is_trained_by_shards_as_by_ddp_and_loads_anywhere(
    tmp_path: Path, forked: Ranks, strategy: str
) -> None:
    """With ZeRO-3 the base is cut into shards while it is read, and nobody gathers it again at the end."""
    first = sharded(tmp_path / "first", "ddp")
    finished(forked, first)
    over = {"model": {"config": None, "base": "base"}, **LORA}
    plain, other = sharded(tmp_path / "ddp", "ddp", **over), sharded(tmp_path / "other", strategy, **over)
    for run in (plain, other):
        shutil.copytree(first.output / "model", run.root / "data" / "base")
        finished(forked, run)
    counted = [(event["parameters"], event["trainable_parameters"]) for event in other.events("plan")]
    assert counted == [(event["parameters"], event["trainable_parameters"]) for event in plain.events("plan")]
    expected = {step: float.fromhex(loss) for step, loss in plain.losses(1).items()}
    assert {step: float.fromhex(loss) for step, loss in other.losses(1).items()} == pytest.approx(expected, rel=1e-4)
    model, _ = load_finished(other.output / "model", other.root / "data")
    whole, _ = load_finished(plain.output / "model", plain.root / "data")
    for (name, tensor), (_, same) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
        torch.testing.assert_close(tensor, same, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


# --- what else has to hold on every rank ------------------------------------------------------------------------------


def test_a_signal_that_leaves_no_time_for_a_save_ends_on_the_last_commit_and_going_on_is_booked_as_restoring(
    tmp_path: Path, forked: Ranks
) -> None:
    run = sharded(tmp_path, "ddp")
    codes = forked.run(run, 1, PROCESSES, AT_A_STEP[0], **{Env.GRACE_SECONDS: "0"})
    assert codes == [75] * PROCESSES, log(run, 1)
    words = run.words(1)
    assert words.step == 8, "asked for during step 7, and heard by all one step end later"
    assert words.checkpoint is not None
    assert words.checkpoint.step == 4, "the save of step 8 was due and there was no time for it"
    assert forked.run(run, 2, PROCESSES, {"kind": "slow-start", "rank": 0, "step": 0}) == [0] * PROCESSES, log(run, 2)
    seconds = run.words(2).goodput_seconds
    assert seconds is not None
    assert run.words(2).resumed_from_step == 4
    assert seconds["restore"] >= SLOW, "finding the place in the data belongs to restoring"


@pytest.mark.parametrize(
    ("strategy", "precision"),
    [
        ("zero2", "bf16"),
        pytest.param("zero2", "fp32", marks=full),
        pytest.param("zero3", "bf16", marks=full),
        pytest.param("fsdp2", "fp32", marks=full),
        pytest.param("ddp", "fp32", marks=full),
    ],
)
def test_a_gradient_that_is_not_finite_stops_all_although_every_loss_is(
    tmp_path: Path, forked: Ranks, strategy: str, precision: str
) -> None:
    """DeepSpeed steps while it goes backward and skips such a step without a word."""
    run = sharded(tmp_path, strategy, precision=precision)
    assert forked.run(run, 1, PROCESSES, {"kind": "overflow", "rank": 1, "step": 7}) == [70, 70], log(run, 1)
    failures = run.failures()
    assert [words.reason for words in failures] == [FailureReason.NON_FINITE] * 2
    error, checkpoint = failures[0].error, failures[0].checkpoint
    assert error is not None
    assert "step 7: the gradient norm is" in error.message
    assert checkpoint is not None
    assert checkpoint.step == 4


def test_fsdp2_that_would_leave_plain_tensors_is_refused(tmp_path: Path, forked: Ranks) -> None:
    """As the training library does it on a CPU: silently."""
    run = sharded(tmp_path, "fsdp2", preflight=False)
    assert forked.run(run, 1, 1, {"kind": "unsharded", "rank": 0, "step": 0}) == [70], log(run, 1)
    (failure,) = run.failures()
    assert failure.error is not None
    assert "is a plain tensor: nothing is sharded" in failure.error.message
    assert run.events("step") == []


def test_memory_that_runs_out_with_one_row_names_the_field_to_change(tmp_path: Path, forked: Ranks) -> None:
    run = sharded(tmp_path, "ddp", hyperparameters={"per_device_train_batch_size": 1})
    assert forked.run(run, 1, 1, {"kind": "memory", "rank": 0, "step": 3}) == [70], log(run, 1)
    (failure,) = run.failures()
    assert failure.reason == FailureReason.OUT_OF_MEMORY
    assert failure.error is not None
    assert failure.error.field == FIELD
    assert "it cannot be halved; lower" in failure.error.message


def test_no_forward_pass_of_a_training_makes_a_key_value_cache(tmp_path: Path, forked: Ranks) -> None:
    run = sharded(tmp_path, "ddp", evaluation={"samples": 0})
    assert forked.run(run, 1, 1, {"kind": "refuse-caches", "rank": 0, "step": 0}) == [0], log(run, 1)
    assert run.events("eval")


@full
def test_every_router_learns_from_the_second_step_on_under_zero3_and_gradient_checkpointing(
    tmp_path: Path, forked: Ranks
) -> None:
    """The first step has no gradient for a router, because B is zero: what differs after two steps is the second's."""
    weights = []
    for steps in (1, 2):
        asked = {"max_steps": steps, "gradient_checkpointing": True, "weight_decay": 0.0, "warmup_ratio": 0.0}
        run = sharded(tmp_path / str(steps), "zero3", hyperparameters=asked, adapter=MOE["adapter"] | {"balance": 0.0})
        finished(forked, run)
        found = load_file(run.output / "model" / WEIGHTS_FILE)
        weights.append({name: tensor for name, tensor in found.items() if "lora_router" in name})
    first, second = weights
    assert len(first) == 14
    assert [name for name, tensor in first.items() if torch.equal(tensor, second[name])] == []
