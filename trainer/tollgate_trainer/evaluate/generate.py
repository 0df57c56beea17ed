"""Completions of prompts: in batches on the device, with a fixed seed; the same request gives the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tollgate_trainer.data.chat import SIMPLE_TEMPLATE
from tollgate_trainer.data.documents import Message
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Decoding
from tollgate_trainer.refusal import ManifestRefused

Asked = str | tuple[Message, ...]


def decoding(subject: Subject, form: str) -> Decoding:
    """How completions of this subject are made, for the evidence."""
    asked = subject.settings
    return Decoding(
        form=form,
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        completions=asked.completions_per_prompt,
        batch=asked.batch_size,
        seed=subject.seed,
    )


def form(subject: Subject) -> str:
    """As the model was trained: `chat` on conversations, `plain` on texts. Without documents its tokenizer decides."""
    if subject.held_out:
        return "chat" if subject.held_out[0].messages is not None else "plain"
    return "chat" if subject.tokenizer.chat_template else "plain"


def turns(asked: Asked, chosen: str) -> Asked:
    """A text as the user's turn for a chat model, as it is for a plain one."""
    return (Message("user", asked),) if isinstance(asked, str) and chosen == "chat" else asked


def completions(subject: Subject, prompts: Sequence[Asked]) -> tuple[list[list[str]], Decoding]:
    """(texts, how they were made); texts: [prompts][completions_per_prompt], without the prompt and special tokens.

    Temperature 0 takes the likeliest token, anything else draws from the whole distribution. Prompts go in batches of
    batch_size, sorted by their length in tokens; the random numbers come from the seed alone.
    Raises: ManifestRefused when a prompt and its answer don't fit into the model's positions.
    """
    import torch
    from transformers import GenerationConfig

    configured: Any = GenerationConfig
    chosen = form(subject)
    made = decoding(subject, chosen)
    model: Any = subject.model
    encoded = [_ids(subject, turns(prompt, chosen)) for prompt in prompts]
    _check_length(subject, encoded)
    end = model.generation_config.eos_token_id if model.generation_config is not None else None
    end = subject.tokenizer.eos_token_id if end is None else end
    config = configured(
        max_new_tokens=made.max_new_tokens,
        do_sample=made.temperature > 0,
        temperature=made.temperature or None,
        top_k=0 if made.temperature else None,
        num_return_sequences=made.completions,
        eos_token_id=end,
        pad_token_id=subject.tokenizer.pad_token_id or 0,
    )
    order = sorted(range(len(encoded)), key=lambda index: (len(encoded[index]), encoded[index], index))
    texts: list[list[str]] = [[] for _ in encoded]
    devices = [subject.device] if subject.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(subject.seed)
        for first in range(0, len(order), made.batch):
            batch = order[first : first + made.batch]
            longest = max(len(encoded[index]) for index in batch)
            ids = torch.full((len(batch), longest), config.pad_token_id or 0, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(batch):  # padding stands on the left: what follows comes right after the prompt
                ids[row, longest - len(encoded[index]) :] = torch.tensor(encoded[index])
                mask[row, longest - len(encoded[index]) :] = 1
            answers = model.generate(
                input_ids=ids.to(subject.device), attention_mask=mask.to(subject.device), generation_config=config
            )[:, longest:].tolist()
            for row, index in enumerate(batch):
                own = answers[row * made.completions : (row + 1) * made.completions]
                texts[index] = [str(subject.tokenizer.decode(answer, skip_special_tokens=True)) for answer in own]
    return texts, made


def _ids(subject: Subject, asked: Asked) -> list[int]:
    tokenizer: Any = subject.tokenizer
    if isinstance(asked, str):
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        ids = list(tokenizer(asked, add_special_tokens=False, verbose=False)["input_ids"])
        return [start, *ids] if start is not None else ids
    rendered = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in asked],
        chat_template=tokenizer.chat_template or SIMPLE_TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
    )
    return list(tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])


def _check_length(subject: Subject, encoded: Sequence[Sequence[int]]) -> None:
    places = getattr(subject.model.config, "max_position_embeddings", None)
    longest = max((len(ids) for ids in encoded), default=0)
    if places is not None and longest + subject.settings.max_new_tokens > places:
        raise ManifestRefused(
            f"the longest prompt has {longest} tokens, with {subject.settings.max_new_tokens} new ones that is more "
            f"than the model's {places} positions; lower evaluation.max_new_tokens or shorten the prompts",
            "evaluation.max_new_tokens",
        )
