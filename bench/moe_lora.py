"""A mixture of LoRA experts against one LoRA of the same width, each at its best learning rate, on a tiny model.

A base learns half of the example's questions; both adapters then learn the other half: E experts of rank r with k of
them per token, and one LoRA of rank E * r with the same scale. Learning rates are chosen by the mean loss of all seeds
on one half of the held-out documents, and what is told is the loss on the other half, whatever comes out.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from bench import rig
from tollgate.manifest.loader import load_document
from tollgate.manifest.sections import Adapter
from tollgate_trainer.data.documents import Document
from tollgate_trainer.data.order import permutation
from tollgate_trainer.data.tokens import TokenSet, tokenise
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.models.moe_lora.model import MoeLoraModel
from tollgate_trainer.tasks.causal_lm import CausalLM

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "data" / "stdlib-qa.json"
PAGE = ROOT / "docs" / "design" / "moe-lora.md"
EXPERTS, TOP_K, RANK, ALPHA, BALANCE = 4, 2, 4, 8.0, 0.01
RATES = (3e-3, 1e-2, 3e-2)
SEEDS = (1, 2, 3)
BASE_STEPS, BASE_RATE, STEPS, BATCH, LENGTH = 600, 0.01, 300, 16, 80
CONFIG = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
ARMS: dict[str, dict[str, Any]] = {
    "moe-lora": {
        "type": "moe-lora",
        "rank": RANK,
        "alpha": ALPHA,
        "experts": EXPERTS,
        "top_k": TOP_K,
        "balance": BALANCE,
    },
    "lora": {"type": "lora", "rank": EXPERTS * RANK, "alpha": EXPERTS * ALPHA},
}


@dataclass(frozen=True, slots=True)
class Result:
    """One training of one arm. Losses in nats per predicted token; ms_per_step: median."""

    arm: str
    learning_rate: float
    seed: int
    dev_loss: float
    test_loss: float
    trainable: int
    ms_per_step: float
    load_entropy: float | None


@dataclass(frozen=True, slots=True)
class Material:
    """Token sets by part: base, train, dev, test."""

    tokenizer: Any
    parts: dict[str, TokenSet]


def material() -> Material:
    """The example's documents, dealt by a hash of their text: half for the base, and of the rest 80/10/10."""
    texts = [line["text"] for line in json.loads(DATA.read_text(encoding="utf-8"))["conversations"]]
    dealt: dict[str, list[Document]] = {"base": [], "train": [], "dev": [], "test": []}
    for number, text in enumerate(texts):
        place = zlib.crc32(text.encode()) % 20
        part = "base" if place < 10 else "train" if place < 18 else "dev" if place == 18 else "test"
        dealt[part].append(Document(text, f"{DATA.name}:{number}"))
    tokenizer = tokenizers.from_json(tokenizers.train(dealt["base"], 1024))
    return Material(tokenizer, {name: tokenise(some, tokenizer, LENGTH) for name, some in dealt.items()})


