"""Options that are each tested alone, together: each cell a real training that is stopped and gone on from.

A cell passes when its losses, as exact hexadecimal, and its finished model's digest are those of a run that was never
stopped, and the finished model answers in a process that knows nothing of the training. docs/design/combinations.md
has the table. Two processes meet over gloo; dropout is on; OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tollgate.contract import Env
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import ALLOW_CPU
from tollgate_trainer.data.documents import Document
from tollgate_trainer.evaluate import run as evaluation
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.models.commands import infer
from trainer_fixtures import TINY_BERT, WORDS, Gang, gang, manifest, write_answers
from trainer_ranks import Ranks, ranks

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("combinations")]
full = pytest.mark.full

STEPS = {"max_steps": 6, "save_steps": 3, "eval_steps": 3}
LAST = 6
LORA = {"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
MOE = {"type": "moe-lora", "rank": 2, "alpha": 4, "dropout": 0.1, "experts": 4, "top_k": 2}


@dataclass(frozen=True)
class Cell:
    """hyper: of `hyperparameters`; more: further sections; quantization: of a base in a folder; uneven: texts of many
    lengths; early: patience ends the training.
    """

    parallelism: str = "ddp"
    processes: int = 2
    task: str = "causal-lm"
    adapter: dict[str, Any] | None = None
    quantization: str | None = None
    uneven: bool = False
    early: bool = False
    hyper: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


TASKS = {
    f"{task}, {strategy}, {'lora' if adapter else 'full'}": Cell(strategy, 2, task, adapter)
    for task in ("classification", "span", "joint")
    for strategy in ("ddp", "zero2", "zero3", "fsdp2")
    for adapter in (None, LORA)
}
QUANTISED = {
    f"{quantization} base, {task}, {processes} process{'es' if processes > 1 else ''}": Cell(
        "ddp", processes, task, LORA, quantization
    )
    for quantization in ("int8", "nf4")
    for task, processes in (("classification", 1), ("classification", 2), ("causal-lm", 2))
}
CHECKPOINTING = {"gradient_checkpointing": True}
IMPATIENT = {"early_stopping": {"patience": 1, "min_delta": 5.0}}
OTHERS = {
    "packing, zero2": Cell("zero2", uneven=True, hyper={"packing": True}),
    "packing, fsdp2": Cell("fsdp2", uneven=True, hyper={"packing": True}),
    "packing, fsdp2, lora": Cell("fsdp2", adapter=LORA, uneven=True, hyper={"packing": True}),
    "gradient checkpointing, zero3, lora": Cell("zero3", adapter=LORA, hyper=CHECKPOINTING),
    "accumulation, fsdp2": Cell("fsdp2", hyper={"gradient_accumulation_steps": 3}),
    "accumulation, fsdp2, lora": Cell("fsdp2", adapter=LORA, hyper={"gradient_accumulation_steps": 3}),
    "dora, zero2": Cell("zero2", adapter=LORA | {"dora": True}),
    "dora, zero3": Cell("zero3", adapter=LORA | {"dora": True}),
    "dora, fsdp2": Cell("fsdp2", adapter=LORA | {"dora": True}),
    "moe-lora, gradient checkpointing": Cell(processes=1, adapter=MOE, hyper=CHECKPOINTING),
    "moe-lora, gradient checkpointing, fsdp2": Cell("fsdp2", adapter=MOE, hyper=CHECKPOINTING),
    "moe-lora, gradient checkpointing, zero3": Cell("zero3", adapter=MOE, hyper=CHECKPOINTING),
    "moe-lora, packing, fsdp2": Cell("fsdp2", adapter=MOE, uneven=True, hyper={"packing": True}),
    "bf16": Cell(processes=1, more={"precision": "bf16"}),
    "bf16, lora, ddp": Cell(adapter=LORA, more={"precision": "bf16"}),
    "bf16, zero2": Cell("zero2", more={"precision": "bf16"}),
    "bf16, zero3, lora": Cell("zero3", adapter=LORA, more={"precision": "bf16"}),
    "bf16, fsdp2": Cell("fsdp2", more={"precision": "bf16"}),
    "bf16, fsdp2, lora": Cell("fsdp2", adapter=LORA, more={"precision": "bf16"}),
    "bf16, fsdp2, moe-lora": Cell("fsdp2", adapter=MOE, more={"precision": "bf16"}),
    "streaming": Cell(more={"dataset": {"streaming": True}}),
    "streaming, zero3, lora": Cell("zero3", adapter=LORA, more={"dataset": {"streaming": True}}),
    "streaming, fsdp2": Cell("fsdp2", more={"dataset": {"streaming": True}}),
    "early stopping, two processes": Cell(early=True, hyper={"max_steps": 12}, more=dict(IMPATIENT)),
    "early stopping, zero2, lora": Cell(
        "zero2", adapter=LORA, early=True, hyper={"max_steps": 12}, more=dict(IMPATIENT)
    ),
    "early stopping, fsdp2": Cell("fsdp2", early=True, hyper={"max_steps": 12}, more=dict(IMPATIENT)),
    "experts, classification": Cell(processes=1, task="classification", adapter=MOE),
    "nf4 base, zero2": Cell("zero2", 2, "causal-lm", LORA, "nf4"),
    "compile, packing, fsdp2": Cell("fsdp2", uneven=True, hyper={"packing": True, "compile": True}),
    "compile, lora, packing": Cell(processes=1, adapter=LORA, uneven=True, hyper={"packing": True, "compile": True}),
}
UNMARKED = {"joint, fsdp2, lora"}
CELLS = [
    pytest.param(cell, id=name, marks=() if name in UNMARKED else full)
    for name, cell in (TASKS | QUANTISED | OTHERS).items()
]


@pytest.fixture(scope="module")
def forked() -> Iterator[Ranks]:
    with ranks() as running:
        yield running


def made(root: Path, cell: Cell) -> Gang:
    """The run of a cell, with its data and its base."""
    more = dict(cell.more)
    if cell.adapter is not None:
        more["adapter"] = dict(cell.adapter)
    run = gang(
        root,
        parallelism=cell.parallelism,
        task=cell.task,
        hyperparameters=STEPS | cell.hyper,
        evaluation={"samples": 0},
        **more,
        extra={ALLOW_CPU: "1"},
    )
    if cell.task != "causal-lm":
        run.document["dataset"] = {"path": "answers.jsonl", "splits": {"validation": 0.3}}
        run.document["model"] = {"config": dict(TINY_BERT)}
        write_answers(root / "data" / "answers.jsonl", 60)
        if cell.task != "classification":
            run.document["span"] = {"doc_stride": 12}
    if cell.uneven:
        chance = random.Random(5)
        texts = [" ".join(chance.choices(WORDS, k=int(chance.triangular(3, 25, 5)))) for _ in range(200)]
        (root / "data" / "data.json").write_text(json.dumps({"conversations": [{"text": text} for text in texts]}))
    if cell.quantization is not None:
        with_base(run, cell.quantization)
    return run


def with_base(run: Gang, quantization: str) -> None:
    """Put a small base into the run's folder of data and have it quantised."""
    base = run.root / "data" / "base"
    documents = [Document(f"the {a} of the {b}", "here") for a in WORDS for b in WORDS[:6]]
    tokenizer = tokenizers.from_json(tokenizers.train(documents, 600))
    plain: Any = build(TrainingManifest.model_validate(manifest()), run.root, tokenizer, torch.device("cpu")).model
    plain.save_pretrained(base)
    tokenizer.save_pretrained(base)
    run.document["model"] = {"base": "base", "quantization": quantization}


