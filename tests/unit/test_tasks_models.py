"""Models with heads: made, trained a little, saved, loaded again by us and by the library alone, and evaluated."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import Documents, load_documents
from tollgate_trainer.evaluate import classification, intervals, joint, span, suites
from tollgate_trainer.evaluate.intervals import UnmeasuredError
from tollgate_trainer.evaluate.perplexity import Perplexity
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.models import load_finished
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import Built, build
from tollgate_trainer.models.finished import OnBase, save
from tollgate_trainer.models.heads import read_task
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ManifestRefused, ModelRefused
from tollgate_trainer.tasks.choose import task_for, task_of
from tollgate_trainer.tasks.inputs import Inputs
from trainer_fixtures import TINY_BERT, TINY_LLAMA, WORDS, write_answers

CPU = torch.device("cpu")
LORA = {"type": "lora", "rank": 4, "alpha": 8}


@dataclass
class Made:
    """A run without its loop."""

    root: Path
    manifest: TrainingManifest
    documents: Documents
    tokenizer: Any
    task: Any
    splits: Any
    built: Built

    def step(self, count: int = 1) -> None:
        """Train a little; every trained weight has to get a gradient."""
        model: Any = self.built.model
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimiser = torch.optim.AdamW(trained.values(), lr=3e-3)
        model.train()
        for number in range(count):
            batch = [self.splits.train[(number * 16 + i) % len(self.splits.train)] for i in range(16)]
            model(**self.task.collate(batch)).loss.backward()
            missing = [name for name, p in trained.items() if p.grad is None]
            assert not missing, f"no gradient reaches {missing}"
            optimiser.step()
            optimiser.zero_grad()
        model.eval()

    def save(self, folder: str = "out") -> Path:
        """The finished model."""
        digest = self.built.base_digest
        base = OnBase(self.built.source, self.manifest.model.base, digest) if digest else None
        (self.root / folder).mkdir(exist_ok=True)
        record = {"manifest_digest": "m", "dataset_digest": "d"}
        save(self.built.model, self.tokenizer, self.root / folder, 1, record, base, self.task.document({}))
        return self.root / folder / "model"

    def outputs(self, model: Any, task: Any = None) -> dict[str, torch.Tensor]:
        """What the model says about the first held-out samples."""
        samples = [self.splits.validation[i] for i in range(8)]
        batch = (task or self.task).collate(samples)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        with torch.no_grad():
            given = model(**inputs)
        names = ("logits", "start_logits", "end_logits")
        return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


def make(root: Path, task: str, model: dict[str, Any], adapter: dict[str, Any] | None = None, **more: Any) -> Made:
    """A run's parts, from a manifest as a person writes it."""
    root.mkdir(exist_ok=True)
    write_answers(root / "data.jsonl")
    document = {
        "name": "tiny",
        "task": task,
        "dataset": {"path": "data.jsonl", "splits": {"validation": 0.3}},
        "model": model,
        "adapter": adapter or {"type": "none"},
        "hyperparameters": {"max_seq_length": 48},
        **({} if task == "classification" else {"span": {"doc_stride": 12}}),
        **more,
    }
    manifest = load_document(document, "test").manifest
    documents = load_documents(manifest, root)
    given = manifest.model.tokenizer or manifest.model.base
    tokenizer: Any = (
        AutoTokenizer.from_pretrained(root / given)
        if given
        else tokenizers.from_json(tokenizers.train(documents.train, 600))
    )
    chosen = task_for(manifest, documents, tokenizer, root)
    splits = chosen.encode(documents, tokenizer, manifest)
    return Made(
        root, manifest, documents, tokenizer, chosen, splits, build(manifest, root, tokenizer, CPU, chosen.head)
    )


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.allclose(first[n], second[n], atol=1e-5) for n in first)


