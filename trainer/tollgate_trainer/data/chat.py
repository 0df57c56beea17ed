"""Conversations as token ids with a mask of the assistant's tokens. It fails closed: no certain mask, no training.

A tokenizer without a chat template gets SIMPLE_TEMPLATE. A template with `{% generation %}` marks the assistant's turns
itself; for others the turns are found by rendering the conversation turn by turn, which is exact as long as each
rendering begins with the one before (checked per document).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollgate_trainer.data.documents import Document
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


def encode(document: Document, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """(token ids, is the token the assistant's), both of the conversation's length.

    Raises: DatasetRefused when the assistant's tokens cannot be told from the rest; ModelRefused when the template or
    the tokenizer cannot do it at all.
    """
    template = tokenizer.chat_template or SIMPLE_TEMPLATE
    if not isinstance(template, str):
        raise ModelRefused(
            "the tokenizer has several chat templates; keep one in tokenizer_config.json", "model.tokenizer"
        )
    if "{% generation %}" in template or "{%- generation" in template:
        return _marked(document, tokenizer, template)
    return _by_prefix(document, tokenizer, template)


def _turns(document: Document) -> list[dict[str, str]]:
    assert document.messages is not None
    return [{"role": turn.role, "content": turn.content} for turn in document.messages]


def _marked(document: Document, tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[list[int], list[bool]]:
    encoded: Any = tokenizer.apply_chat_template(
        _turns(document), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = [bool(flag) for flag in encoded["assistant_masks"]]
    return list(encoded["input_ids"]), _not_empty(mask, document)


def _by_prefix(document: Document, tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[list[int], list[bool]]:
    turns = _turns(document)

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
        before, after = render(index, True), render(index + 1, False)
        if not (after.startswith(before) and whole.startswith(after)):
            raise DatasetRefused(
                f"{document.origin}: the chat template renders turn {index} differently inside the conversation "
                f"than at its end, so the assistant's tokens cannot be told apart; mark them in the template with "
                "{% generation %} ... {% endgeneration %}",
                "model.tokenizer",
            )
        spans.append((len(before), len(after)))
    if not tokenizer.is_fast:
        raise ModelRefused(
            "the assistant's tokens can only be found with a fast tokenizer (tokenizer.json)", "model.tokenizer"
        )
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    mask = [any(start < last and first < end for start, end in spans) for first, last in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), _not_empty(mask, document)


def _not_empty(mask: list[bool], document: Document) -> list[bool]:
    if not any(mask):
        raise DatasetRefused(
            f"{document.origin}: the chat template marks no token as the assistant's; look at its "
            "{% generation %} block",
            "model.tokenizer",
        )
    return mask
