"""How long documents are, in the unit that counts: the run's own tokens where they can be known, words where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tollgate_trainer.data.document import Document
from tollgate_trainer.dataset.subject import Given
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tollgate_trainer.data.tokens import Sample

TOKENS, WORDS = "tokens", "words"


@dataclass(frozen=True, slots=True)
class Measure:
    """unit: what is counted, in the plural; how: a sentence that says whose; tokenizer: None when words are counted."""

    unit: str
    how: str
    tokenizer: PreTrainedTokenizerBase | None


def by_words() -> Measure:
    """Words between white space: no tokenizer, so lengths can't be held against max_seq_length."""
    return Measure(WORDS, "Words between white space are counted, not tokens.", None)


def by_tokens(subject: Given, documents: Sequence[Document], tokenizer: Path | None) -> Measure:
    """The tokenizer that is named, the manifest's or its base's, or one trained on `documents` as the trainer does.

    Args: documents: those of the training split; tokenizer: a folder with a saved tokenizer.
    Raises: ModelRefused, ManifestError.
    """
    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.source import Source, tokenizer_source

    if tokenizer is not None:
        if not tokenizer.is_dir():
            raise ModelRefused(f"--tokenizer {tokenizer} is no folder; name the folder that holds tokenizer.json")
        how = f"Tokens of the tokenizer in {tokenizer}."
        return Measure(TOKENS, how, _offline(Source(folder=tokenizer.resolve()), "--tokenizer"))
    source = tokenizer_source(subject.manifest, subject.root)
    if source is not None:
        place = source.hub_id or subject.manifest.model.tokenizer or subject.manifest.model.base
        return Measure(TOKENS, f"Tokens of the tokenizer of {place}.", _offline(source, "model.tokenizer"))
    config = subject.manifest.model.config or {}
    size = int(config.get("vocab_size", tokenizers.DEFAULT_VOCABULARY))
    _quiet()
    trained = tokenizers.from_json(tokenizers.train(documents, size))
    whose = "as the run will train it" if subject.own else "as the trainer does when none is given"
    how = f"Tokens of a tokenizer trained on these documents, {whose} (byte-level BPE, {len(trained):,} entries)."
    return Measure(TOKENS, how, trained)


def _offline(source: Any, field: str) -> PreTrainedTokenizerBase:
    _quiet()
    from tollgate_trainer.models import tokenizer as tokenizers

    return tokenizers.load(source, field)


def _quiet() -> None:
    """No advice of the library in between our lines: it says that PyTorch is missing where it is not needed."""
    import os

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def lengths(documents: Sequence[Document], measure: Measure) -> list[int]:
    """The length of each document in the measure's unit, whole, before anything is cut."""
    if measure.tokenizer is None:
        return [len(_whole(document).split()) for document in documents]
    return [len(sample.input_ids) for sample in encoded(documents, measure.tokenizer)]


def encoded(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[Sample]:
    """Each document whole: as the trainer encodes it; one with a label or a question as its task's input.

    A span document is question and text in one sequence, before it is laid into windows; no token of it carries loss.
    Raises: DatasetRefused when the chat template refuses a conversation or the assistant's part can't be told.
    """
    from tollgate_trainer.data.tokens import IGNORED, Sample, encode

    for document in documents:
        if document.question is None and document.label is None:
            yield encode(document, tokenizer)
            continue
        texts = (document.text,) if document.question is None else (document.question, document.text)
        ids = np.asarray(tokenizer(*texts, verbose=False)["input_ids"], dtype=np.int64)
        yield Sample(ids, np.full_like(ids, IGNORED))


def _whole(document: Document) -> str:
    return document.text if document.question is None else f"{document.question} {document.text}"