@pytest.mark.parametrize("task", ["classification", "span", "joint"])
@pytest.mark.parametrize("config", [TINY_BERT, TINY_LLAMA], ids=["bert", "llama"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_what_was_trained_is_what_a_saved_model_says(
    tmp_path: Path, task: str, config: dict[str, Any], adapter: dict[str, Any] | None
) -> None:
    made = make(tmp_path, task, {"config": config}, adapter)
    made.step(2)
    before = made.outputs(made.built.model)
    folder = made.save()
    loaded, tokenizer = load_finished(folder)
    again = task_of(read_task(folder) or {}, tokenizer)
    assert same(made.outputs(loaded, again), before)
    assert again.document({}) == made.task.document({})


@pytest.mark.parametrize(
    ("task", "auto"),
    [("classification", AutoModelForSequenceClassification), ("span", AutoModelForQuestionAnswering)],
)
def test_the_folder_serves_who_has_only_the_library(tmp_path: Path, task: str, auto: Any) -> None:
    made = make(tmp_path, task, {"config": TINY_BERT})
    made.step()
    folder = made.save()
    plain, tokenizer = auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert same(made.outputs(plain), made.outputs(made.built.model))
    if task == "classification":
        assert plain.config.id2label == {0: "none", 1: "x", 2: "y"}
        document = made.splits.validation.documents[0]
        given = tokenizer(document.text, truncation=True, max_length=48)
        assert given["input_ids"] == list(made.splits.validation[0].input_ids)
    else:
        first = made.splits.validation[0]
        document = made.splits.validation.documents[0]
        given = tokenizer(document.question, document.text, truncation="only_second", max_length=48)
        assert given["input_ids"] == list(first.input_ids)
        assert given["token_type_ids"] == list(first.segments)


def test_an_adapter_on_a_saved_base_brings_its_head_and_needs_no_head_in_the_base(tmp_path: Path) -> None:
    root = tmp_path / "run"
    base = make(root, "classification", {"config": TINY_BERT})
    bare: Any = base.built.model
    bare.base_model.save_pretrained(root / "base")
    base.tokenizer.save_pretrained(root / "base")
    for task in ("classification", "span", "joint"):
        made = make(root, task, {"base": "base"}, LORA)
        made.step(2)
        before = made.outputs(made.built.model)
        folder = made.save(f"out-{task}")
        assert not (folder / "model.safetensors").exists()
        loaded, _ = load_finished(folder, root)
        assert same(made.outputs(loaded), before), task


def test_a_base_made_for_other_classes_gets_a_new_head(tmp_path: Path) -> None:
    root = tmp_path / "run"
    made = make(root, "classification", {"config": TINY_BERT})
    made.save()
    (root / "out/model").rename(root / "base")
    rows = [json.loads(line) for line in (root / "data.jsonl").read_text().splitlines()]
    two = [row | {"label": "no" if row["label"] == "none" else "yes"} for row in rows]
    (root / "two.jsonl").write_text("\n".join(map(json.dumps, two)))
    again = make(root, "classification", {"base": "base"}, dataset={"path": "two.jsonl", "splits": {"validation": 0.3}})
    model: Any = again.built.model
    assert model.classifier.out_features == 2
    embeddings: Any = made.built.model
    assert torch.equal(model.get_input_embeddings().weight, embeddings.get_input_embeddings().weight)


def test_two_encoders_are_twice_the_weights_and_the_weights_of_the_losses_count(tmp_path: Path) -> None:
    one = make(tmp_path, "joint", {"config": TINY_BERT})
    two = make(tmp_path, "joint", {"config": TINY_BERT}, joint={"encoders": "two", "span_weight": 0.5})
    heads = 64 * 3 + 3 + 64 * 2 + 2
    assert two.built.parameters - heads == 2 * (one.built.parameters - heads)
    model: Any = two.built.model.eval()
    batch = two.task.collate([two.splits.train[i] for i in range(8)])
    with torch.no_grad():
        whole = model(**batch)
        parts = two.task.measure(model, batch, [two.splits.train[i] for i in range(8)])
    each = torch.nn.functional.cross_entropy(whole.logits, batch["labels"], reduction="none")
    weights = batch["label_weights"]
    spans = [
        torch.nn.functional.cross_entropy(whole.start_logits, batch["start_positions"]),
        torch.nn.functional.cross_entropy(whole.end_logits, batch["end_positions"]),
    ]
    expected = (each * weights).sum() / weights.sum() + 0.5 * sum(spans) / 2
    assert float(whole.loss) == pytest.approx(float(expected), rel=1e-5)
    assert parts.loss_sum / 8 == pytest.approx(float(each.mean() + 0.5 * sum(spans) / 2), rel=1e-5)


@pytest.mark.parametrize("task", ["classification", "span"])
def test_a_tokenizer_that_was_saved_and_loaded_is_saved_as_the_same(tmp_path: Path, task: str) -> None:
    made = make(tmp_path, task, {"config": TINY_BERT}, hyperparameters={"max_seq_length": 40})
    assert max(made.splits.train.lengths) == 40, "no text was cut, so nothing is shown"
    made.tokenizer.save_pretrained(tmp_path / "first")
    again: Any = tokenizers.load(Source(folder=tmp_path / "first"))
    task_for(made.manifest, made.documents, again, tmp_path).encode(made.documents, again, made.manifest)
    again.save_pretrained(tmp_path / "second")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_more_tokens_than_the_model_has_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"max_seq_length: the model has 32 positions.* 48 tokens"):
        make(tmp_path, "classification", {"config": {**TINY_BERT, "max_position_embeddings": 32}})


def test_a_model_of_encoder_and_decoder_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "t5", "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "d_kv": 16}
    with pytest.raises(ModelRefused, match="t5 is an encoder and a decoder"):
        make(tmp_path, "classification", {"config": {**config, "vocab_size": 600}})


# --- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hyperparameters": {"packing": True}}, "hyperparameters.packing"),
        ({"dataset": {"path": "d", "format": "chat"}}, "dataset.format"),
        ({"evaluation": {"suites": ["standard"]}}, "evaluation.suites"),
        ({"span": {"doc_stride": 32}}, "span"),
        ({"task": "span", "span": {"doc_stride": 512}}, "span.doc_stride"),
        ({"task": "joint", "joint": {"classification_weight": 0, "span_weight": 0}}, "joint.span_weight"),
        ({"task": "causal-lm", "evaluation": {"suites": ["classification"]}}, "evaluation.suites"),
        ({"adapter": {"type": "lora", "target_modules": ["query", "classifier"]}}, "adapter.target_modules"),
    ],
)
def test_what_a_task_cannot_have_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    document = {"name": "n", "task": "classification", "dataset": {"path": "d"}, **changes}
    with pytest.raises(ManifestError) as refused:
        load_document(document, "test")
    assert {problem.field for problem in refused.value.problems} == {field}


