"""Code of somebody else's: found by entry point or by an allowed module, refused with the way out, and used."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate.manifest.sections import Evaluation
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.document import Document
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Mean, Measured
from tollgate_trainer.evaluate.suites import tasks
from tollgate_trainer.extensions import ALLOWED, GROUPS, Kind, extension
from tollgate_trainer.lifecycle.extending import averaged
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused
from trainer_fixtures import REPOSITORY, TINY_LLAMA, manifest

EXAMPLES = REPOSITORY / "examples" / "extensions"
PACKAGE = "tollgate_example_extensions"
SUBTITLES = """1
00:00:01,000 --> 00:00:02,500
Who is at the gate?

2
00:00:03,000 --> 00:00:05,000
The driver, with a ticket.

3
00:01:00,000 --> 00:01:02,000
The bridge is closed.
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def points(group: str) -> list[EntryPoint]:
    """What the example's package would register when it is installed."""
    declared = tomllib.loads((EXAMPLES / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    return [EntryPoint(name, value, group) for name, value in declared[group].items()]


def asking(**extensions: str) -> TrainingManifest:
    return load_document(manifest(extensions=extensions), "test").manifest


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("loss", "focal", "focal:Focal"),
        ("trainer_step", "masked_inputs", "masked_inputs:MaskedInputs"),
        ("dataset_source", "subtitles", "subtitles:Subtitles"),
    ],
)
def test_the_examples_are_found_by_entry_point_and_by_an_allowed_module(kind: Kind, name: str, path: str) -> None:
    installed = extension(asking(**{kind: name}), kind, {}, points(GROUPS[kind]))
    direct = extension(asking(**{kind: f"{PACKAGE}.{path}"}), kind, {ALLOWED: f"other, {PACKAGE}"})
    assert installed is not None
    assert direct is not None
    assert type(installed.code) is type(direct.code)


def test_the_example_of_an_evaluator_measures_a_model() -> None:
    (task,) = tasks(["distinct_words"], points("tollgate.evaluators"))
    documents = tuple(Document(f"{n} the gate will open for the toll", f"f:{n}") for n in range(4))
    tokenizer = tokenizers.from_json(tokenizers.train(documents, 600))
    values: dict[str, Any] = dict(TINY_LLAMA)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    short = Evaluation(max_new_tokens=8)
    subject = Subject(model, tokenizer, torch.device("cpu"), documents, 48, seed=1, limit=3, settings=short)
    measured = task.evaluator.measure(subject)
    assert isinstance(measured, Measured)
    assert isinstance(measured.samples, Mean)
    assert measured.samples.weights.shape == (3,)
    assert (measured.samples.totals <= measured.samples.weights).all()


@pytest.mark.parametrize("allowed", ["", "other", PACKAGE + "_more", PACKAGE + ".subtitles"])
def test_a_module_that_nobody_allowed_is_not_even_imported(allowed: str) -> None:
    with pytest.raises(ManifestRefused, match=rf"extensions\.loss: .*not allowed here .*{ALLOWED}"):
        extension(asking(loss=f"{PACKAGE}.focal:Missing"), "loss", {ALLOWED: allowed})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "no installed package offers 'nothing' in the group tollgate.losses .known: focal."),
        (f"{PACKAGE}.focal:Missing", "can't be loaded .AttributeError"),
        (f"{PACKAGE}.nowhere:Missing", "can't be loaded .ModuleNotFoundError"),
        (f"{PACKAGE}.subtitles:Subtitles", "is no loss: it has no __call__"),
    ],
)
def test_an_extension_that_is_none_is_refused_with_what_is_wrong(name: str, says: str) -> None:
    with pytest.raises(ManifestRefused, match=says):
        extension(asking(loss=name), "loss", {ALLOWED: PACKAGE}, points("tollgate.losses"))


def test_a_loss_is_for_language_models() -> None:
    with pytest.raises(ManifestError, match=r"extensions\.loss"):
        load_document(manifest(task="classification", extensions={"loss": "focal"}), "test")


@pytest.mark.parametrize("items", [None, 60])
def test_a_summed_loss_is_divided_as_the_librarys_own(items: int | None) -> None:
    from tollgate_example_extensions.focal import Focal  # type: ignore[import-not-found]

    values: dict[str, Any] = dict(TINY_LLAMA)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.arange(1, 41).reshape(2, 20)
    labels = ids.clone()
    labels[0, 10:] = -100
    given = {} if items is None else {"num_items_in_batch": items}
    expected = model(input_ids=ids, labels=labels, use_cache=False, **given).loss
    plain = Focal()
    plain.gamma = 0.0
    outputs = model(input_ids=ids, use_cache=False)
    assert float(averaged(plain)(outputs, labels, items)) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(averaged(Focal())(outputs, labels, items)) < float(expected)


def test_files_that_tollgate_cannot_read_are_read_by_somebody_elses_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, PACKAGE)
    (tmp_path / "film.srt").write_text(SUBTITLES)
    dataset = {"path": "film.srt", "format": "text", "splits": {"validation": 0}}
    source = {"dataset_source": f"{PACKAGE}.subtitles:Subtitles"}
    found = load_documents(load_document(manifest(dataset=dataset, extensions=source), "test").manifest, tmp_path)
    assert [document.text for document in found.train] == [
        "Who is at the gate?\nThe driver, with a ticket.",
        "The bridge is closed.",
    ]
    assert [document.origin for document in found.train] == ["film.srt:1", "film.srt:9"]
    other = {"dataset_source": f"{PACKAGE}.subtitles:Quick"}
    monkeypatch.setattr("tollgate_example_extensions.subtitles.Quick", Subtitles(), raising=False)
    again = load_documents(load_document(manifest(dataset=dataset, extensions=other), "test").manifest, tmp_path)
    assert again.digest != found.digest, "other code makes another dataset of the same bytes"
    (tmp_path / "film.srt").write_text("1\nno times\n")
    with pytest.raises(DatasetRefused, match=r"film\.srt can't be read .* line 1: a cue needs"):
        load_documents(load_document(manifest(dataset=dataset, extensions=source), "test").manifest, tmp_path)


class Subtitles:
    """A stand-in of another name: called like a class, it makes the example's reader."""

    def __call__(self) -> Any:
        from tollgate_example_extensions.subtitles import Subtitles as Example  # type: ignore[import-not-found]

        return Example()
