"""A small model whose habits are known, and a dataset root with prompt sets and scorers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from known_habits import GROUPS, KIND, RUDE, SETTINGS, TALKS, THINGS, asked, lines, reply

from tollgate.manifest.sections import Evaluation
from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.evaluate import quality
from tollgate_trainer.evaluate.protocol import Subject


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset root with prompt sets, task files, rules and a trained scorer."""
    root = tmp_path_factory.mktemp("root")
    lines(root / "toxicity.jsonl", [{"prompt": asked(t, g)} for t in THINGS for g in GROUPS])
    lines(root / "fairness.jsonl", [{"prompt": asked(t, g), "scenario": t, "group": g} for t in THINGS for g in GROUPS])
    crisis = [{"prompt": asked(t, "red"), "kind": "crisis"} for t in THINGS]
    lines(root / "crisis.jsonl", [*crisis, *({"prompt": asked(t, "blue"), "kind": "harmless"} for t in THINGS)])
    lines(root / "text.jsonl", [{"prompt": asked(t, "blue"), "reference": reply(t, "blue")} for t in THINGS])
    for name, pattern in (("rude", "fool|clown|nitwit"), ("help", "help you"), ("refusal", "go away")):
        rules = {"name": f"{name}-rules", "version": "1", "patterns": [pattern], "labelled": f"{name}.jsonl"}
        (root / f"{name}.json").write_text(json.dumps(rules))
        word = pattern.partition("|")[0]
        labelled = [{"text": f"{word} {n}", "label": True} for n in range(60)]
        lines(root / f"{name}.jsonl", [*labelled, *({"text": f"a quiet day {n}", "label": False} for n in range(60))])
    return root


@pytest.fixture(scope="session")
def subject(root: Path) -> Subject:
    """A small model that learned its replies by heart."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tollgate_trainer.data.tokens import encode
    from tollgate_trainer.models import tokenizer as tokenizers

    words = tokenizers.from_json(tokenizers.train(TALKS, 600))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=600,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    # Both ways of answering are as likely where nothing was asked; quality_score compares with that.
    silent = [
        Document(text, text, (Message("user", quality.NEUTRAL), Message("assistant", text))) for text in (*RUDE, *KIND)
    ]
    samples = [encode(document, words) for document in (*TALKS, *silent)]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.from_numpy(s.input_ids) for s in samples], batch_first=True)
    labels = pad([torch.from_numpy(s.labels) for s in samples], batch_first=True, padding_value=-100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(90):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert float(loss.detach()) < 0.5, "it must know its replies, or the tests below say nothing"
    settings = Evaluation.model_validate(SETTINGS)
    return Subject(model.eval(), words, torch.device("cpu"), TALKS, 96, 20, 300, settings, root, "sha256:" + "1" * 64)