def log(run: Gang, attempt: int) -> str:
    """The end of what an attempt's processes wrote."""
    return (run.root / f"attempt-{attempt}.log").read_text(encoding="utf-8")[-6000:]


def finished(forked: Ranks, run: Gang, processes: int, attempt: int = 1) -> str:
    """Run an attempt to its end and answer the model's digest."""
    codes = forked.run(run, attempt, processes)
    assert codes == [0] * processes, log(run, attempt)
    model = run.words(attempt).model
    assert model is not None
    return model.digest


def weights(run: Gang) -> dict[str, str]:
    """The digest of each file of weights of the finished model; others say where the base lay, which differs here."""
    files = json.loads((run.output / "model" / "model_info.json").read_text())["files"]
    found = {file["path"]: file["sha256"] for file in files if file["path"].endswith(".safetensors")}
    assert found, "a model without weights"
    return found


def answer(run: Gang, task: str) -> dict[str, Any]:
    """What the finished model says, asked as a person asks it."""
    ask = ["--prompt", "the gate will open the road. the driver can close it"]
    ask += ["--question", "what will the gate do?"] if task in ("span", "joint") else []
    ask += ["--max-new-tokens", "4", "--plain"] if task == "causal-lm" else []
    place = [str(run.output / "model"), "--dataset-root", str(run.root / "data"), "-o", "json"]
    told = CliRunner().invoke(infer, [*place, *ask])
    assert told.exit_code == 0, f"{told.output}\n{told.exception!r}"
    said: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return said


