"""Adapters in real trainings: resumed bit for bit, over plain and quantised bases, and loaded as they were trained."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from tollgate.contract import Env, Outcome, TrainMetric
from tollgate_trainer.data.documents import Document
from tollgate_trainer.models import load_finished
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.models.moe_lora.config import CONFIG_FILE, WEIGHTS_FILE
from trainer_fixtures import WORDS, Gang, ended, free_port, gang, wait_for

pytestmark = pytest.mark.e2e

MOE = {"type": "moe-lora", "rank": 4, "alpha": 8, "dropout": 0.1}
LORA = {"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
STEPS = {"max_steps": 10, "save_steps": 5, "eval_steps": 50, "gradient_checkpointing": True}


def with_base(root: Path, quantization: str, **changes: Any) -> Gang:
    """A run over a small base in a folder of the dataset."""
    run = gang(root, **changes)
    documents = [Document(f"the {a} of the {b}", "here") for a in WORDS for b in WORDS[:6]]
    tokenizer = tokenizers.from_json(tokenizers.train(documents, 600))
    from tollgate.manifest.training_manifest import TrainingManifest
    from trainer_fixtures import manifest

    plain: Any = build(TrainingManifest.model_validate(manifest()), root, tokenizer, torch.device("cpu")).model
    plain.save_pretrained(root / "data" / "base")
    tokenizer.save_pretrained(root / "data" / "base")
    run.document["model"] = {"base": "base", "quantization": quantization}
    return run


def completed(run: Gang, attempt: int) -> str:
    code, output = run.run(attempt)
    assert code == 0, output
    words = run.words(attempt)
    assert words.outcome is Outcome.COMPLETED
    assert words.model is not None
    return words.model.digest


@pytest.mark.parametrize(
    ("quantization", "adapter"),
    [
        pytest.param("nf4", MOE, id="moe-lora over nf4"),
        pytest.param("none", MOE, id="moe-lora", marks=pytest.mark.full),
        pytest.param("int8", MOE, id="moe-lora over int8", marks=pytest.mark.full),
        pytest.param("nf4", LORA, id="lora over nf4", marks=pytest.mark.full),
        pytest.param("int8", LORA, id="lora over int8", marks=pytest.mark.full),
        pytest.param("none", LORA | {"dora": True, "rslora": True}, id="dora", marks=pytest.mark.full),
        pytest.param("nf4", LORA | {"dora": True}, id="dora over nf4", marks=pytest.mark.full),
    ],
)
def test_a_resumed_adapter_is_bit_equal_and_is_loaded_as_it_was_trained(
    tmp_path: Path, quantization: str, adapter: dict[str, Any]
) -> None:
    run = with_base(tmp_path, quantization, adapter=adapter, hyperparameters=STEPS)
    digest = completed(run, 1)
    expected = run.losses(1)
    shutil.rmtree(run.output / "model")
    shutil.rmtree(run.output / "checkpoints" / "checkpoint-10")
    assert completed(run, 2) == digest
    assert run.losses(2) == {step: loss for step, loss in expected.items() if step > 5}
    assert [event["equality"] for event in run.events("restore")] == ["bit-equal"]
    model, tokenizer = load_finished(run.output / "model")
    with torch.no_grad():
        assert torch.isfinite(model(**tokenizer("the gate of the road", return_tensors="pt")).logits).all()
    if adapter["type"] == "moe-lora":
        found = {path.name for path in (run.output / "model").iterdir()}
        assert {CONFIG_FILE, WEIGHTS_FILE} <= found
        assert "adapter_config.json" not in found
        told = run.events("experts")[-1]
        assert len(told["usage"]) == 14
        assert all(sum(usage) == pytest.approx(1.0, abs=1e-3) for usage in told["usage"].values())
        assert 0 < told["routing_entropy"] <= 1


@pytest.mark.full
def test_how_experts_are_used_is_scraped_and_logged_alike(tmp_path: Path) -> None:
    port = free_port()
    steps = {"max_steps": 4000, "save_steps": 4000, "eval_steps": 4000}
    run = with_base(tmp_path, "none", adapter=MOE | {"experts": 3}, hyperparameters=steps)
    with ended(run.start(1, **{Env.POD_IP: "127.0.0.1", Env.METRICS_PORT: str(port)})):

        def usage() -> list[str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                return []
            return [line for line in text.splitlines() if line.startswith(TrainMetric.EXPERT_USAGE)]

        lines = wait_for(usage)
        assert len(lines) == 14 * 3
        assert all('layer="model.layers.' in line and 'expert="' in line for line in lines)
    assert json.dumps(run.events("experts")[0]["usage"])
