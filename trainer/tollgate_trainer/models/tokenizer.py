"""The tokenizer: a given one, or one trained on the training documents (byte-level BPE, the same for the same data)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tollgate_trainer.data.chat import SIMPLE_TEMPLATE
from tollgate_trainer.data.documents import ROLES, Document
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
DEFAULT_VOCABULARY = 8192
SMALLEST_VOCABULARY = 512


def train(documents: Sequence[Document], vocabulary: int) -> str:
    """A byte-level BPE tokenizer as the JSON of the `tokenizers` library, with at most `vocabulary` entries.

    Every text starts with BEGIN, so that its first token can be predicted too.
    Raises: ModelRefused when the vocabulary is too small for the 256 bytes and the marks.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    if vocabulary < SMALLEST_VOCABULARY:
        raise ModelRefused(
            f"a tokenizer of {vocabulary} entries cannot be trained; give at least {SMALLEST_VOCABULARY}",
            "model.config.vocab_size",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [PAD, BEGIN, END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer.train_from_iterator(
        (text for document in documents for text in (document.question, document.text) if text),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=marks,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {END} $B:1",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in (BEGIN, END)],
    )
    return str(tokenizer.to_str())


def from_json(text: str) -> PreTrainedTokenizerBase:
    """The trained tokenizer as transformers has it, with its marks and the chat template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerBase = make(
        tokenizer_object=Tokenizer.from_str(text),
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = SIMPLE_TEMPLATE
    return tokenizer


def load(source: Source, field: str = "model.tokenizer") -> PreTrainedTokenizerBase:
    """A saved tokenizer; without a padding token the end token pads (padding carries no loss).

    Raises: ModelRefused when it cannot be loaded or has neither token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.name, revision=source.revision or "main", local_files_only=source.offline, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelRefused(f"no tokenizer could be loaded from {source.name}: {error}", field) from error
    for name in ("is_local", "local_files_only"):  # how it was loaded is no part of what it is, and would be saved
        tokenizer.init_kwargs.pop(name, None)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelRefused(
                f"the tokenizer of {source.name} has neither a padding nor an end token; add one to its "
                "tokenizer_config.json",
                field,
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
