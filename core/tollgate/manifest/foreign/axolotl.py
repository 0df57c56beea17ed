"""The rows of the mapping table for names that only Axolotl's YAML has."""

from __future__ import annotations

from typing import Any

from tollgate.manifest.foreign.conversions import Cannot, Known, all_linear, of, only, text
from tollgate.manifest.foreign.row import Row, nowhere, row

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
FORMATS = {
    "chat_template": "chat",
    "alpaca": "prompt_completion",
    "completion": "text",
    "sharegpt": Cannot("make chat of the file first: tollgate dataset convert FILE chat.jsonl"),
    "chat_template.argilla": Cannot("make a file of `messages` first"),
}


def data_file(value: Any, known: Known) -> str:
    """A path; a name without a data file's suffix is a hub's."""
    if str(value).lower().endswith(SUFFIXES):
        return str(value)
    raise Cannot("data is read from a file beside the manifest; download it and set dataset.path")


AXOLOTL: tuple[Row, ...] = (
    row("datasets[0].path datasets[0].data_files", "dataset.path", data_file),
    row(
        "datasets[0].type",
        "dataset.format",
        of(FORMATS, "formats are chat, prompt_completion, text; set dataset.format"),
    ),
    row("datasets[0].field", "dataset.text_field", text),
    row("datasets[0].field_messages", "", only("messages", "the turns stand in `messages`; rename the field")),
    row("datasets[0].message_property_mappings.role", "", only("role", "a turn's role stands in `role`; rename it")),
    row(
        "datasets[0].message_property_mappings.content", "", only("content", "its text stands in `content`; rename it")
    ),
    row("datasets[0].train_on_inputs train_on_inputs", "", only(False, "the assistant's turns alone are learned")),
    nowhere("datasets[0].ds_type datasets[0].split datasets[0].name", "the file's suffix says how it is read", False),
    nowhere("datasets", "several files are dataset.path and dataset.sources, each with its format and weight"),
    nowhere("test_datasets", "held-out documents of their own are dataset.splits.validation_path"),
    nowhere("model_type tokenizer_type is_llama_derived_model", "the base's own config says it", False),
    nowhere("strict dataset_prepared_path dataset_processes", "the trainer decides it", False),
    nowhere("eval_sample_packing", "held-out documents are never packed, so that runs can be compared", False),
    nowhere("pad_to_sequence_len", "it changes the speed alone; hyperparameters.packing fills rows", False),
    row("lora_target_linear", "", all_linear),
    nowhere(
        "loss_watchdog_threshold loss_watchdog_patience", "a loss that is not finite ends the run by itself", False
    ),
    nowhere("evals_per_epoch", "give hyperparameters.eval_steps; the default is once an epoch", False),
    nowhere("saves_per_epoch", "give hyperparameters.save_steps; the default is every 10 minutes", False),
    nowhere("special_tokens.pad_token", "padding is masked, so its token changes nothing", False),
    nowhere(
        "special_tokens.bos_token special_tokens.eos_token special_tokens.unk_token tokens chat_template",
        "the tokenizer's own are used; change them in the base's folder",
    ),
    nowhere("lora_model_dir", "merge the adapter (`tollgate model merge`) and name that as the base"),
    nowhere("embedding_lr embedding_lr_scale loraplus_lr_ratio", "all trained weights have one learning rate"),
    nowhere("cosine_min_lr_ratio cosine_constant_lr_ratio", "the schedule ends at 0 and has no options"),
    nowhere("sequence_parallel_degree context_parallel_size", "a document stays on one device"),
    nowhere("plugins", "extensions are named in `extensions` (docs/how-to/extend.md)"),
    nowhere("unfrozen_parameters", "all weights are trained, or an adapter"),
    row("rl", "", only(False, "only supervised training is done here")),
    row("excess_length_strategy", "", only("truncate", "too long documents lose their end")),
    row("base_model_config tokenizer_config", "model.tokenizer", text),
    row("revision_of_model", "model.revision", text),
    row("peft_use_dora", "adapter.dora"),
    row("peft_use_rslora", "adapter.rslora"),
    row("wandb_mode", "tracking.wandb.mode", text, important=False),
    row("mlflow_run_name", "tracking.mlflow.run_name", text, important=False),
    nowhere(
        "wandb_name wandb_watch wandb_log_model wandb_run_id wandb_tags hf_mlflow_log_artifacts",
        "one tracking run per run, with the run's name and its files",
        False,
    ),
    nowhere(
        "is_mistral_derived_model is_falcon_derived_model eval_table_size eval_max_new_tokens hf_use_auth_token "
        "auto_resume_from_checkpoints tokenizer_use_fast tokenizer_legacy base_model_ignore_patterns "
        "shuffle_merged_datasets lora_fan_in_fan_out total_num_tokens gpu_memory_limit resize_token_embeddings_to_32x",
        "Tollgate has its own way, which changes nothing in the model",
        False,
    ),
    nowhere(
        "s2_attention flex_attention lora_mlp_kernel lora_qkv_kernel lora_o_kernel liger_rope liger_rms_norm "
        "liger_glu_activation liger_fused_linear_cross_entropy",
        "how fast it runs is the trainer's choice",
        False,
    ),
    nowhere("xformers_attention sdp_attention eager_attention flash_attention_2", "chosen by the trainer", False),
)
