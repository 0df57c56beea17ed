"""A manifest to start from, fitted to a data file: its format, a length that holds its documents, a batch to match.

The counting is done by `tollgate dataset analyze` in a process of its own, because the trainer's packages are not the
CLI's.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate.manifest.loader import load_bytes
from tollgate.manifest.writing import to_yaml
from tollgate_cli.errors import UserError

TABLES = ("classification", "span", "joint")
LONGEST = 4096
TOKENS_PER_BATCH = 4096
"""Of a micro-batch: what a laptop's memory holds with a small model. A larger batch comes from accumulation."""

ASKED, HELD_OUT = 200, 240
"""Documents that a gate of the standard policy asks for (minSamples of perplexity, accuracy and the like), and how many
to hold out so that a split by hash, which is off by about its root, leaves as many."""
MOST_HELD_OUT = 2000
"""Beyond it intervals hardly shrink, and each evaluation costs time."""
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 512, 8192
"""What the trainer takes, and what it trains at most where nobody says."""
LINES_PER_RUN = 25


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted. p95, most: tokens per document; vocabulary: entries of the tokenizer that counted."""

    format: str
    documents: int
    p95: int
    most: int
    duplicates: int
    counted: str
    vocabulary: int = LARGEST_VOCABULARY


@dataclass(frozen=True, slots=True)
class Said:
    """What the person says about the data: the format, and the names of its fields; None: as the trainer finds it."""

    format: str | None = None
    text_field: str | None = None
    label_field: str | None = None

    @property
    def known_format(self) -> str | None:
        """A text and a label are a classification, where nobody says otherwise."""
        return self.format or ("classification" if self.label_field is not None else None)

    def options(self) -> list[str]:
        """As `tollgate dataset` takes them."""
        given = {"--format": self.known_format, "--text-field": self.text_field, "--label-field": self.label_field}
        return [word for name, value in given.items() if value is not None for word in (name, value)]

    def lines(self) -> list[str]:
        """As the manifest's section `dataset` says them; the format is written by whoever knows it."""
        given = {"text_field": self.text_field, "label_field": self.label_field}
        return [line for name, value in given.items() if value is not None for line in _yaml({name: value}, "  ")]


NOTHING_SAID = Said()


def fitted(data: Path, manifest: Path, base: str | None, said: Said = NOTHING_SAID) -> str:
    """The text of a manifest for `data` that will lie at `manifest`; it was loaded once, so it is valid.

    Args: base: a folder with a model, relative to the manifest's folder; None starts from scratch.
    said: about the data.
    Raises: UserError when the data cannot be read or lies outside the manifest's folder.
    """
    home = manifest.resolve().parent
    try:
        relative = data.resolve().relative_to(home).as_posix()
    except ValueError as error:
        raise UserError(
            f"{data} does not lie below {home}, and a manifest's paths may not leave its folder. Write the manifest "
            "beside or above the data."
        ) from error
    tokenizer = None if base is None else home / base
    if tokenizer is not None and not tokenizer.is_dir():
        raise UserError(f"--base {base}: there is no folder {tokenizer}. Name it relative to the manifest's folder.")
    figures = count(data, tokenizer, said)
    text = written(relative, manifest.stem, figures, base, said)
    load_bytes(text.encode(), str(manifest))
    return text


