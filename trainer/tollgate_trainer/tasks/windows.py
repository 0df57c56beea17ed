"""A text and its question as overlapping windows of tokens, each knowing which characters its tokens stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.document import Answer, Document
from tollgate_trainer.data.tokens import Statistics
from tollgate_trainer.refusal import DatasetRefused, ModelRefused
from tollgate_trainer.tasks.answers import normalised
from tollgate_trainer.tasks.samples import Samples, forget_truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNALIGNED_SHARE = 0.01
"""Of the answers; more is an error, not noise."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one document.

    input_ids, segments: shape [tokens], int64; offsets: characters of the document's text, shape [tokens, 2], -1 where
    the token is not the text's; start, end: the answer's first and last token, both 0 for "not in this window";
    document: the number of the document in its split; windows: how many it has; label: its class, -1 without one.
    """

    input_ids: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int32]
    start: int
    end: int
    document: int
    windows: int
    label: int = -1


@dataclass(frozen=True, slots=True)
class Windowing:
    """max_length: tokens of a window with its question; stride: tokens that two neighbours share."""

    max_length: int
    stride: int


@dataclass(slots=True)
class _Alignment:
    """What became of the answers."""

    answers: int = 0
    lost: list[str] | None = None

    def miss(self, document: Document, answer: Answer, why: str) -> None:
        """Note an answer that no window can give."""
        self.lost = [*(self.lost or []), f"{document.origin}: {answer.text[:60]!r} {why}"]

    def check(self, windowing: Windowing) -> None:
        """Raises: DatasetRefused when too many are lost."""
        lost = self.lost or []
        if len(lost) > UNALIGNED_SHARE * self.answers:
            raise DatasetRefused(
                f"{len(lost)} of {self.answers} answers cannot be marked in the tokens of their text (at most "
                f"{UNALIGNED_SHARE:.0%} may): {'; '.join(lost[:_SHOWN])}. Let an answer be whole words that stand in "
                f"the text; for long ones raise span.doc_stride ({windowing.stride}) and "
                f"hyperparameters.max_seq_length ({windowing.max_length})",
                "dataset.path",
            )


def windows(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    windowing: Windowing,
    labels: Sequence[str] = (),
    learning: bool = False,
) -> Samples:
    """The windows of all documents, in their order.

    Args: labels: the classes, for joint; learning: documents whose answer cannot be marked are left out (and counted as
    dropped), else they stay: an answer that the model cannot give counts against it.
    Raises: DatasetRefused for a document that is none of a span task, for a question that leaves no room, and when more
    than 1 % of the answers cannot be marked; ModelRefused for a tokenizer without offsets.
    """
    if not tokenizer.is_fast:
        raise ModelRefused(
            "span needs a tokenizer that tells which characters a token stands for; give one with a tokenizer.json",
            "model.tokenizer",
        )
    numbers = {label: number for number, label in enumerate(labels)}
    alignment = _Alignment()
    made: list[Window] = []
    owners: list[Document] = []
    kept = split_up = 0
    for document in documents:
        label = numbers[document.label or ""] if labels else -1
        found, aligned = _of(document, kept, label, tokenizer, windowing, alignment)
        if learning and not aligned:
            continue
        kept += 1
        split_up += len(found) > 1
        made.extend(found)
        owners.extend(document for _ in found)
    forget_truncation(tokenizer)
    alignment.check(windowing)
    lengths = [len(window.input_ids) for window in made]
    return Samples(
        owners,
        made,
        lengths,
        Statistics(
            documents=len(documents),
            samples=len(made),
            duplicates=len(documents) - len({(document.hash, document.question) for document in documents}),
            tokens=sum(lengths),
            loss_tokens=2 * len(made),
            truncated_samples=0,
            truncated_tokens=0,
            dropped_samples=len(documents) - kept,
            longest=max(lengths, default=0),
        ),
    )


def _of(
    document: Document,
    number: int,
    label: int,
    tokenizer: PreTrainedTokenizerBase,
    windowing: Windowing,
    alignment: _Alignment,
) -> tuple[list[Window], bool]:
    """The document's windows, and whether its answer can be marked (also where it has none)."""
    if document.answers is None:
        raise DatasetRefused(
            f"{document.origin} has no answers: a span document needs them ([] for a text without one)",
            "dataset.format",
        )
    raw = list(_encoded(document, tokenizer, windowing))
    spans = [(0, 0)] * len(raw)
    aligned = True
    for place, answer in enumerate(document.answers):
        found, why = _marked(document, answer, [offsets for _, _, offsets in raw])
        alignment.answers += 1
        if why:
            alignment.miss(document, answer, why)
        if place == 0:  # learned from; the others count as right, too, when the model is judged
            spans, aligned = found, not why
    return [
        Window(ids, segments, offsets, *span, document=number, windows=len(raw), label=label)
        for (ids, segments, offsets), span in zip(raw, spans, strict=True)
    ], aligned


