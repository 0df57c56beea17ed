"""`model`: what is started from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section

DEFAULT_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
"""What is trained, from scratch, when a manifest names no model: 5 million weights that a laptop's CPU can train."""


class Model(Section):
    """The model to start from: `base` (a path, or a hub id with a revision), or `config` to start from scratch."""

    base: str | None = Field(
        default=None, description="A folder with a saved model below the dataset root, or the id of one on a hub."
    )
    revision: str | None = Field(default=None, description="Of a hub's model: a commit. Needed with an id.")
    config: dict[str, Any] | None = Field(
        default=None,
        description="A transformers config with model_type; weights are initialised from the seed. With neither `base` "
        "nor `config`: a Llama of 5 million weights, to try things.",
    )
    tokenizer: str | None = Field(
        default=None,
        description="Path or hub id; default: the base's own. With `config` and none given one is trained on the data.",
    )
    quantization: Literal["none", "int8", "nf4"] = Field(
        default="none", description="How the frozen base is held; needs an adapter, and a `base`."
    )
    trust_remote_code: bool = Field(default=False, description="Code that a model brings is never run.")
