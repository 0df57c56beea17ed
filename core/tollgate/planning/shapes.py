"""A model's sizes: exact when the trainer counted them, by formula for Llama-like configs, else unknown, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LLAMA_LIKE = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "phi3"})
"""Model types whose parameter count is that of `count`: gated feed-forward, grouped attention, RMS norms."""

_PATTERNS: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory and FLOPs depend on.

    parameters: all of them; products: those that take part in a matrix product per token (all but the embedding
    table, which is looked up; a tied one is counted, because the head multiplies by it); attention: heads x head size;
    keys: key-value heads x head size; feed_forward: inner width; gated: whether it has a gate; positions: longest
    sequence, None without a limit; counted: exact count by instantiation, not by formula; adapter: weights that are
    trained beside the frozen ones by the adapter that is asked for, None where they were not counted; chunks: whether
    its loss can be computed without holding all logits, None where nobody tried.
    """

    parameters: int
    products: int
    layers: int
    hidden: int
    attention: int
    keys: int
    feed_forward: int
    vocabulary: int
    gated: bool = True
    heads: int = 1
    attention_dropout: bool = False
    positions: int | None = None
    counted: bool = False
    adapter: int | None = None
    chunks: bool | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a run. trainable: of `total`; with an adapter the rest is frozen."""

    total: int
    trainable: int


def shape_of(config: Mapping[str, Any], parameters: int | None = None) -> Shape | None:
    """The shape of a transformers config; None when it does not say enough (unknown is not zero).

    Args: parameters: exact count, where a program instantiated the model; without it only Llama-like types are known.
    """
    found = {name: _first(config, keys) for name, keys in _PATTERNS.items()}
    hidden, layers, heads, vocabulary = (found[name] for name in ("hidden", "layers", "heads", "vocabulary"))
    if hidden is None or layers is None or heads is None or vocabulary is None:
        return None
    kind = str(config.get("model_type", ""))
    head_size = _whole(config.get("head_dim")) or hidden // heads
    key_heads = _whole(config.get("num_key_value_heads")) or heads
    inner = _first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden
    tied = bool(config.get("tie_word_embeddings", kind in ("gpt2", "gemma", "bert")))
    gated = kind not in ("gpt2", "gpt_neox", "opt", "bert", "roberta", "distilbert", "gpt_neo", "phi")
    attention, keys = heads * head_size, key_heads * head_size
    if parameters is None:
        if kind not in LLAMA_LIKE:
            return None
        parameters = count(hidden, layers, attention, keys, inner, vocabulary, tied, kind, head_size)
    products = parameters - (0 if tied else vocabulary * hidden)
    dropout = config.get("attention_dropout", config.get("attn_pdrop", 0.0))
    return Shape(
        parameters=parameters,
        products=max(products, 1),
        layers=layers,
        hidden=hidden,
        attention=attention,
        keys=keys,
        feed_forward=inner,
        vocabulary=vocabulary,
        gated=gated,
        heads=heads,
        attention_dropout=isinstance(dropout, int | float) and dropout > 0,
        positions=found["positions"],
        counted=False,
    )


def count(
    hidden: int, layers: int, attention: int, keys: int, inner: int, vocabulary: int, tied: bool, kind: str, head: int
) -> int:
    """Parameters of a Llama-like model: embeddings, q k v o, gate up down, two norms a layer, one at the end."""
    layer = 2 * hidden * attention + 2 * hidden * keys + 3 * hidden * inner + 2 * hidden
    if kind == "qwen2":
        layer += attention + 2 * keys  # biases of q, k and v
    if kind == "qwen3":
        layer += 2 * head  # norms of q and k
    return layers * layer + hidden + vocabulary * hidden * (1 if tied else 2)


def lora_weights(shape: Shape, rank: int) -> int:
    """Trainable weights of LoRA on all linear layers but the head: r (in + out) for each."""
    linear = [(shape.hidden, shape.attention), (shape.hidden, shape.keys), (shape.hidden, shape.keys)]
    linear += [(shape.attention, shape.hidden), (shape.feed_forward, shape.hidden)]
    linear += [(shape.hidden, shape.feed_forward)] * (2 if shape.gated else 1)
    return shape.layers * sum(rank * (a + b) for a, b in linear)


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((number for key in keys if (number := _whole(config.get(key))) is not None), None)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
