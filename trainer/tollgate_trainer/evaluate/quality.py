"""quality_score: does the model find the answer that belongs to a question, among four? Corrected for guessing.

The questions are made from the held-out documents alone, the same for the same dataset. Of a conversation the answer is
its last assistant turn, and what stands before it is the question; a text is cut after its first line, or in its middle
when it has only one. The three wrong answers are right ones of other documents, of similar length.

An answer's score is log p(answer | question) - log p(answer | neutral question): how much more likely the question
makes it, so that an answer that is common or short wins nothing by that. A tie is no success.
Source: Holtzman et al. 2021, Surface Form Competition (domain-conditional PMI).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.data.tokens import IGNORED, Sample, encode
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.protocol import Subject, drawn
from tollgate_trainer.evaluate.samples import Measured, Rate
from tollgate_trainer.refusal import DatasetRefused

OPTIONS = 4
ANSWER_TOKENS = 64
_NEAREST = 24  # the wrong answers are drawn from so many of the most similar length
NEUTRAL = "..."
_LEAST_ANSWER = 8  # characters; a shorter one says too little to be told from others


@dataclass(frozen=True, slots=True)
class Pair:
    """A document cut into a question and its answer."""

    document: Document
    question: tuple[Message, ...] | str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """A pair and the answers to choose from; the right one stands first."""

    pair: Pair
    answers: tuple[str, ...]


class QualityScore:
    """Share of questions whose own answer scores highest of four, corrected for the chance of 1 in 4."""

    name = "quality_score"
    version = "1"

    def measure(self, subject: Subject) -> Measured | list[Measured]:
        """Right choices among questions: those of the manifest's task files, else made from the held-out documents.

        Raises: DatasetRefused when the held-out documents give fewer than four different answers.
        """
        if subject.settings.task_files:
            from tollgate_trainer.evaluate import taskfiles

            return taskfiles.measure(subject, subject.settings.task_files)
        asked = questions(subject.held_out, subject.limit, subject.seed)
        neutral: dict[tuple[bool, str], int] = {}
        samples: list[Sample] = []
        for question in asked:
            for answer in question.answers:
                samples.append(_sample(question.pair, answer, subject))
        for question in asked:
            chat = not isinstance(question.pair.question, str)
            for answer in question.answers:
                if (chat, answer) not in neutral:
                    neutral[chat, answer] = len(samples)
                    samples.append(_neutral(answer, chat, subject))
        scores, _ = log_likelihoods(subject.model, samples, subject.device)
        right = []
        for number, question in enumerate(asked):
            chat = not isinstance(question.pair.question, str)
            gains = [
                scores[number * OPTIONS + place] - scores[neutral[chat, answer]]
                for place, answer in enumerate(question.answers)
            ]
            right.append(bool(gains[0] > max(gains[1:])))
        return Measured(
            self.name,
            Rate.of(right, 1 / OPTIONS),
            _digest(asked, subject.max_length),
            self.name,
            self.version,
            units=tuple(question.pair.document.hash for question in asked),
        )


def pair(document: Document) -> Pair | None:
    """The document as question and answer, or None when it has no two parts."""
    if document.messages is not None:
        last = max(i for i, turn in enumerate(document.messages) if turn.role == "assistant" and turn.content.strip())
        question: tuple[Message, ...] | str = document.messages[:last]
        answer = document.messages[last].content.strip()
    else:
        first, _, rest = document.text.strip().partition("\n")
        if not rest.strip():
            words = first.split()
            first, rest = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
        question, answer = first, rest.strip()
    return Pair(document, question, answer) if question and len(answer) >= _LEAST_ANSWER else None


def questions(documents: Sequence[Document], limit: int, seed: int) -> list[Question]:
    """At most `limit` questions of the documents; the same for the same documents and seed.

    Raises: DatasetRefused when there are fewer than four different answers.
    """
    pairs = [found for document in documents if (found := pair(document)) is not None]
    answers = {found.answer: found for found in pairs}
    if len(answers) < OPTIONS:
        raise DatasetRefused(
            f"the {len(documents)} held-out documents give {len(answers)} different answers, quality_score needs at "
            f"least {OPTIONS}; hold out more documents",
            "dataset.splits.validation",
        )
    chosen = {document.hash for document in drawn([found.document for found in pairs], limit, seed, "quality_score")}
    return [
        Question(p, (p.answer, *_wrong(p, list(answers.values()), seed))) for p in pairs if p.document.hash in chosen
    ]


def _wrong(right: Pair, others: Sequence[Pair], seed: int) -> list[str]:
    candidates = sorted(
        (other for other in others if other.answer != right.answer),
        key=lambda other: (abs(len(other.answer) - len(right.answer)), other.document.hash),
    )[:_NEAREST]

    def place(other: Pair) -> bytes:
        return hashlib.sha256(f"{seed}\0{right.document.hash}\0{other.document.hash}".encode()).digest()

    return [other.answer for other in sorted(candidates, key=place)[: OPTIONS - 1]]


def _sample(asked: Pair, answer: str, subject: Subject) -> Sample:
    if isinstance(asked.question, str):
        return text_sample(asked.question + "\n", answer, subject)
    return chat_sample(asked.question, answer, subject)


def _neutral(answer: str, chat: bool, subject: Subject) -> Sample:
    if not chat:
        return text_sample("", answer, subject)
    return chat_sample((Message("user", NEUTRAL),), answer, subject)


def text_sample(question: str, answer: str, subject: Subject) -> Sample:
    """A plain text with loss on its answer alone, of which ANSWER_TOKENS tokens count."""
    tokenizer = subject.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [start] if start is not None else []
    before += tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = list(tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"])[:ANSWER_TOKENS]
    labels = [IGNORED] * len(before) + tokens
    return _fitted(np.asarray(before + tokens, np.int64), np.asarray(labels, np.int64), subject.max_length)


def chat_sample(question: tuple[Message, ...], answer: str, subject: Subject) -> Sample:
    """A conversation with loss on its last turn, the answer, alone, of which ANSWER_TOKENS tokens count."""
    messages = (*question, Message("assistant", answer))
    whole = encode(Document("\n".join(m.content for m in messages), "a question", messages), subject.tokenizer)
    labelled = np.flatnonzero(whole.labels != IGNORED)
    gaps = np.flatnonzero(np.diff(labelled) > 1)
    start = int(labelled[gaps[-1] + 1] if len(gaps) else labelled[0])  # the last turn's first token
    labels = whole.labels.copy()
    labels[:start] = IGNORED
    end = min(len(labels), start + ANSWER_TOKENS)
    return _fitted(whole.input_ids[:end], labels[:end], subject.max_length)


def _fitted(ids: np.ndarray, labels: np.ndarray, length: int) -> Sample:
    """The last `length` tokens, with the very first one kept: a question is cut at its start, an answer never."""
    if len(ids) <= length:
        return Sample(ids, labels)
    keep = np.concatenate([[0], np.arange(len(ids) - length + 1, len(ids))])
    return Sample(ids[keep], labels[keep])


def _digest(asked: Sequence[Question], length: int) -> str:
    total = hashlib.sha256(f"{length} {ANSWER_TOKENS} {NEUTRAL}\n".encode())
    for question in asked:
        total.update("\0".join((question.pair.document.hash, *question.answers)).encode() + b"\n")
    return "sha256:" + total.hexdigest()