@pytest.mark.parametrize(
    ("task", "suite"), [("causal-lm", "standard"), ("classification", "classification"), ("span", "span")]
)
def test_the_suites_follow_the_task(task: str, suite: str) -> None:
    manifest = load_document({"name": "n", "task": task, "dataset": {"path": "d"}}, "test").manifest
    assert manifest.suites == (suite,)
    assert suites.tasks(manifest.suites)


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """A finished model of a task, ready to be evaluated; made once."""
    made: dict[str, Subject] = {}

    def subject(task: str) -> Subject:
        if task not in made:
            run = make(tmp_path_factory.mktemp(task), task, {"config": TINY_BERT})
            run.step(25)
            model, tokenizer = load_finished(run.save())
            made[task] = Subject(model, tokenizer, CPU, run.documents.validation, 48, 20, 2000)
        return made[task]

    return subject


def test_the_evaluation_counts_what_the_model_says_about_each_document(trained: Callable[[str], Subject]) -> None:
    subject = trained("classification")
    found = {one.metric: one for one in classification.Classification().measure(subject)}
    task = task_of(subject.model.config.tollgate_task, subject.tokenizer)  # type: ignore[attr-defined]
    right = 0
    for document in subject.held_out:
        sample = task.samples([document], subject.tokenizer)[0]  # type: ignore[union-attr]
        with torch.no_grad():
            ids, segments = (torch.tensor(part)[None] for part in (sample.input_ids, sample.segments))
            logits = subject.model(input_ids=ids, token_type_ids=segments).logits
        right += ["none", "x", "y"][int(logits.argmax())] == document.label
    accuracy = intervals.metric(found["accuracy"], 0.95, 1)
    assert accuracy.value == pytest.approx(right / len(subject.held_out))
    assert found["accuracy"].detail is not None
    document = found["accuracy"].detail.document
    assert sum(map(sum, document["confusion"])) == len(subject.held_out) == document["documents"]
    assert sum(document["confusion"][i][i] for i in range(3)) == right
    assert len(document["worst"]) == min(20, len(subject.held_out) - right)
    macro = intervals.metric(found["macro_f1"], 0.95, 1)
    assert macro.lower is not None
    assert macro.upper is not None
    assert macro.lower <= macro.value <= macro.upper