def _encoded(document: Document, tokenizer: PreTrainedTokenizerBase, windowing: Windowing) -> Iterator[Any]:
    """(input_ids, segments, offsets) of each window."""
    asked = document.question or ""
    given = tokenizer(asked, add_special_tokens=False, verbose=False)["input_ids"] if asked else []
    room = windowing.max_length - len(given) - tokenizer.num_special_tokens_to_add(pair=bool(asked))
    if room <= windowing.stride:
        raise DatasetRefused(
            f"{document.origin}: max_seq_length={windowing.max_length} leaves {max(room, 0)} tokens beside "
            f"the question of {len(given)}, and neighbouring windows share as many (span.doc_stride="
            f"{windowing.stride}); raise hyperparameters.max_seq_length or lower span.doc_stride",
            "span.doc_stride",
        )
    encoded: Any = tokenizer(
        *((asked, document.text) if asked else (document.text,)),
        truncation="only_second" if asked else "longest_first",
        max_length=windowing.max_length,
        stride=windowing.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        verbose=False,
    )
    text = 1 if asked else 0
    for place, ids in enumerate(encoded["input_ids"]):
        owners = encoded.sequence_ids(place)
        offsets = np.full((len(ids), 2), -1, dtype=np.int32)
        for token, (owner, span) in enumerate(zip(owners, encoded["offset_mapping"][place], strict=True)):
            if owner == text:
                offsets[token] = span
        if (offsets[:, 0] < 0).all():
            raise DatasetRefused(f"{document.origin}: the tokenizer finds no token in this text", "dataset.path")
        yield (
            np.asarray(ids, dtype=np.int64),
            np.asarray(encoded["token_type_ids"][place], dtype=np.int64),
            offsets,
        )


def _marked(
    document: Document, answer: Answer, windows: Sequence[npt.NDArray[np.int32]]
) -> tuple[list[tuple[int, int]], str]:
    """The answer's tokens in each window that holds all of it, (0, 0) in the others; and why it is in none, else ""."""
    first, last = answer.start, answer.start + len(answer.text)
    if not answer.text.strip() or document.text[first:last] != answer.text:
        return [(0, 0)] * len(windows), f"does not stand at character {first}"
    first += len(answer.text) - len(answer.text.lstrip())
    last -= len(answer.text) - len(answer.text.rstrip())
    spans, best = [], ""
    for offsets in windows:
        # A token of some tokenizers covers no character (a mark before a word); it can't begin or end an answer.
        inside = np.flatnonzero((offsets[:, 0] < last) & (offsets[:, 1] > first) & (offsets[:, 0] >= 0))
        span = (0, 0)
        if len(inside):
            start, end = int(inside[0]), int(inside[-1])
            if offsets[start, 0] <= first and offsets[end, 1] >= last:
                best = document.text[offsets[start, 0] : offsets[end, 1]].strip()
                span = (start, end) if _same(best, answer.text) else (0, 0)
        spans.append(span)
    if any(span != (0, 0) for span in spans):
        return spans, ""
    return spans, f"can only be given as {best[:60]!r}" if best else "is whole in no window"


def _same(given: str, right: str) -> bool:
    return normalised(given) == normalised(right) if normalised(right) else given.strip() == right.strip()