def trained(model: Any, samples: TokenSet, task: CausalLM, rate: float, steps: int, seed: int) -> float:
    """AdamW with 5 % warm-up and a cosine; answers the median milliseconds of a step."""
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warm = max(1, steps // 20)
    took = []
    per_epoch = len(samples) // BATCH
    for step in range(steps):
        began = time.perf_counter()
        share = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        epoch, place = divmod(step, per_epoch)
        chosen = permutation(len(samples), seed, epoch)[place * BATCH : (place + 1) * BATCH]
        batch = task.collate([samples[int(i)] for i in chosen])
        if isinstance(model, MoeLoraModel):
            with model.routing.step(batch["attention_mask"]):
                loss: Any = model.routing.balanced(model(**batch, use_cache=False).loss, 1.0)
                loss.backward()
        else:
            model(**batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def loss(model: Any, samples: TokenSet, task: CausalLM) -> float:
    """Nats per predicted token."""
    model.eval()
    total = count = 0.0
    with torch.no_grad():
        for start in range(0, len(samples), 32):
            some = [samples[i] for i in range(start, min(start + 32, len(samples)))]
            part = task.measure(model, task.collate(some), some)
            total, count = total + part.loss_sum, count + part.count
    return total / count


def one(root: Path, given: Material, task: CausalLM, arm: str, rate: float, seed: int) -> Result:
    """One adapter on the saved base."""
    document = {
        "name": arm,
        "dataset": {"path": DATA.name},
        "model": {"base": "base"},
        "adapter": Adapter.model_validate(ARMS[arm]).model_dump(exclude_none=True, exclude_unset=True),
        "reproducibility": {"seed": seed},
    }
    built = build(load_document(document, arm).manifest, root, given.tokenizer, torch.device("cpu"))
    model: Any = built.model
    took = trained(model, given.parts["train"], task, rate, STEPS, seed)
    taken = model.routing.take() if isinstance(model, MoeLoraModel) else None
    return Result(
        arm,
        rate,
        seed,
        loss(model, given.parts["dev"], task),
        loss(model, given.parts["test"], task),
        built.trainable,
        took,
        taken.load_entropy if taken is not None else None,
    )


def best(results: list[Result], arm: str) -> list[Result]:
    """The arm's results at the learning rate with the lowest mean dev loss, by seed."""
    rate = min(
        RATES, key=lambda r: statistics.mean(x.dev_loss for x in results if (x.arm, x.learning_rate) == (arm, r))
    )
    return sorted((x for x in results if (x.arm, x.learning_rate) == (arm, rate)), key=lambda x: x.seed)


def told(results: list[Result], base_loss: float) -> str:
    """The table, and the verdict that three seeds allow."""
    rows = []
    for arm in ARMS:
        found = best(results, arm)
        rows.append(
            [
                "moe-lora, 4 experts of rank 4, 2 per token" if arm == "moe-lora" else "LoRA of rank 16",
                f"{found[0].learning_rate:g}",
                ", ".join(f"{x.test_loss:.4f}" for x in found),
                f"{statistics.mean(x.test_loss for x in found):.4f}",
                f"{found[0].trainable:,}",
                f"{statistics.median(x.ms_per_step for x in found):.1f}",
            ]
        )
    pairs = [m.test_loss - x.test_loss for m, x in zip(best(results, "moe-lora"), best(results, "lora"), strict=True)]
    mean = statistics.mean(pairs)
    signs = {value > 0 for value in pairs}
    verdict = (
        "the seeds do not agree on which is better"
        if len(signs) > 1
        else f"{'LoRA' if mean > 0 else 'moe-lora'} has the lower loss with every seed"
    )
    header = ["adapter", "best learning rate", "test loss by seed", "mean", "trained weights", "ms per step"]
    return (
        rig.table(header, rows)
        + f"\nThe base alone has {base_loss:.4f}. moe-lora minus LoRA by seed: "
        + ", ".join(f"{value:+.4f}" for value in pairs)
        + f" (mean {mean:+.4f}): {verdict}. Machine: 2 shared CPU cores, one thread; losses in nats per token, "
        f"{STEPS} steps of {BATCH} documents.\n"
    )


def main() -> int:
    """Train all of them, keep the raw results, and put the table into the page."""
    torch.set_num_threads(1)
    told: Any = transformers.logging
    told.disable_progress_bar()
    if not DATA.is_file():
        print(f"{DATA} is not there: python examples/make_stdlib_qa.py", flush=True)
        return 2
    given = material()
    task = CausalLM(int(given.tokenizer.pad_token_id))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        document = {"name": "base", "dataset": {"path": DATA.name}, "model": {"config": CONFIG}}
        base: Any = build(load_document(document, "base").manifest, root, given.tokenizer, torch.device("cpu")).model
        trained(base, given.parts["base"], task, BASE_RATE, BASE_STEPS, 0)
        base.save_pretrained(root / "base")
        given.tokenizer.save_pretrained(root / "base")
        base_loss = loss(base, given.parts["test"], task)
        print(f"base: test loss {base_loss:.4f}", flush=True)
        results = []
        for rate in RATES:
            for seed in SEEDS:
                for arm in ARMS:  # one after the other, so that a busy minute of the machine meets both
                    result = one(root, given, task, arm, rate, seed)
                    results.append(result)
                    said = f"dev {result.dev_loss:.4f} test {result.test_loss:.4f}"
                    print(f"{arm} lr {rate:g} seed {seed}: {said}", flush=True)
    figures = {
        "where": "2 shared CPU cores, one thread",
        "torch": torch.__version__,
        "documents": {name: len(part) for name, part in given.parts.items()},
        "settings": {"arms": ARMS, "rates": RATES, "seeds": SEEDS, "steps": STEPS, "batch": BATCH, "base": CONFIG},
        "base_test_loss": base_loss,
        "results": [asdict(result) for result in results],
    }
    rig.keep("moe-lora", figures)
    rig.put(PAGE, "moe-lora", told(results, base_loss))
    print(told(results, base_loss))
    return 0
