"""Rows of the mapping table: who the run is, its model, its adapter and its data."""

from __future__ import annotations

from tollgate.manifest.foreign.conversions import (
    DATA_PATHS,
    Cannot,
    of,
    percent,
    percent_only,
    repository,
    share,
    text,
    words,
)
from tollgate.manifest.foreign.row import Row, nowhere, row
from tollgate.manifest.foreign.vocabulary import FORMATS, TASKS, adapter_type

SUBJECT: tuple[Row, ...] = (
    # --- who it is ----------------------------------------------------------------------------------------------------
    row(
        "run_name experiment_name experiment.name experiment.run_name project.name job_name run.name name", "name", text
    ),
    row("output_dir model.output_dir experiment.output_dir save_dir checkpoint.dir checkpoint_dir", "output_dir", text),
    row("description experiment.description notes experiment.notes", "description", text, important=False),
    row("version experiment.version config_version", "version", text, important=False),
    row("experiment.id manifest_id experiment_id", "manifest_id", text, important=False),
    # --- model --------------------------------------------------------------------------------------------------------
    row(
        "model_name_or_path model.name_or_path model.name model.base model.base_model base_model base_model_name "
        "model_name "
        "model.pretrained model.pretrained_model_name_or_path pretrained_model_name_or_path model.path model_id model",
        "model.base",
        text,
    ),
    row("model_revision model.revision revision", "model.revision", text),
    row(
        "tokenizer_name tokenizer_name_or_path model.tokenizer model.tokenizer_name tokenizer tokenizer.name",
        "model.tokenizer",
        text,
    ),
    row("task task_type model.task model.task_type experiment.task", "task", of(TASKS, "no such task here")),
    row(
        "load_in_4bit use_4bit model.load_in_4bit",
        "model.quantization",
        of({"true": "nf4", "false": Cannot("off, as it is without it", harmless=True)}, "true or false"),
    ),
    row(
        "load_in_8bit use_8bit model.load_in_8bit",
        "model.quantization",
        of({"true": "int8", "false": Cannot("off, as it is without it", harmless=True)}, "true or false"),
    ),
    row(
        "quantization model.quantization",
        "model.quantization",
        of({"4bit": "nf4", "nf4": "nf4", "int4": "nf4", "8bit": "int8", "int8": "int8", "none": "none"}, "nf4 or int8"),
    ),
    row("trust_remote_code model.trust_remote_code", "model.trust_remote_code"),
    nowhere("model._target_ model.torch_dtype torch_dtype model.dtype", "the task and `precision` decide it", False),
    nowhere(
        "attn_implementation model.attn_implementation use_flash_attention flash_attention",
        "chosen by the trainer",
        False,
    ),
    # --- adapter ------------------------------------------------------------------------------------------------------
    row(
        "use_lora use_peft peft_method peft.method peft_type peft.type adapter adapter.type lora.enabled model.adapter",
        "adapter.type",
        adapter_type,
    ),
    row("lora_r lora_rank lora.r lora.rank peft.r adapter.r adapter.rank model.lora.r model.lora_r", "adapter.rank"),
    row(
        "lora_alpha lora.alpha lora.lora_alpha peft.alpha peft.lora_alpha adapter.alpha model.lora.alpha",
        "adapter.alpha",
    ),
    row(
        "lora_dropout lora.dropout lora.lora_dropout peft.dropout peft.lora_dropout adapter.dropout model.lora.dropout",
        "adapter.dropout",
    ),
    row(
        "lora_target_modules target_modules lora.target_modules peft.target_modules adapter.target_modules "
        "model.lora.target_modules",
        "adapter.target_modules",
        words,
    ),
    row("use_rslora lora.use_rslora rslora", "adapter.rslora"),
    row("use_dora lora.use_dora dora", "adapter.dora"),
    # --- data ---------------------------------------------------------------------------------------------------------
    row(DATA_PATHS, "dataset.path", text),
    row(
        "validation_file eval_file val_file val_data_path data.validation_path data.val_path "
        "data.validation_file data.val_file data.validation data.val data.eval_path",
        "dataset.splits.validation_path",
        text,
    ),
    row(
        "validation_split val_split eval_split data.validation_split data.val_split data.val_ratio "
        "val_ratio eval_ratio test_size data.test_size",
        "dataset.splits.validation",
        percent,
    ),
    row("val_set_size", "dataset.splits.validation", share),
    row("validation_split_percentage data.validation_split_percentage", "dataset.splits.validation", percent_only),
    row("dataset_name dataset data.name data.dataset_name data.dataset dataset.name", "dataset.name", repository),
    row(
        "text_column text_field dataset_text_field data.text_column data.text_field data.text_key",
        "dataset.text_field",
        text,
    ),
    row("dataset_format data_format data.format", "dataset.format", of(FORMATS, "no such format here")),
    row("dataset_version data.version", "dataset.version", text, important=False),
    row("max_train_samples data.max_samples data.max_train_samples", "dataset.limit"),
    nowhere(
        "train_split data.train_split data.train_ratio train_ratio", "all that is not held out is trained on", False
    ),
    nowhere(
        "test_file data.test_path data.test_file test_split data.test_split data.test_ratio",
        "there is no third split: the held-out documents are never trained on, and evaluation uses them",
    ),
    nowhere(
        "data.shuffle shuffle pin_memory data.pin_memory "
        "dataloader_pin_memory data.cache_dir cache_dir preprocessing_num_workers dataloader_drop_last "
        "remove_unused_columns",
        "the trainer decides it",
        False,
    ),
)
