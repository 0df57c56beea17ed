"""What a finished model answers: text after a prompt, a class with its score, or a span of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate_trainer.data.chat import SIMPLE_TEMPLATE
from tollgate_trainer.data.document import Document
from tollgate_trainer.refusal import DatasetRefused, ModelRefused

BATCH = 32


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to answer. turns: of a conversation, (role, content); text: for models with a head; plain: as it is."""

    text: str
    turns: tuple[tuple[str, str], ...] | None = None
    question: str | None = None
    origin: str = "--prompt"


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0: always the likeliest token. top_p: the smallest set of tokens with that much probability."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def read(path: Path) -> list[Question]:
    """The questions of a JSONL file: `prompt`, `messages`, or `text` with an optional `question` on each line.

    Raises: DatasetRefused naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetRefused(f"{path} can't be read: {error}") from error
    found = [_question(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DatasetRefused(f"{path} holds no line")
    return found


def _question(line: str, origin: str) -> Question:
    try:
        said = json.loads(line)
        if "messages" in said:
            turns = tuple((str(turn["role"]), str(turn["content"])) for turn in said["messages"])
            return Question("\n".join(content for _, content in turns), turns, None, origin)
        asked = said.get("question")
        text = said["prompt"] if "prompt" in said else said["text"]
        if not isinstance(text, str) or not text or not isinstance(asked, str | None):
            raise TypeError("a text must be a string that is not empty")
        return Question(text, None, asked, origin)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetRefused(
            f'{origin} is not understood ({type(error).__name__}: {error}); write {{"prompt": ...}}, '
            '{"messages": [{"role", "content"}]} or {"text", "question"} a line'
        ) from error


class Answerer:
    """A loaded model with its tokenizer, on the device that there is."""

    def __init__(self, model: Any, tokenizer: Any, task: dict[str, Any] | None) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model if getattr(model, "hf_quantizer", None) is not None else model.to(self.device)
        self.tokenizer, self.task = tokenizer, task

    def answers(
        self, questions: Sequence[Question], sampling: Sampling, plain: bool = False
    ) -> Iterator[dict[str, Any]]:
        """One answer per question, in order. Args: plain: no chat template. Raises: ModelRefused, DatasetRefused."""
        if self.task is not None:
            return self._judged(questions)
        return self._written(questions, sampling, plain)

    # --- text -------------------------------------------------------------------------------------------------------

    def _written(self, questions: Sequence[Question], sampling: Sampling, plain: bool) -> Iterator[dict[str, Any]]:
        import torch
        from transformers import GenerationConfig

        configured: Any = GenerationConfig
        drawn = sampling.temperature > 0
        config = configured(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=drawn,
            temperature=sampling.temperature if drawn else None,
            top_p=sampling.top_p if drawn else None,
            top_k=0 if drawn else None,
            eos_token_id=self._ends(),
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )
        places = getattr(self.model.config, "max_position_embeddings", None)
        for question in questions:
            ids = self._ids(question, plain)
            if places is not None and len(ids) + sampling.max_new_tokens > places:
                raise DatasetRefused(
                    f"{question.origin} has {len(ids)} tokens, with {sampling.max_new_tokens} new ones that is more "
                    f"than the model's {places} positions; shorten it or lower --max-new-tokens"
                )
            given = torch.tensor([ids], device=self.device)
            torch.manual_seed(sampling.seed)  # so that an answer does not depend on the questions before it
            with torch.inference_mode():
                made = self.model.generate(
                    input_ids=given, attention_mask=torch.ones_like(given), generation_config=config
                )[0, len(ids) :]
            answer = self.tokenizer.decode(made, skip_special_tokens=True)
            yield {"prompt": question.text, "answer": answer, "tokens": len(made)}

    def _ends(self) -> Any:
        known = self.model.generation_config
        end = known.eos_token_id if known is not None else None
        return self.tokenizer.eos_token_id if end is None else end

    def _ids(self, question: Question, plain: bool) -> list[int]:
        tokenizer = self.tokenizer
        if question.turns is None and (plain or not tokenizer.chat_template):
            begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            ids = list(tokenizer(question.text, add_special_tokens=False, verbose=False)["input_ids"])
            return [begin, *ids] if begin is not None else ids
        turns = question.turns or (("user", question.text),)
        rendered = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            chat_template=tokenizer.chat_template or SIMPLE_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])

    # --- classes and spans ------------------------------------------------------------------------------------------

    def _judged(self, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
        from tollgate_trainer.tasks.choose import task_of
        from tollgate_trainer.tasks.classification import Classification
        from tollgate_trainer.tasks.joint import Joint, document_classes
        from tollgate_trainer.tasks.span import per_document
        from tollgate_trainer.tasks.windows import windows

        assert self.task is not None
        kind, labels = self.task["task"], tuple(self.task.get("labels", ()))
        threshold = self.task.get("null_threshold")
        task: Any = task_of(self.task, self.tokenizer)
        for question in questions:
            if kind != "classification" and not question.question:
                raise DatasetRefused(f"{question.origin} has no question; a {kind} model is asked about a text")
            # The label and the missing answer only give the loss something to be computed from; nobody looks at it.
            document = Document(
                question.text,
                question.origin,
                label=labels[0] if labels else None,
                question=question.question,
                answers=None if kind == "classification" else (),
            )
            if isinstance(task, Classification):
                samples = task.samples([document], self.tokenizer)
            else:
                samples = windows([document], self.tokenizer, task.windowing, labels)
            rows = list(enumerate(self._rows(task, samples)))
            told: dict[str, Any] = {"text": question.text}
            if question.question:
                told["question"] = question.question
            if labels:
                shares = rows[0][1][1] if isinstance(task, Classification) else document_classes(rows, samples)[0][1]
                best = max(range(len(labels)), key=lambda index: shares[index])
                told |= {"label": labels[best], "score": shares[best], "scores": dict(zip(labels, shares, strict=True))}
            if kind != "classification":
                spans = [(index, row[1]) for index, row in rows] if isinstance(task, Joint) else rows
                ((_, found),) = per_document(spans, samples)
                answer = found.answer(question.text, threshold)
                told |= {
                    "answer": answer or None,
                    "start": found.start if answer else None,
                    "end": found.end if answer else None,
                    "doubt": found.doubt,
                }
            yield told

    def _rows(self, task: Any, samples: Any) -> Iterator[Any]:
        import torch

        with torch.inference_mode():
            for first in range(0, len(samples), BATCH):
                batch = [samples[number] for number in range(first, min(first + BATCH, len(samples)))]
                inputs = {name: tensor.to(self.device) for name, tensor in task.collate(batch).items()}
                yield from task.measure(self.model, inputs, batch).rows


def answerer(folder: Path, task: dict[str, Any] | None, dataset_root: Path | None) -> Answerer:
    """Load the model. Raises: ModelRefused."""
    from tollgate_trainer.models.finished import load_finished

    model, tokenizer = load_finished(folder, dataset_root)
    if task is None and not hasattr(model, "generate"):
        raise ModelRefused(f"{folder} holds a model that writes no text")
    return Answerer(model, tokenizer, task)