def judged(run: Gang, cell: Cell, digest: str) -> dict[str, str]:
    """What an evaluation of the finished model is told; without named suites a language model needs prompts."""
    suites = cell.task if cell.task != "causal-lm" else "perplexity"
    named = {Env.ROLE: "evaluate", Env.MODEL_DIGEST: digest, Env.SUITES: suites}
    return {**run.environment(1, cell.processes), **{str(name): value for name, value in named.items()}}


@pytest.mark.parametrize("cell", CELLS)
def test_together_they_go_on_bit_for_bit_and_the_model_answers(
    tmp_path: Path, forked: Ranks, capsys: pytest.CaptureFixture[str], cell: Cell
) -> None:
    control, broken = made(tmp_path / "control", cell), made(tmp_path / "broken", cell)
    finished(forked, control, cell.processes)
    plot = {"kind": "signal", "rank": cell.processes - 1, "step": 3}
    assert forked.run(broken, 1, cell.processes, plot) == [75] * cell.processes, log(broken, 1)
    digest = finished(forked, broken, cell.processes, 2)
    assert [event["equality"] for event in broken.events("restore")] == ["bit-equal"]
    for rank in range(cell.processes):
        expected = control.losses(1, rank)
        assert sorted(expected) == list(range(1, LAST + 1))
        for attempt in (1, 2):
            told = broken.losses(attempt, rank)
            assert told, "an attempt that did no step shows nothing"
            assert told == {step: expected[step] for step in told}, conclusive(tmp_path, forked, cell, control)
        assert max(broken.losses(2, rank)) == LAST
        assert min(broken.losses(2, rank)) > 1, "it began anew instead of going on"
    assert weights(broken) == weights(control), conclusive(tmp_path, forked, cell, control)
    said = answer(broken, cell.task)
    assert said == answer(control, cell.task)
    assert evaluation.main(judged(broken, cell, digest)) == 0, capsys.readouterr().err
    as_asked(broken, cell)
    shutil.rmtree(tmp_path)


def conclusive(root: Path, forked: Ranks, cell: Cell, control: Gang) -> str:
    """Whether two runs that were not stopped are equal; only asked for once a cell has failed."""
    again = made(root / "again", cell)
    finished(forked, again, cell.processes)
    same = weights(again) == weights(control) and all(
        again.losses(1, rank) == control.losses(1, rank) for rank in range(cell.processes)
    )
    return "two uninterrupted runs are equal" if same else "inconclusive: two uninterrupted runs differ"


def as_asked(run: Gang, cell: Cell) -> None:
    """What was asked for did happen, and was not quietly left out."""
    plan = run.events("plan")[-1]
    assert plan["strategy"] == ("single" if cell.processes == 1 else cell.parallelism)
    if cell.hyper.get("packing"):
        assert all(event["on"] for event in run.events("packing"))
    if cell.hyper.get("compile"):
        assert all(event["on"] for event in run.events("compile"))
    if cell.adapter is not None:
        assert plan["trainable_parameters"] < plan["parameters"]
    if cell.adapter is not None and cell.adapter["type"] == "moe-lora":
        assert run.events("experts")
    if cell.early:
        info = json.loads((run.output / "model" / "model_info.json").read_text())
        assert (info["stopped_early"], info["step"], info["chosen_step"]) == (True, 6, 3)
    if "precision" in cell.more:
        assert plan["precision"] == cell.more["precision"]
