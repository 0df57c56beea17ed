"""A model that was really trained, in an output folder, to be evaluated in the test's own process."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.contract import Env, LastWords
from tollgate.gates import evidence, verdict
from tollgate.manifest.loader import load_document
from tollgate_trainer.evaluate import run

TOPICS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "knoll", "marsh", "oasis")
STYLES = ("briefly", "in detail", "for a child", "with an example", "once more", "slowly", "in a poem", "as a list")
PLACES = ("north", "south", "east", "west", "coast", "border", "island", "valley")

POLICY = PromotionPolicySpec.model_validate(
    {
        "stages": [
            {
                "name": "staging",
                "checks": [
                    {"metric": "perplexity", "op": "<=", "threshold": 20, "minSamples": 20},
                    {"metric": "quality_score", "op": ">=", "threshold": 0.2, "minSamples": 20},
                ],
            }
        ]
    }
)


def conversation(topic: str, style: str, place: str) -> dict[str, Any]:
    """A question about a topic, and an answer that follows from the topic."""
    question = f"Tell me {style} about the {topic} of the {place}."
    first, second = (TOPICS[(TOPICS.index(topic) * 5 + shift) % len(TOPICS)] for shift in (3, 7))
    answer = f"It is known for {first} and for {second}, and never without {first}."
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@dataclass
class Trained:
    """An output folder with a finished model, and the environment to evaluate it."""

    root: Path
    environ: dict[str, str]

    def copy(self, root: Path) -> Trained:
        """The same in another folder."""
        shutil.copytree(self.root, root)
        old, new = str(self.root), str(root)
        return Trained(root, {name: value.replace(old, new) for name, value in self.environ.items()})

    def outcome(self) -> LastWords:
        """The last words of its evaluation."""
        words = LastWords.parse((self.root / "output" / run.OUTCOME).read_text())
        assert words is not None
        return words

    def verdicts(self) -> dict[str, str]:
        """Of each check and of the stage."""
        summary = self.outcome().evaluation
        assert summary is not None
        expected = verdict.Expected(summary.model_digest, summary.manifest_digest)
        gates = verdict.judge(POLICY, evidence.evaluation_status(summary), None, expected)
        verdicts: dict[str, str] = {check.metric: check.verdict for check in gates[0].checks}
        return verdicts | {"stage": gates[0].verdict}


def train(root: Path, steps: int) -> Trained:
    """A model that was trained for so many steps on conversations about topics, saved as the trainer does."""
    import torch

    from tollgate_trainer.data import load_documents, tokenise_documents
    from tollgate_trainer.models import finished, tokenizer
    from tollgate_trainer.models.build import build

    lines = [json.dumps(conversation(t, s, p)) for t in TOPICS for s in STYLES for p in PLACES]
    (root / "data").mkdir()
    (root / "data/talks.jsonl").write_text("\n".join(lines))
    manifest = {
        "name": "talks",
        "dataset": {"path": "talks.jsonl", "format": "chat"},
        "model": {
            "config": {
                "model_type": "llama",
                "vocab_size": 600,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
            }
        },
        "hyperparameters": {"max_seq_length": 96},
    }
    loaded = load_document(manifest, "test")
    documents = load_documents(loaded.manifest, root / "data")
    words = tokenizer.from_json(tokenizer.train(documents.train, 600))
    splits = tokenise_documents(documents, words, loaded.manifest)
    torch.manual_seed(0)
    model = build(loaded.manifest, root / "data", words, torch.device("cpu")).model
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        samples = [splits.train[(step * 16 + i) * 331 % len(splits.train)] for i in range(16)]
        rows = [torch.from_numpy(sample.input_ids) for sample in samples]
        targets = [torch.from_numpy(sample.labels) for sample in samples]
        pad = torch.nn.utils.rnn.pad_sequence
        loss = model(
            input_ids=pad(rows, batch_first=True), labels=pad(targets, batch_first=True, padding_value=-100)
        ).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    record = {"manifest_digest": loaded.digest, "dataset_digest": documents.digest, "uid": "u1"}
    digest = finished.save(model, words, root / "output", 1, record)
    (root / "manifest.json").write_bytes(loaded.canonical)
    environ = {
        Env.RUN: "talks",
        Env.UID: "u1",
        Env.ATTEMPT: "1",
        Env.MANIFEST: str(root / "manifest.json"),
        Env.MANIFEST_SHA256: loaded.digest,
        Env.DATASET_ROOT: str(root / "data"),
        Env.OUTPUT_ROOT: str(root / "output"),
        Env.MODEL_DIGEST: digest,
        Env.ROLE: "evaluate",
    }
    return Trained(root, {str(name): value for name, value in environ.items()})
