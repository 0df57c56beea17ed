"""Packing, grouping and samples in real trainings: stopped and resumed, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tollgate_trainer.laptop.follow import sentence
from trainer_fixtures import REPOSITORY, WORDS, Gang, gang

pytestmark = pytest.mark.e2e

OPTIONS = {
    "packing": {"packing": True},
    "packing-chunked": {"packing": True, "cross_entropy": "chunked"},
    "group_by_length": {"group_by_length": True},
}


def uneven(root: Path, **changes: Any) -> Gang:
    """Texts from 3 to 25 words, so that there is something to pack."""
    run = gang(root, **changes)
    chance = random.Random(5)
    texts = [" ".join(chance.choices(WORDS, k=int(chance.triangular(3, 25, 5)))) for _ in range(120)]
    (root / "data" / "data.json").write_text(json.dumps({"conversations": [{"text": text} for text in texts]}))
    return run


def digest_of(run: Gang, attempt: int = 1) -> str:
    code, output = run.run(attempt)
    assert code == 0, output
    model = run.words(attempt).model
    assert model is not None
    return model.digest


@pytest.mark.parametrize(
    "option",
    [
        pytest.param("packing", marks=pytest.mark.full),
        pytest.param("packing-chunked"),
        pytest.param("group_by_length", marks=pytest.mark.full),
    ],
)
def test_a_training_goes_on_bit_for_bit_from_a_checkpoint_within_an_epoch(tmp_path: Path, option: str) -> None:
    asked = OPTIONS[option] | {"max_steps": 24, "save_steps": 9, "eval_steps": 9, "per_device_train_batch_size": 2}
    without = {"evaluation": {"samples": 0}}
    keep = {"checkpoint": {"keep_last": 5}}
    control, broken = (
        uneven(tmp_path / "a", hyperparameters=asked, **without, **keep),
        uneven(tmp_path / "b", hyperparameters=asked, **keep),
    )
    digest = digest_of(control)
    assert digest_of(broken) == digest, "samples at evaluations changed the training, or two runs differ by themselves"
    shutil.rmtree(broken.output / "model")
    for step in (18, 24):
        shutil.rmtree(broken.output / "checkpoints" / f"checkpoint-{step}")
    assert digest_of(broken, 2) == digest
    assert broken.words(2).resumed_from_step == 9
    assert broken.losses(2) == {step: loss for step, loss in control.losses(1).items() if step > 9}
    _samples_are_told(broken)
    if option.startswith("packing"):
        _packing_is_told(broken)


def _samples_are_told(run: Gang) -> None:
    told = [event for event in run.events("samples") if event["attempt"] == 1]
    assert [event["step"] for event in told] == [9, 18, 24]
    prompts = [[one["prompt"] for one in event["samples"]] for event in told]
    assert len(prompts[0]) == 3
    assert prompts[0] == prompts[1] == prompts[2]
    assert all(isinstance(one["text"], str) for event in told for one in event["samples"])
    resumed = [event["samples"] for event in run.events("samples") if event["attempt"] == 2]
    assert resumed == [event["samples"] for event in told if event["step"] > 9]


def _packing_is_told(run: Gang) -> None:
    (event, again) = run.events("packing")
    assert event["on"]
    assert {**event, "time": 0, "attempt": 0} == {**again, "time": 0, "attempt": 0}
    assert event["rows"] < event["documents"]
    assert event["fill"] > 0.9
    assert f"{event['documents']} documents in {event['rows']} rows of 48 tokens" in str(sentence(event))
    assert event["padding"] < event["padding_without"]
    plan = run.events("plan")[0]
    assert plan["steps_per_epoch"] == -(-event["rows"] // 2)
    data = run.events("data")[0]["train"]
    steps = {step["step"]: step["tokens"] for step in run.events("step")}
    assert steps[plan["steps_per_epoch"]] == data["tokens"], "an epoch's tokens are the documents', each once"
    held_out = run.events("data")[0]["validation"]
    assert run.events("eval")[0]["eval_tokens"] == held_out["loss_tokens"]


@pytest.mark.full
def test_packing_true_on_a_model_that_mixes_documents_is_the_users_error_and_auto_goes_on_without(
    tmp_path: Path,
) -> None:
    config = {
        "model_type": "gpt_oss",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        "vocab_size": 600,
        "initializer_range": 0.2,
    }
    steps = {"max_steps": 2, "save_steps": 2, "eval_steps": 5}
    changes: dict[str, Any] = {"model": {"config": config}, "evaluation": {"enabled": False, "samples": 0}}
    refused = gang(tmp_path / "a", hyperparameters=steps | {"packing": True}, **changes)
    code, _ = refused.run()
    assert code == 64
    (words,) = refused.failures()
    message = words.error.message if words.error else ""
    assert "hyperparameters.packing" in message
    assert "gpt_oss lets one document see another" in message
    assert "packing: false" in message
    auto = gang(tmp_path / "b", hyperparameters=steps | {"packing": "auto"}, **changes)
    code, output = auto.run()
    assert code == 0, output
    (event,) = auto.events("packing")
    assert not event["on"]
    assert any("packing is off" in warning["message"] for warning in auto.events("warning"))


def test_a_loss_a_step_and_a_source_of_somebody_elses_train_a_model(tmp_path: Path) -> None:
    names = {
        "loss": "focal:Focal",
        "trainer_step": "masked_inputs:MaskedInputs",
        "dataset_source": "subtitles:Subtitles",
    }
    run = gang(
        tmp_path,
        dataset={"path": "film.srt", "format": "text"},
        hyperparameters={"max_steps": 6, "save_steps": 6, "eval_steps": 3},
        evaluation={"enabled": False},
        extensions={kind: f"tollgate_example_extensions.{name}" for kind, name in names.items()},
    )
    chance = random.Random(3)
    cues = (
        f"{n}\n00:{n:02}:00,000 --> 00:{n:02}:02,000\n{' '.join(chance.choices(WORDS, k=9))}\n" for n in range(1, 60)
    )
    (tmp_path / "data" / "film.srt").write_text("\n".join(cues))
    code, _ = run.run()
    assert code == 64
    (words,) = run.failures()
    assert "TOLLGATE_ALLOWED_EXTENSIONS" in (words.error.message if words.error else "")
    path = os.pathsep.join([run.environment(2, 1)["PYTHONPATH"], str(REPOSITORY / "examples" / "extensions")])
    code, output = run.run(2, TOLLGATE_ALLOWED_EXTENSIONS="tollgate_example_extensions", PYTHONPATH=path)
    assert code == 0, output
    assert {event["kind"] for event in run.events("extension")} == set(names)
    first, last = run.events("eval")[0], run.events("eval")[-1]
    assert last["eval_loss"] < first["eval_loss"]


def test_the_loss_in_chunks_trains_what_the_usual_loss_trains(tmp_path: Path) -> None:
    steps = {"max_steps": 4, "save_steps": 4, "eval_steps": 4, "gradient_accumulation_steps": 2}
    plain, chunked = (
        uneven(tmp_path / how, hyperparameters=steps | {"cross_entropy": how}) for how in ("plain", "chunked")
    )
    digest_of(plain)
    digest_of(chunked)
    assert plain.events("cross_entropy") == []
    assert [event["chunked"] for event in chunked.events("cross_entropy")] == [True]
    losses = [{step: float.fromhex(loss) for step, loss in run.losses(1).items()} for run in (plain, chunked)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    evaluated = [run.events("eval")[-1]["eval_loss"] for run in (plain, chunked)]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-4)


@pytest.mark.full
def test_a_compiled_training_compiles_before_its_first_step_and_not_once_more(tmp_path: Path) -> None:
    changes = {"packing": True, "compile": True, "max_steps": 8, "eval_steps": 4}
    run = uneven(tmp_path, hyperparameters=changes)
    code, output = run.run(1)
    assert code == 0, output
    (told,) = run.events("compile")
    assert told["on"], told["because"]
    assert not run.events("recompile")
    seconds = run.words().goodput_seconds
    assert seconds is not None
    assert seconds["compile"] > 0


@pytest.mark.full
def test_a_compiled_training_goes_on_bit_for_bit_and_where_there_is_no_compiler_it_claims_less(tmp_path: Path) -> None:
    changes = {"packing": True, "compile": True, "max_steps": 8, "save_steps": 4, "eval_steps": 4}
    run = uneven(tmp_path, hyperparameters=changes, checkpoint={"keep_last": 5})

    def again(attempt: int, **more: str) -> dict[str, Any]:
        shutil.rmtree(run.output / "model")
        shutil.rmtree(run.output / "checkpoints" / "checkpoint-8")
        code, output = run.run(attempt, **more)
        assert code == 0, output
        info: dict[str, Any] = json.loads((run.output / "model" / "model_info.json").read_text())
        return info

    digest_of(run)
    assert again(2)["equality"] == "bit-equal"
    whole, rest = run.losses(1), run.losses(2)
    assert rest == {step: whole[step] for step in rest}
    bare = again(3, CXX="/nonexistent", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "empty"))
    assert bare["equality"] == "statistical"
    assert "No working C++ compiler" in run.events("warning")[0]["message"]
    assert "not bit for bit" in run.events("warning")[1]["message"]
