"""Adapters over plain and quantised bases: trained, saved with a reference to their base, loaded in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tollgate.manifest.loader import load_document
from tollgate_trainer.data.documents import Document
from tollgate_trainer.models import load_finished
from tollgate_trainer.models import quantised as quantisation
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import Built, build
from tollgate_trainer.models.finished import BASE_FILE, OnBase, save
from tollgate_trainer.models.moe_lora.layer import MoeLoraLinear
from tollgate_trainer.refusal import ManifestRefused, ModelRefused
from trainer_fixtures import REPOSITORY, TINY_LLAMA, WORDS, manifest

CPU = torch.device("cpu")
DOCUMENTS = [Document(f"the {a} of the {b}", "here") for a in WORDS for b in WORDS[:6]]
RECORD = {"manifest_digest": "sha256:m", "dataset_digest": "sha256:d"}
IDS = torch.arange(24).reshape(2, 12)
COMMIT = "0123456789abcdef0123456789abcdef01234567"

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rslora": ("none", {"type": "lora", "rslora": True}),
    "dora": ("none", {"type": "lora", "dora": True}),
    "moe-lora": ("none", {"type": "moe-lora"}),
    "lora over nf4": ("nf4", {"type": "lora"}),
    "dora over nf4": ("nf4", {"type": "lora", "dora": True}),
    "lora over int8": ("int8", {"type": "lora"}),
    "moe-lora over nf4": ("nf4", {"type": "moe-lora"}),
    "moe-lora over int8": ("int8", {"type": "moe-lora"}),
}


@dataclass(frozen=True)
class Place:
    """A base on the disk (in a folder, and in a hub's cache), and trained adapters of each kind."""

    root: Path
    tokenizer: Any
    logits: dict[str, torch.Tensor]
    losses: dict[str, list[float]]

    def model(self, kind: str) -> Path:
        return self.root / "runs" / kind.replace(" ", "-") / "model"


def asked(quantization: str, adapter: dict[str, Any], **changes: Any) -> Any:
    changes.setdefault("model", {"config": None, "base": "base", "quantization": quantization})
    return load_document(manifest(adapter={"rank": 4, **adapter}, **changes), "test").manifest


def trained(built: Built, steps: int = 3) -> list[float]:
    """A few steps of AdamW; the loss of each."""
    model: Any = built.model
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("adapters")
    tokenizer = tokenizers.from_json(tokenizers.train(DOCUMENTS, 600))
    plain: Any = build(load_document(manifest(), "test").manifest, root, tokenizer, CPU).model
    cached = root / "hub" / "models--org--small"
    for folder in (root / "base", cached / "snapshots" / COMMIT):
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (cached / "refs").mkdir()
    (cached / "refs" / "v1").write_text(COMMIT)
    found = Place(root, tokenizer, {}, {})
    for kind, (quantization, adapter) in KINDS.items():
        built = build(asked(quantization, adapter), root, tokenizer, CPU)
        found.losses[kind] = trained(built)
        assert built.base_digest is not None
        base = OnBase(built.source, "base", built.base_digest, quantization)  # type: ignore[arg-type]
        save(built.model, tokenizer, found.model(kind).parent, 1, RECORD, base)
        found.logits[kind] = logits(built.model)
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(place: Place, kind: str) -> None:
    first, *_, last = place.losses[kind]
    assert last < first - 0.1


FRESH = """
import json, sys, torch
from pathlib import Path
from tollgate_trainer.models import load_finished
torch.set_num_threads(1)
root, kinds = Path(sys.argv[1]), json.loads(sys.argv[2])
found = {}
for kind, folder in kinds.items():
    model, _ = load_finished(Path(folder), root)
    with torch.no_grad():
        found[kind] = model(input_ids=torch.arange(24).reshape(2, 12), use_cache=False).logits
torch.save(found, root / "fresh.pt")
"""


def fresh(root: Path, code: str, *arguments: str, **more: str) -> str:
    """The output of a new process."""
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("core", "trainer", "tests"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        timeout=240,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def reloaded(place: Place) -> dict[str, torch.Tensor]:
    """What the saved adapters answer in one fresh process."""
    fresh(place.root, FRESH, json.dumps({kind: str(place.model(kind)) for kind in KINDS}))
    found: dict[str, torch.Tensor] = torch.load(place.root / "fresh.pt")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_fresh_process_it_answers_bit_for_bit_as_after_training(
    place: Place, reloaded: dict[str, torch.Tensor], kind: str
) -> None:
    assert torch.equal(reloaded[kind], place.logits[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_it_refers_to_its_base_and_how_that_was_quantised(place: Place, kind: str) -> None:
    reference = json.loads((place.model(kind) / BASE_FILE).read_text())
    assert reference["base"] == "base"
    assert reference["quantization"] == KINDS[kind][0]
    assert not list(place.model(kind).glob("model*.safetensors"))


def test_a_reference_of_an_earlier_version_has_a_plain_base(place: Place, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(place.model("rslora"), copy)
    reference = json.loads((copy / BASE_FILE).read_text())
    del reference["quantization"]
    (copy / BASE_FILE).write_text(json.dumps(reference))
    model, _ = load_finished(copy)
    assert torch.allclose(logits(model), place.logits["rslora"], atol=1e-6)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_the_experts_stand_over_the_quantised_layers_and_only_they_have_gradients(
    place: Place, quantization: str
) -> None:
    model: Any = build(asked(quantization, {"type": "moe-lora"}), place.root, place.tokenizer, CPU).model
    layers = [part for part in model.modules() if isinstance(part, MoeLoraLinear)]
    assert {type(layer.base_layer).__name__ for layer in layers} == {
        {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[quantization]
    }
    assert all(layer.lora_router["default"].weight.dtype == torch.float32 for layer in layers)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
        "lora_router",
    }


@pytest.mark.parametrize("kind", ["lora over nf4", "dora over nf4", "lora over int8", "moe-lora over nf4"])
def test_after_an_evaluation_the_gradients_are_what_they_were_before(place: Place, kind: str) -> None:
    """A 4-bit layer that was packed for evaluation would pass no gradient on, and only warn."""
    quantization, adapter = KINDS[kind]
    model: Any = build(asked(quantization, adapter), place.root, place.tokenizer, CPU).model

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        model.train()
        model.zero_grad()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    before = gradients()
    assert any("layers.0." in name and float(grad.abs().max()) > 0 for name, grad in before.items())
    logits(model)
    after = gradients()
    assert before.keys() == after.keys()
    assert all(torch.equal(grad, after[name]) for name, grad in before.items())


@pytest.mark.parametrize("kind", ["rslora", "moe-lora", "lora over nf4", "moe-lora over int8"])
def test_gradient_checkpointing_reaches_the_first_layers_adapter(place: Place, kind: str) -> None:
    quantization, adapter = KINDS[kind]
    document = asked(quantization, adapter, hyperparameters={"gradient_checkpointing": True})
    model: Any = build(document, place.root, place.tokenizer, CPU).model
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    first = {name: p.grad for name, p in model.named_parameters() if "layers.0." in name and "lora_B" in name}
    assert len(first) == 7
    assert all(grad is not None and float(grad.abs().max()) > 0 for grad in first.values())


def test_experts_on_weights_that_lie_in_no_file_bring_them_along(place: Place, tmp_path: Path) -> None:
    document = asked("none", {"type": "moe-lora"}, model={"config": dict(TINY_LLAMA)})
    built = build(document, tmp_path, place.tokenizer, CPU)
    trained(built)
    expected = logits(built.model)
    assert built.base_digest is not None
    save(built.model, place.tokenizer, tmp_path, 1, RECORD, OnBase(built.source, None, built.base_digest))
    moved = tmp_path / "elsewhere"
    (tmp_path / "model").rename(moved)
    model, _ = load_finished(moved)
    assert torch.equal(logits(model), expected)
    (moved / "base" / "config.json").write_text("{}")
    with pytest.raises(ModelRefused, match="restore that one"):
        load_finished(moved)


def test_without_bitsandbytes_a_quantised_base_is_refused_with_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ManifestRefused, match="extra `gpu`") as refused:
        build(asked("nf4", {"type": "lora"}), place.root, place.tokenizer, CPU)
    assert refused.value.field == "model.quantization"


def test_a_process_that_gets_its_shards_from_the_first_loads_no_weights(place: Place) -> None:
    built = build(asked("none", {"type": "lora"}), place.root, place.tokenizer, CPU, empty=True)
    assert all(parameter.is_meta for parameter in built.model.parameters())
    whole = build(asked("none", {"type": "lora"}), place.root, place.tokenizer, CPU)
    assert (built.parameters, built.trainable) == (whole.parameters, whole.trainable)
    assert not any(parameter.is_meta for parameter in whole.model.parameters())


FROM_A_HUB = """
import sys, torch
from pathlib import Path
from tollgate.manifest.loader import load_document
from tollgate_trainer.models import load_finished, tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.models.finished import OnBase, save
from tollgate_trainer.models.source import tokenizer_source
from trainer_fixtures import manifest
torch.set_num_threads(1)
root = Path(sys.argv[1])
asked = load_document(manifest(
    model={"config": None, "base": "org/small", "revision": "v1"}, adapter={"type": "moe-lora", "rank": 4}
), "test").manifest
tokenizer = tokenizers.load(tokenizer_source(asked, root))
built = build(asked, root, tokenizer, torch.device("cpu"))
print(built.base_digest)
out = root / "from-hub"
save(built.model, tokenizer, out, 1, {"manifest_digest": "m", "dataset_digest": "d"},
     OnBase(built.source, asked.model.base, built.base_digest))
model, _ = load_finished(out / "model")
ids = torch.arange(24).reshape(2, 12)
with torch.no_grad():
    print(torch.equal(model(input_ids=ids).logits, built.model.eval()(input_ids=ids).logits))
"""


def test_a_hubs_model_comes_from_the_cache_without_a_network_and_is_pinned_to_its_commit(place: Place) -> None:
    told = fresh(place.root, FROM_A_HUB, HF_HUB_CACHE=str(place.root / "hub"), HF_HUB_OFFLINE="1").splitlines()
    assert told[-2:] == [f"hub:org/small@{COMMIT}", "True"]
    reference = json.loads((place.root / "from-hub" / "model" / BASE_FILE).read_text())
    assert reference["revision"] == COMMIT
