"""Keys and values are kept only while something is generated; elsewhere they cost memory and nobody reads them.

A whole training is watched in the same way by tests/e2e/laptop/test_resume_matrix.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from key_value_cache import CacheMadeError, no_caches
from tollgate.manifest.loader import load_document
from tollgate.planning.shapes import shape_of
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.tokens import Sample
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.scorers import probabilities
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.packing_probe import probe
from tollgate_trainer.plan.probe import model_pace
from tollgate_trainer.tasks.inputs import forward
from trainer_fixtures import TINY_LLAMA, WORDS, manifest

CPU = torch.device("cpu")
TEXTS = [f"the {word} of the road" for word in WORDS]
TOKENIZER: Any = tokenizers.from_json(tokenizers.train([Document(text, "here") for text in TEXTS], 600))
IDS = torch.arange(12)[None]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()  # a pace is measured with as many as the model can use
    yield
    torch.set_num_threads(before)


def tiny(auto: Any = AutoModelForCausalLM) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(**TINY_LLAMA, num_labels=2)
    config.pad_token_id = TOKENIZER.pad_token_id
    return auto.from_config(config).eval()


def scored() -> object:
    return probabilities(tiny(AutoModelForSequenceClassification), TOKENIZER, CPU, TEXTS[:3])


def judged() -> object:
    ids = np.arange(6, dtype=np.int64)
    return log_likelihoods(tiny(), [Sample(ids, ids)], CPU)


def timed(task: str) -> object:
    """What `tollgate plan` does to learn how fast this machine trains the model."""
    asked = load_document(manifest(task=task), "test").manifest
    shape = shape_of(TINY_LLAMA)
    assert shape is not None
    return model_pace(asked, AutoConfig.for_model(**TINY_LLAMA), shape, 1, 8)


PASSES: dict[str, Callable[[], object]] = {
    "a classifier that scores replies": scored,
    "likelihoods of an evaluation": judged,
    "a task with a head": lambda: forward(tiny(AutoModelForSequenceClassification), {"input_ids": IDS}),
    "the trial before packing": lambda: probe(tiny(), CPU, "fp32", 32),
    "the pace of a language model": lambda: timed("causal-lm"),
    "the pace of another task": lambda: timed("classification"),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_forward_pass_that_generates_nothing_keeps_no_keys_and_values(name: str) -> None:
    with no_caches():
        assert PASSES[name]() is not None


def test_a_model_that_is_told_nothing_makes_a_cache_and_is_caught() -> None:
    with no_caches(), pytest.raises(CacheMadeError):
        tiny()(input_ids=IDS)
