"""Words for optimizers, schedules, tasks and the like -> the manifest's."""

from __future__ import annotations

from typing import Any

from tollgate.manifest.foreign.conversions import Cannot, Known, of, same

ADAMW = {
    **dict.fromkeys(
        ("adamw", "adamw_torch", "adamw_hf", "adamw_torch_fused", "fusedadam", "adamw_apex_fused", "paged_adamw_32bit"),
        "adamw",
    ),
    **dict.fromkeys(
        ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_8bit"),
        Cannot("AdamW keeps its states in 32 bits here: more memory, which `tollgate plan` counts"),
    ),
    "adam": Cannot("Adam without decoupled weight decay is not offered; adamw is"),
}
SCHEDULES = {
    "linear": "linear",
    "linearlr": "linear",
    "get_linear_schedule_with_warmup": "linear",
    "cosine": "cosine",
    "cosineannealinglr": "cosine",
    "get_cosine_schedule_with_warmup": "cosine",
    "cosine_with_warmup": "cosine",
    "linear_with_warmup": "linear",
    "constant": "constant",
    "constantlr": "constant",
    "constant_with_warmup": "constant",
    "get_constant_schedule_with_warmup": "constant",
}
TASKS = {
    **dict.fromkeys(("causal_lm", "causal-lm", "clm", "text-generation", "sft", "language_modeling"), "causal-lm"),
    **dict.fromkeys(("classification", "seq_cls", "sequence_classification", "text-classification"), "classification"),
    **dict.fromkeys(("span", "qa", "question_answering", "question-answering", "question_ans"), "span"),
    "joint": "joint",
}
PROFILES = {
    **dict.fromkeys(("fast", "speed", "throughput"), "fast"),
    **dict.fromkeys(("balanced", "default"), "balanced"),
    **dict.fromkeys(("quality", "accuracy", "best"), "quality"),
    **dict.fromkeys(("memory_efficient", "memory-efficient", "memory", "low_memory"), "memory_efficient"),
    "none": "none",
}
ADAPTERS = {
    "lora": "lora",
    "none": "none",
    "full": "none",
    "moe-lora": "moe-lora",
    "moe_lora": "moe-lora",
    "true": "lora",
    "false": "none",
    "qlora": Cannot("QLoRA is two fields here: adapter.type lora and model.quantization nf4"),
}
FORMATS = {
    **dict.fromkeys(("auto", "json", "jsonl", "csv", "parquet", "txt"), "auto"),
    **dict.fromkeys(("chat", "messages", "chatml", "openai"), "chat"),
    **dict.fromkeys(("conversations", "sharegpt"), "conversations"),
    **dict.fromkeys(("prompt_completion", "completion", "instruction"), "prompt_completion"),
    **{name: name for name in ("text", "classification", "span", "joint")},
}
FLAGS = {"true": True, "false": Cannot("off, as it is without it", harmless=True)}

adapter_words = of(ADAPTERS, "adapters are lora and moe-lora")


def adapter_type(value: Any, known: Known) -> Any:
    """An adapter by name; `qlora` is plain LoRA where another key says that the base has 4 bits."""
    four_bits = any(same(known.get(key), known) is True for key in ("load_in_4bit", "use_4bit", "model.load_in_4bit"))
    return "lora" if str(value).strip().lower() == "qlora" and four_bits else adapter_words(value, known)
