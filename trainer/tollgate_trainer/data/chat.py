"""Conversations as token ids with a mask of the assistant's tokens. It fails closed: no certain mask, no training.

A tokenizer without a chat template gets SIMPLE_TEMPLATE. A template with `{% generation %}` marks the assistant's turns
itself; for others the turns are found by rendering the conversation turn by turn, which is exact as long as each
rendering begins with the one before. Either way the result is checked for each document: one part per assistant turn,
each holds its turn, and nothing of anyone else's stands in one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tollgate_trainer.data.document import Document
from tollgate_trainer.refusal import DatasetRefused, ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIMPLE_TEMPLATE = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}{{ eos_token or '' }}{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}{{ eos_token or '' }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""`<|role|>`, a line break, the content, the end token, a line break; for each turn."""
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
FIX = (
    "put {% generation %} before the assistant's content in the template and {% endgeneration %} after its end token, "
    "around nothing else"
)

Turns = list[dict[str, str]]
Spans = list[tuple[int, int]]
"""Where the assistant's parts stand in a rendered conversation, in characters, in order."""


def encode(document: Document, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """(token ids, is the token the assistant's), both of the conversation's length.

    Raises: DatasetRefused when the assistant's tokens cannot be told from the rest; ModelRefused when the template or
    the tokenizer cannot do it at all.
    """
    text, spans = rendered(document, tokenizer)
    if not tokenizer.is_fast:
        raise ModelRefused(
            "the assistant's tokens can only be found with a fast tokenizer (tokenizer.json)", "model.tokenizer"
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    mask = [any(start < last and first < end for start, end in spans) for first, last in encoded["offset_mapping"]]
    if not any(mask):
        raise DatasetRefused(f"{document.origin}: no token is the assistant's; {FIX}", "model.tokenizer")
    return list(encoded["input_ids"]), mask


def rendered(document: Document, tokenizer: PreTrainedTokenizerBase) -> tuple[str, Spans]:
    """The conversation as the template writes it, and where the assistant's parts stand in it.

    Raises: as `encode`.
    """
    template = template_of(tokenizer)
    assert document.messages is not None
    turns = [{"role": turn.role, "content": turn.content} for turn in document.messages]
    read = _marked if GENERATION.search(template) else _by_prefix
    try:
        text, spans = read(turns, tokenizer, template, document.origin)
    except _template_errors() as error:
        raise DatasetRefused(
            f"{document.origin}: the chat template refuses this conversation ({type(error).__name__}: {error}); "
            "mend the conversation, or the template in tokenizer_config.json",
            "model.tokenizer",
        ) from error
    _check(text, spans, turns, document.origin)
    return text, spans


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's template, or the simple one. Raises: ModelRefused when it has several."""
    template = tokenizer.chat_template or SIMPLE_TEMPLATE
    if not isinstance(template, str):
        raise ModelRefused(
            "the tokenizer has several chat templates; keep one in tokenizer_config.json", "model.tokenizer"
        )
    return template


def _marked(turns: Turns, tokenizer: PreTrainedTokenizerBase, template: str, _: str) -> tuple[str, Spans]:
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template
    texts, spans = render(
        conversations=[turns],
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return str(texts[0]), [(int(start), int(end)) for start, end in spans[0]]


def _by_prefix(turns: Turns, tokenizer: PreTrainedTokenizerBase, template: str, origin: str) -> tuple[str, Spans]:
    def render(count: int, prompt: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                turns[:count], chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        )

    whole = render(len(turns), False)
    spans = []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        if index == 0:
            raise DatasetRefused(
                f"{origin}: the conversation opens with the assistant, whose beginning cannot be told from the "
                f"template's own words; begin it with a user, or {FIX}",
                "model.tokenizer",
            )
        before, after = render(index, True), render(index + 1, False)
        if before == render(index, False) and not after[len(before) :].lstrip().startswith(turn["content"].strip()):
            raise DatasetRefused(
                f"{origin}: the chat template has no add_generation_prompt, so the head of turn {index} would be "
                f"learned with it; {FIX}",
                "model.tokenizer",
            )
        if not (after.startswith(before) and whole.startswith(after)):
            raise DatasetRefused(
                f"{origin}: the chat template renders turn {index} differently inside the conversation than at its "
                f"end, so the assistant's tokens cannot be told apart; {FIX}",
                "model.tokenizer",
            )
        spans.append((len(before), len(after)))
    return whole, spans


def _check(text: str, spans: Spans, turns: Turns, origin: str) -> None:
    """Raises: DatasetRefused unless the parts are exactly the assistant's turns, in their order."""
    wanted = [turn["content"].strip() for turn in turns if turn["role"] == "assistant"]
    if len(spans) != len(wanted):
        raise DatasetRefused(
            f"{origin}: the chat template marks {len(spans)} parts as the assistant's, the conversation has "
            f"{len(wanted)} assistant turns; {FIX}",
            "model.tokenizer",
        )
    last = 0
    for index, ((start, end), content) in enumerate(zip(spans, wanted, strict=True)):
        if not last <= start <= end <= len(text) or content not in text[start:end]:
            raise DatasetRefused(
                f"{origin}: part {index} that the chat template marks as the assistant's is {text[start:end][:80]!r}, "
                f"its turn is {content[:80]!r}; {FIX} (a template that shortens turns, such as by their thinking, "
                "cannot be trained on: shorten them in the data)",
                "model.tokenizer",
            )
        last = end
    _check_others(text, spans, turns, origin)


def _check_others(text: str, spans: Spans, turns: Turns, origin: str) -> None:
    """What is not the assistant's stands outside of the parts."""
    outside, last = [], 0
    for start, end in spans:
        outside.append(text[last:start])
        last = end
    rest = "\0".join([*outside, text[last:]])
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant" and turn["content"].strip() not in rest:
            raise DatasetRefused(
                f"{origin}: turn {index} ({turn['role']}) is lost by the chat template, or stands in what it marks as "
                f"the assistant's and would be learned; {FIX}",
                "model.tokenizer",
            )


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, KeyError)