def count(data: Path, tokenizer: Path | None, said: Said = NOTHING_SAID) -> Figures:
    """Raises: UserError with the command's own words."""
    command = [
        sys.executable,
        "-m",
        "tollgate_cli.main",
        "dataset",
        "analyze",
        str(data),
        "-o",
        "json",
        *said.options(),
    ]
    if tokenizer is not None:
        command += ["--tokenizer", str(tokenizer)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    if done.returncode != 0:
        words = (
            done.stderr.strip().removeprefix("Error: ") or f"`tollgate dataset analyze` ended with {done.returncode}"
        )
        if words.startswith("dataset."):
            check = shlex.join(["tollgate", "dataset", "validate", str(data), *said.options()])
            words += f"\nAll problems at once: {check}"
        raise UserError(words)
    document: dict[str, Any] = json.loads(done.stdout)
    part = document["parts"]["data"]
    lengths = part["lengths"]
    return Figures(
        format=document["format"],
        documents=lengths["count"],
        p95=lengths["p95"],
        most=lengths["most"],
        duplicates=part["duplicates"]["normalised"],
        counted=document["counted"],
        vocabulary=document["vocabulary"],
    )


def length_for(p95: int, most: int) -> int:
    """max_seq_length: all documents where the longest is not far beyond the rest, else 95 of 100; a multiple of 16."""
    wanted = most if most <= 1.5 * p95 else p95
    return min(max(-(-wanted // 16) * 16, 32), LONGEST)


def held_out_of(documents: int) -> float:
    """The share to hold out: what a gate can decide on, 5 % of much data up to a bound, never more than 30 %."""
    wanted = max(HELD_OUT, min(0.05 * documents, MOST_HELD_OUT))
    return min(math.ceil(1000 * wanted / documents) / 1000, 0.3) if documents else 0.3


def vocabulary_for(entries: int) -> int:
    """vocab_size for a tokenizer that has so many entries when it is trained on all of the data; a multiple of 64."""
    return min(max(-(-entries // 64) * 64, SMALLEST_VOCABULARY), LARGEST_VOCABULARY)


def batch_for(length: int, documents: int) -> tuple[int, int]:
    """(micro-batch, accumulation): powers of two; about 16 documents a step, fewer where there are few documents."""
    together = 16 if documents >= 500 else 8 if documents >= 100 else 4
    micro = 1
    while micro < together and 2 * micro * length <= TOKENS_PER_BATCH:
        micro *= 2
    return micro, together // micro


def written(path: str, name: str, figures: Figures, base: str | None, said: Said = NOTHING_SAID) -> str:
    """The manifest as YAML with comments. path: of the data, relative; name: of the model."""
    task = figures.format if figures.format in TABLES else "causal-lm"
    length = length_for(figures.p95, figures.most)
    micro, accumulation = batch_for(length, figures.documents)
    held_out = held_out_of(figures.documents)
    tests = round(held_out * figures.documents)
    epochs = 1 if figures.documents > 20_000 else 3
    steps = max(round(figures.documents * (1 - held_out) / (micro * accumulation)), 1)
    twice = f"; {figures.duplicates:,} of them repeat another one" if figures.duplicates else ""
    lines = [
        f"# {figures.documents:,} documents, 95 of 100 have at most {figures.p95:,} tokens, the longest "
        f"{figures.most:,}{twice}.",
        f"# {figures.counted}",
        *_few(tests),
        "# All fields: docs/reference/manifest.md. Next: tollgate dataset preview, then tollgate run.",
        *_yaml({"name": name if name != "manifest" else _stem(path)}),
        *([f"task: {task}"] if task != "causal-lm" else []),
        "",
        "dataset:",
        *_yaml({"path": path}, "  "),
        f"  format: {figures.format}",
        *said.lines(),
        "  splits:",
        f"    validation: {held_out}             # about {tests:,} documents, by a hash of the text, never trained on",
        "",
        *_model(base, vocabulary_for(figures.vocabulary)),
        "",
        "hyperparameters:",
        f"  max_seq_length: {length}",
        f"  per_device_train_batch_size: {micro}",
        f"  gradient_accumulation_steps: {accumulation}   # about {steps:,} steps an epoch",
        f"  num_train_epochs: {epochs}",
        f"  learning_rate: {_rate(base)}",
        "  warmup_ratio: 0.03",
        "  scheduler: {name: cosine}",
        f"  eval_steps: {max(steps // 2, 1)}",
        f"  logging_steps: {min(-(-steps * epochs // LINES_PER_RUN), 50)}",
    ]
    if task in ("span", "joint"):
        lines += ["", "span:", f"  doc_stride: {min(128, length // 4)}          # what neighbouring windows share"]
    lines += [
        "",
        "reproducibility: {seed: 42}",
        "",
        "checkpoint:",
        "  every_minutes: 10           # an interrupted run goes on from its newest valid checkpoint",
        "",
        "compute_target: cpu           # cpu | gpu_single | gpu_multi | cloud_gpu",
    ]
    return "\n".join(lines) + "\n"


def _few(tests: int) -> list[str]:
    """What to know where less is held out than gates ask for."""
    if tests >= ASKED:
        return []
    return [
        f"# Only about {tests:,} can be held out. A gate that asks for {ASKED} samples stays Inconclusive: find more,",
        "# or ask for fewer (minSamples of the policy), which decides only what is far from its threshold.",
    ]


def _model(base: str | None, vocabulary: int) -> list[str]:
    if base is not None:
        return [
            "model:",
            *_yaml({"base": base}, "  "),
            "",
            "adapter:",
            "  type: lora                  # none trains all weights",
            "  rank: 16",
            "  alpha: 32",
        ]
    return [
        "model:                        # from scratch; `base: FOLDER` in its place goes on from a trained model",
        "  config:",
        "    model_type: llama",
        f"    vocab_size: {vocabulary:<18}# of a tokenizer that is trained on the data",
        "    hidden_size: 256",
        "    intermediate_size: 688",
        "    num_hidden_layers: 4",
        "    num_attention_heads: 4",
        "    num_key_value_heads: 4",
        "    max_position_embeddings: 4096",
    ]


def _rate(base: str | None) -> str:
    """Usual starting points: LoRA 2e-4, a small model from scratch 1e-3."""
    return "2e-4" if base is not None else "1e-3"


def _stem(path: str) -> str:
    return Path(path).stem


def _yaml(document: dict[str, Any], indent: str = "") -> list[str]:
    """One pair, quoted where some reader would take it for something else."""
    return [indent + line for line in to_yaml(document).splitlines()]
