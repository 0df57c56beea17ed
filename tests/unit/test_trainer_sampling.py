"""Which trainings write samples at their evaluations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tollgate.manifest.loader import load_document
from tollgate_trainer.data.document import Document
from tollgate_trainer.lifecycle.sampling import MAX_NEW_TOKENS, sampling_for
from tollgate_trainer.lifecycle.sharding import Replicated
from tollgate_trainer.tasks.causal_lm import CausalLM
from trainer_fixtures import manifest


class Held:
    """One held-out text."""

    documents = (Document("alpha beta gamma delta", "here"),)

    def __len__(self) -> int:
        return 1


class Letters:
    """A tokenizer of letters."""

    chat_template = None
    eos_token_id = 0

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.mark.parametrize(("positions", "writes"), [(None, True), (MAX_NEW_TOKENS + 8, True), (MAX_NEW_TOKENS, False)])
def test_a_model_with_no_place_for_an_answer_is_not_asked_and_not_rehearsed(
    positions: int | None, writes: bool
) -> None:
    loaded = load_document(manifest(), "test")
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=positions))
    loop: Any = SimpleNamespace(
        session=SimpleNamespace(attempt=SimpleNamespace(leads=True), loaded=loaded, say=lambda *_, **__: None),
        plan=SimpleNamespace(validation=Held()),
        task=CausalLM(0),
        sharding=Replicated("single"),
        processing_class=Letters(),
        model=SimpleNamespace(config=config),
    )
    found = sampling_for(loop, 3)
    assert (found is not None) == writes
    assert found is None or found.count == 1
