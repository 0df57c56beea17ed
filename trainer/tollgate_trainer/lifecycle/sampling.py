"""What the model writes at each evaluation, for people: the same few prompts each time, the likeliest token each time.

Nothing that training depends on is touched: no random generator, no weight, no gradient, not the model's mode.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tollgate_trainer.data.chat import SIMPLE_TEMPLATE
from tollgate_trainer.data.document import Document
from tollgate_trainer.tasks.causal_lm import CausalLM
from tollgate_trainer.tasks.samples import SampleSet

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.loop import TrainingLoop

MAX_NEW_TOKENS = 48
CANNOT = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError)
"""What models raise that can't generate; the training goes on without their samples."""
PROMPT_SHARE = 3
"""Of a plain text the first third is the prompt."""
_DRAW = 20250801


@dataclass(frozen=True, slots=True)
class Prompt:
    """text: as the model gets it; ids: its tokens, the last ones where it is long."""

    text: str
    ids: tuple[int, ...]


def prompts(held_out: SampleSet, tokenizer: Any, count: int, seed: int, positions: int | None) -> list[Prompt]:
    """`count` prompts from held-out documents, drawn by the seed alone: the same at each evaluation and each attempt.

    Args: positions: tokens that the model has places for, None without a limit.
    """
    most = None if positions is None else positions - MAX_NEW_TOKENS
    if most is not None and most < 1:
        return []
    chance = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _DRAW])))
    chosen = sorted(chance.choice(len(held_out), size=min(count, len(held_out)), replace=False).tolist())
    found = []
    for number in chosen:
        ids = _ids(held_out.documents[number], tokenizer)
        if ids:
            ids = ids if most is None else ids[-most:]
            found.append(Prompt(str(tokenizer.decode(ids)), tuple(ids)))
    return found


def _ids(document: Document, tokenizer: Any) -> list[int]:
    """The turns before the last answer, the prompt of a completion, or the beginning of a text."""
    turns = document.messages
    if document.completion is not None and not tokenizer.chat_template:
        return list(tokenizer(document.text[: document.completion].rstrip(), verbose=False)["input_ids"])
    if turns is not None:
        last = max(index for index, turn in enumerate(turns) if turn.role == "assistant")
        rendered = tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.content} for turn in turns[:last]],
            chat_template=tokenizer.chat_template or SIMPLE_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])
    whole = list(tokenizer(document.text, verbose=False)["input_ids"])
    if len(whole) > 1 and whole[-1] == tokenizer.eos_token_id:
        whole.pop()
    return whole[: max(1, len(whole) // PROMPT_SHARE)]


class Sampling:
    """Writes `samples` events; in processes that do not lead it does nothing."""

    def __init__(self, asked: Sequence[Prompt], tokenizer: Any) -> None:
        self._asked = tuple(asked)
        self._tokenizer = tokenizer

    @property
    def count(self) -> int:
        """How many are written."""
        return len(self._asked)

    def tell(self, loop: TrainingLoop, model: Any) -> None:
        """One `samples` event: for each prompt what follows. A model that cannot generate is told once."""
        if not self._asked:
            return
        started = time.monotonic()
        try:
            texts = self._written(loop, model)
        except CANNOT as error:
            self._asked = ()
            loop.session.say(
                "warning",
                message=f"there are no samples: the model cannot generate here ({type(error).__name__}: {error}); "
                "evaluation.samples: 0 asks for none",
            )
            return
        loop.session.say(
            "samples",
            step=loop.state.global_step,
            seconds=round(time.monotonic() - started, 3),
            max_new_tokens=MAX_NEW_TOKENS,
            samples=[{"prompt": one.text, "text": text} for one, text in zip(self._asked, texts, strict=True)],
        )
        loop.session.progress.touch()

    def _written(self, loop: TrainingLoop, model: Any) -> list[str]:
        from transformers import GenerationConfig

        device, tokenizer = loop.args.device, self._tokenizer
        longest = max(len(one.ids) for one in self._asked)
        ids = torch.full((len(self._asked), longest), int(tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(self._asked):  # padding stands on the left: what follows comes right after the prompt
            ids[row, longest - len(one.ids) :] = torch.tensor(one.ids)
            mask[row, longest - len(one.ids) :] = 1
        configured: Any = GenerationConfig
        config = configured(
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        was_training = model.training
        model.eval()
        try:
            with (
                torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
                torch.no_grad(),
                loop.compute_loss_context_manager(),
            ):
                answers = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
                )
        finally:
            model.train(was_training)
        return [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers[:, longest:].tolist()]


def sampling_for(loop: TrainingLoop, count: int) -> Sampling | None:
    """Samples of this run, None where there are none: another task, nothing held out, no place for an answer, or not
    asked for.
    """
    session, held_out = loop.session, loop.plan.validation
    if not count or not isinstance(loop.task, CausalLM) or not len(held_out) or not session.attempt.leads:
        return None
    if loop.sharding.collective_forward:
        session.say(
            "warning", message=f"there are no samples: under {loop.sharding.strategy} all processes would write"
        )
        return None
    tokenizer: Any = loop.processing_class
    model: Any = loop.model
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    seed = session.loaded.manifest.reproducibility.seed
    asked = prompts(held_out, tokenizer, count, seed, positions)
    return Sampling(asked, tokenizer) if asked else None