def test_spans_and_both_are_measured_with_their_own_threshold(trained: Callable[[str], Subject]) -> None:
    found = {one.metric: one for one in joint.Joint().measure(trained("joint"))}
    assert found.keys() == {
        *("accuracy", "macro_f1", "macro_precision", "macro_recall"),
        *("exact_match", "token_f1", "no_answer_accuracy"),
    }
    alone = {one.metric: one for one in span.Span().measure(trained("joint"))}
    for name in alone:
        assert intervals.metric(alone[name], 0.95, 1) == intervals.metric(found[name], 0.95, 1)
    detail = found["accuracy"].detail
    assert detail is not None
    assert json.loads(json.dumps(detail.document))["span"]["threshold"] == 0.0
    assert "not chosen: too few held-out documents" in "\n".join(detail.lines)


def test_a_metric_of_another_task_is_an_error_and_undefined_is_said(trained: Callable[[str], Subject]) -> None:
    subject = trained("classification")
    with pytest.raises(ManifestRefused, match="span measures models of task span or joint"):
        span.Span().measure(subject)
    some = [document for document in subject.held_out if document.label != "x"]
    fewer = Subject(subject.model, subject.tokenizer, CPU, some, 48, 20, 2000)
    with pytest.raises(UnmeasuredError, match="no held-out document of 'x'"):
        classification.Auroc().measure(fewer)
    assert 0 <= intervals.metric(classification.Auroc().measure(subject), 0.95, 1).value <= 1
    assert Perplexity.name in {name for suite in suites.SUITES.values() for name in suite.evaluators}


def test_several_questions_about_one_text_are_one_unit(trained: Callable[[str], Subject]) -> None:
    subject = trained("joint")
    chance = random.Random(1)
    more = [replace(one, question=f"what can the {chance.choice(WORDS)} do now?") for one in subject.held_out]
    twice = Subject(subject.model, subject.tokenizer, CPU, [*subject.held_out, *more], 48, 20, 2000)
    found = {one.metric: one for one in span.Span().measure(twice)}
    metric = intervals.metric(found["exact_match"], 0.95, 1)
    assert metric.samples == len({document.hash for document in subject.held_out})


def test_segments_are_told_only_to_models_that_know_them() -> None:
    tokenizer: Any = tokenizers.from_json(tokenizers.train([], 600))
    assert Inputs.of(AutoConfig.for_model("bert"), tokenizer, 32).segments
    assert "token_type_ids" in tokenizer.model_input_names
    assert not Inputs.of(AutoConfig.for_model("llama"), tokenizer, 32).segments
    assert "token_type_ids" not in tokenizer.model_input_names
