"""Packed rows against random order and against grouping by length: tokens per second, and held-out loss."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.trainer import figures, stage
from bench.trainer.arms import Block
from bench.trainer.options import Options
from tollgate_trainer.data.order import Order, padded, permutation

LENGTH = 256
CLOSE = 0.01
"""Real tokens per step may be 2 % apart; the batches are chosen to be closer."""
NAMES = {"random": {}, "grouped": {"group_by_length": True}, "packed": {"packing": True}}


@dataclass(frozen=True, slots=True)
class Sizes:
    """rows, samples: of a step, packed and not; their mean real tokens; padded_over_real: of the random order."""

    rows: int
    samples: int
    packed_tokens: float
    unpacked_tokens: float
    padded_over_real: float

    @property
    def apart(self) -> float:
        """By how much the real tokens of a step differ."""
        return abs(self.packed_tokens / self.unpacked_tokens - 1)


def sizes(lengths: npt.NDArray[np.int64], seed: int) -> Sizes:
    """The smallest batches with nearly as many real tokens per step."""
    tokens, best = float(lengths.sum()), None
    for rows in range(4, 13):
        packed = Order(lengths, seed, 1, rows, 1, pack=LENGTH)
        per_step = tokens / packed.steps_per_epoch
        samples = max(1, round(per_step / (tokens / len(lengths))))
        plain = Order(lengths, seed, 1, samples, 1)
        over = padded(lengths[permutation(len(lengths), seed, 0)], samples) / tokens
        found = Sizes(rows, samples, per_step, tokens / plain.steps_per_epoch, over)
        if best is None or found.apart < best.apart:
            best = found
        if best.apart <= CLOSE:
            break
    assert best is not None
    return best


def lengths_of(data: stage.Material, document: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Tokens of each training sample."""
    from tollgate.manifest.loader import load_document
    from tollgate_trainer.data import load_documents
    from tollgate_trainer.data.splits import tokenise_documents
    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.source import Source

    manifest = load_document(dict(document), "bench").manifest
    tokenizer = tokenizers.load(Source(folder=data.root / "base"))
    return tokenise_documents(load_documents(manifest, data.root), tokenizer, manifest).train.lengths


def paced(block: Block) -> list[float]:
    """(tokens, seconds) of each step, one after the other."""
    assert block.tokens is not None
    return [value for pair in zip(block.tokens, block.seconds, strict=True) for value in pair]


def throughput(root: Path, data: stage.Material, options: Options, found: Sizes, seed: int) -> dict[str, Any]:
    """The three orders in turns."""
    context, block = stage.starting(), options.skip + options.steps
    arms = []
    for name, changes in NAMES.items():
        batch = found.rows if name == "packed" else found.samples
        asked = hyperparameters(options, 2 * options.rounds * block + 1, batch, **changes)
        document = data.document(hyperparameters=asked, reproducibility={"seed": seed})
        arms.append(stage.start(context, root / name, data.root, document, "tollgate", block))
    with stage.players(*arms):
        for arm in arms:
            arm.answers()
        stretches, _ = stage.turns(arms, options.rounds, options.skip, "packing")
        for arm in arms:
            arm.finish()
    rates = [{name: paced(blocks[0]) for name, blocks in stretch.items()} for stretch in stretches]
    return {"rates": stage.rounded(rates), "said": stage.events(root / "packed", "packing")}


def hyperparameters(options: Options, steps: int, batch: int, **changes: Any) -> dict[str, Any]:
    """Of one arm."""
    return {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "max_seq_length": LENGTH,
        "learning_rate": options.learning_rate,
        "warmup_steps": options.warmup_steps,
        "eval_steps": 10**6,
        "save_steps": 10**6,
        **changes,
    }


def held_out(root: Path, data: stage.Material, options: Options, found: Sizes, seed: int) -> dict[str, Any]:
    """Two whole trainings of as many real tokens, and the loss on the same held-out documents."""
    context, losses, tokens = stage.starting(), {}, {}
    dataset = {"path": "data.json", "splits": {"validation": 0.1}}
    lengths = lengths_of(data, {**data.document(hyperparameters=hyperparameters(options, 1, 1)), "dataset": dataset})
    steps = {"random": options.loss_steps, "packed": as_many(lengths, seed, found, options.loss_steps)}
    for name, count in steps.items():
        batch = found.rows if name == "packed" else found.samples
        asked = hyperparameters(options, count, batch, per_device_eval_batch_size=16, logging_steps=1, **NAMES[name])
        document = {**data.document(hyperparameters=asked, reproducibility={"seed": seed}), "dataset": dataset}
        folder = root / f"loss-{name}-{seed}"
        player = stage.start(context, folder, data.root, document, "tollgate", 0)
        with stage.players(player):
            player.ended()
        losses[name] = float(stage.events(folder, "eval")[-1]["eval_loss"])
        tokens[name] = int(stage.events(folder, "step")[-1]["tokens"])
        print(f"packing: seed {seed}, {name}: held-out loss {losses[name]:.4f} after {tokens[name]} tokens", flush=True)
    return {"seed": seed, "steps": steps, "losses": losses, "tokens": tokens}


def as_many(lengths: npt.NDArray[np.int64], seed: int, found: Sizes, steps: int) -> int:
    """Packed steps after which nearly as many real tokens were seen as after `steps` in random order."""
    tokens = Order(lengths, seed, 1, found.samples, 1).tokens_until(steps)
    packed = Order(lengths, seed, 1, found.rows, 1, pack=LENGTH)
    return min(range(1, 2 * steps + 10), key=lambda step: abs(packed.tokens_until(step) - tokens))


def judged(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of raw measurements, and both verdicts."""
    over_random = figures.interval(raw["rates"], figures.rate_ratio("packed", "random"))
    over_grouped = figures.interval(raw["rates"], figures.rate_ratio("packed", "grouped"))
    told = raw["trainings"]
    apart = max([raw["tokens_apart"], *(abs(t["tokens"]["packed"] / t["tokens"]["random"] - 1) for t in told)])
    speed = figures.packing(raw["padded_over_real"], over_random, over_grouped, apart)
    loss = figures.held_out([t["losses"]["packed"] for t in told], [t["losses"]["random"] for t in told])
    return {
        "over_random": asdict(over_random),
        "over_grouped": asdict(over_grouped),
        "verdict": speed.state,
        "because": speed.because,
        "loss_verdict": loss.state,
        "loss_because": loss.because,
    }


def main(options: Options) -> int:
    """Tokens per second first, then the losses by seed."""
    before = stage.machine()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
        data = stage.material(root / "data", stage.docstrings(), stage.config(128, 2, 1024))
        document = data.document(hyperparameters=hyperparameters(options, 1, 1))
        found = sizes(lengths_of(data, document), 11)
        print(f"packing: {found}", flush=True)
        raw: dict[str, Any] = {
            **asdict(found),
            "tokens_apart": found.apart,
            "row_tokens": LENGTH,
            "parameters": data.parameters,
            "loss_steps": options.loss_steps,
            "learning_rate": options.learning_rate,
            "warmup_steps": options.warmup_steps,
            **throughput(root, data, options, found, 11),
        }
        raw["trainings"] = [held_out(root, data, options, found, seed) for seed in range(1, options.runs + 1)]
    raw |= judged(raw)
    path = stage.keep("packing", before, raw)
    print(f"speed: {raw['verdict']}: {raw['because']}\nloss: {raw['loss_verdict']}: {raw['loss_because']}\n{path}")
    return int(figures.State.MISSED in (raw["verdict"], raw["loss_verdict"]))
