"""The mapping table: names that configurations use elsewhere, and the manifest's field that each stands for.

One table for all shapes. A name is a dotted key in lower case; generic sections around it (`training.`, `args.`) do not
count, so `training.learning_rate` is found under `learning_rate`. A row without a field says where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

from tollgate.manifest.foreign.conversions import (
    DATA_PATHS,
    Cannot,
    Convert,
    amp,
    amp_dtype,
    fsdp,
    greater,
    keep_best,
    metric,
    of,
    only,
    percent,
    percent_only,
    precision,
    report_to,
    repository,
    same,
    strategy,
    switch,
    text,
    tracker,
    words,
    zero,
)
from tollgate.manifest.foreign.vocabulary import ADAMW, ADAPTERS, FLAGS, FORMATS, PROFILES, SCHEDULES, TASKS

GENERIC = frozenset(
    [
        *("training", "train", "trainer", "training_args", "training_arguments", "trainingarguments", "args"),
        *("hyperparameters", "hparams", "hyperparams", "params", "config", "cfg", "settings", "safety", "tracking"),
        *("finetune", "finetuning", "fine_tuning", "optimization"),
    ]
)
"""Sections that say nothing about what their keys mean."""


@dataclass(frozen=True, slots=True)
class Row:
    """names: foreign keys; field: the manifest's, "" when there is none; note: told beside what was mapped, or why not.

    important: leaving it out changes what is trained, judged or spent.
    """

    names: tuple[str, ...]
    field: str
    convert: Convert = same
    note: str = ""
    important: bool = True


def _row(
    names: str | tuple[str, ...], field: str, convert: Convert = same, note: str = "", important: bool = True
) -> Row:
    return Row(tuple(names.split()) if isinstance(names, str) else names, field, convert, note, important)


def _nowhere(names: str, why: str, important: bool = True) -> Row:
    return _row(names, "", same, why, important)


HYPER = "hyperparameters."

TABLE: tuple[Row, ...] = (
    # --- who it is ----------------------------------------------------------------------------------------------------
    _row(
        "run_name experiment_name experiment.name experiment.run_name project.name job_name run.name name", "name", text
    ),
    _row(
        "output_dir model.output_dir experiment.output_dir save_dir checkpoint.dir checkpoint_dir", "output_dir", text
    ),
    _row("description experiment.description notes experiment.notes", "description", text, important=False),
    _row("version experiment.version config_version", "version", text, important=False),
    _row("experiment.id manifest_id experiment_id", "manifest_id", text, important=False),
    # --- model --------------------------------------------------------------------------------------------------------
    _row(
        "model_name_or_path model.name_or_path model.name model.base model.base_model base_model base_model_name "
        "model_name "
        "model.pretrained model.pretrained_model_name_or_path pretrained_model_name_or_path model.path model_id model",
        "model.base",
        text,
    ),
    _row("model_revision model.revision revision", "model.revision", text),
    _row(
        "tokenizer_name tokenizer_name_or_path model.tokenizer model.tokenizer_name tokenizer tokenizer.name",
        "model.tokenizer",
        text,
    ),
    _row("task task_type model.task model.task_type experiment.task", "task", of(TASKS, "no such task here")),
    _row(
        "load_in_4bit use_4bit model.load_in_4bit",
        "model.quantization",
        of({"true": "nf4", "false": "none"}, "true or false"),
    ),
    _row(
        "load_in_8bit use_8bit model.load_in_8bit",
        "model.quantization",
        of({"true": "int8", "false": "none"}, "true or false"),
    ),
    _row(
        "quantization model.quantization",
        "model.quantization",
        of({"4bit": "nf4", "nf4": "nf4", "int4": "nf4", "8bit": "int8", "int8": "int8", "none": "none"}, "nf4 or int8"),
    ),
    _row("trust_remote_code model.trust_remote_code", "model.trust_remote_code"),
    _nowhere("model._target_ model.torch_dtype torch_dtype model.dtype", "the task and `precision` decide it", False),
    _nowhere(
        "attn_implementation model.attn_implementation use_flash_attention flash_attention",
        "chosen by the trainer",
        False,
    ),
    # --- adapter ------------------------------------------------------------------------------------------------------
    _row(
        "use_lora use_peft peft_method peft.method peft_type peft.type adapter adapter.type lora.enabled model.adapter",
        "adapter.type",
        of(ADAPTERS, "adapters are lora and moe-lora"),
    ),
    _row("lora_r lora_rank lora.r lora.rank peft.r adapter.r adapter.rank model.lora.r model.lora_r", "adapter.rank"),
    _row(
        "lora_alpha lora.alpha lora.lora_alpha peft.alpha peft.lora_alpha adapter.alpha model.lora.alpha",
        "adapter.alpha",
    ),
    _row(
        "lora_dropout lora.dropout lora.lora_dropout peft.dropout peft.lora_dropout adapter.dropout model.lora.dropout",
        "adapter.dropout",
    ),
    _row(
        "lora_target_modules target_modules lora.target_modules peft.target_modules adapter.target_modules "
        "model.lora.target_modules",
        "adapter.target_modules",
        words,
    ),
    _row("use_rslora lora.use_rslora rslora", "adapter.rslora"),
    _row("use_dora lora.use_dora dora", "adapter.dora"),
    # --- data ---------------------------------------------------------------------------------------------------------
    _row(DATA_PATHS, "dataset.path", text),
    _row(
        "validation_file eval_file val_file val_data_path data.validation_path data.val_path "
        "data.validation_file data.val_file data.validation data.val data.eval_path",
        "dataset.splits.validation_path",
        text,
    ),
    _row(
        "validation_split val_split eval_split data.validation_split data.val_split data.val_ratio val_ratio "
        "eval_ratio test_size data.test_size",
        "dataset.splits.validation",
        percent,
    ),
    _row("validation_split_percentage data.validation_split_percentage", "dataset.splits.validation", percent_only),
    _row("dataset_name dataset data.name data.dataset_name data.dataset dataset.name", "dataset.name", repository),
    _row(
        "text_column text_field dataset_text_field data.text_column data.text_field data.text_key",
        "dataset.text_field",
        text,
    ),
    _row("dataset_format data_format data.format", "dataset.format", of(FORMATS, "no such format here")),
    _row("dataset_version data.version", "dataset.version", text, important=False),
    _row("max_train_samples data.max_samples data.max_train_samples", "dataset.limit"),
    _nowhere(
        "train_split data.train_split data.train_ratio train_ratio", "all that is not held out is trained on", False
    ),
    _nowhere(
        "test_file data.test_path data.test_file test_split data.test_split data.test_ratio",
        "there is no third split: the held-out documents are never trained on, and evaluation uses them",
    ),
    _nowhere(
        "dataloader_num_workers data.num_workers num_workers data.shuffle shuffle pin_memory data.pin_memory "
        "dataloader_pin_memory data.cache_dir cache_dir preprocessing_num_workers dataloader_drop_last "
        "remove_unused_columns",
        "the trainer decides it",
        False,
    ),
    # --- how long and how much ----------------------------------------------------------------------------------------
    _row("num_train_epochs num_epochs epochs max_epochs n_epochs", HYPER + "num_train_epochs"),
    _row("max_steps max_train_steps total_steps", HYPER + "max_steps", note="-1 means by epochs"),
    _row(
        "per_device_train_batch_size train_batch_size micro_batch_size batch_size data.batch_size "
        "data.train_batch_size per_gpu_train_batch_size",
        HYPER + "per_device_train_batch_size",
        note="samples per process and micro-batch",
    ),
    _row(
        "per_device_eval_batch_size eval_batch_size data.eval_batch_size val_batch_size data.val_batch_size",
        HYPER + "per_device_eval_batch_size",
    ),
    _row(
        "gradient_accumulation_steps accumulate_grad_batches grad_accum_steps accumulation_steps grad_accumulation",
        HYPER + "gradient_accumulation_steps",
    ),
    _row(
        "max_seq_length max_length max_seq_len block_size model_max_length data.max_length "
        "data.max_seq_length model.max_length model.max_seq_length seq_length cutoff_len "
        "tokenizer.max_length",
        HYPER + "max_seq_length",
    ),
    _row("packing data.packing sample_packing", HYPER + "packing"),
    _nowhere(
        "effective_batch_size global_batch_size total_batch_size",
        "give per_device_train_batch_size and gradient_accumulation_steps; the product with the processes is this",
    ),
    _row(
        "auto_find_batch_size",
        "",
        only(False, "a run that is out of memory halves its micro-batch in the next attempt by itself"),
    ),
    # --- optimisation -------------------------------------------------------------------------------------------------
    _row("learning_rate lr optimizer.lr optimizer.learning_rate optim.lr", HYPER + "learning_rate"),
    _row("weight_decay optimizer.weight_decay optim.weight_decay", HYPER + "weight_decay"),
    _row(
        "optim optimizer optimizer.name optimizer.type optimizer._target_ optim.name optim._target_",
        HYPER + "optimizer.name",
        of(ADAMW, "the optimizer is AdamW; this one would train other weights"),
    ),
    _row("optimizer.betas betas adam_betas optim.betas", HYPER + "optimizer.betas"),
    _row("adam_beta1 optimizer.beta1", HYPER + "optimizer.betas[0]"),
    _row("adam_beta2 optimizer.beta2", HYPER + "optimizer.betas[1]"),
    _row("adam_epsilon optimizer.eps optimizer.epsilon adam_eps optim.eps", HYPER + "optimizer.eps"),
    _row(
        "max_grad_norm gradient_clip_val clip_grad_norm grad_clip gradient_clipping max_gradient_norm "
        "optimizer.max_grad_norm",
        HYPER + "max_grad_norm",
    ),
    _row(
        "lr_scheduler_type lr_scheduler scheduler scheduler.name scheduler.type scheduler._target_ optimizer.scheduler",
        HYPER + "scheduler.name",
        of(SCHEDULES, "schedulers are linear, cosine and constant, each with a warm-up"),
    ),
    _row(
        "warmup_steps num_warmup_steps scheduler.warmup_steps scheduler.num_warmup_steps optimizer.warmup_steps",
        HYPER + "warmup_steps",
    ),
    _row("warmup_ratio scheduler.warmup_ratio optimizer.warmup_ratio warmup_fraction", HYPER + "warmup_ratio"),
    _nowhere(
        "scheduler.num_training_steps scheduler.t_max scheduler.total_iters scheduler.total_steps",
        "a scheduler runs over all of the training's steps",
        False,
    ),
    _nowhere(
        "scheduler.eta_min scheduler.min_lr lr_scheduler_kwargs scheduler.num_cycles",
        "the schedule ends at 0 and has no options",
    ),
    _nowhere(
        "optimizer.amsgrad optimizer.foreach optimizer.fused optimizer.capturable",
        "the trainer's AdamW has its own way",
        False,
    ),
    _nowhere("label_smoothing label_smoothing_factor neftune_noise_alpha", "the loss is the task's own"),
    _row(
        "gradient_checkpointing model.gradient_checkpointing activation_checkpointing", HYPER + "gradient_checkpointing"
    ),
    # --- numbers ------------------------------------------------------------------------------------------------------
    _row(
        "bf16",
        HYPER + "bf16",
        of({"true": True, "false": Cannot("precision auto decides", harmless=True)}, "true or false"),
    ),
    _row(
        "fp16",
        HYPER + "fp16",
        of({"true": True, "false": Cannot("precision auto decides", harmless=True)}, "true or false"),
    ),
    _row("precision mixed_precision training_precision", "precision", precision),
    _row("amp.enabled use_amp amp", "precision", amp),
    _row("amp.dtype amp_dtype amp.precision", "precision", amp_dtype),
    _nowhere(
        "amp.grad_scaler amp.init_scale amp.growth_interval amp.opt_level fp16_opt_level",
        "the trainer scales where a precision needs it",
        False,
    ),
    _row("tf32", "tf32"),
    _row("seed random_seed experiment.seed reproducibility.seed", "reproducibility.seed"),
    _row(
        "deterministic full_determinism reproducibility.deterministic experiment.deterministic",
        "reproducibility.deterministic",
    ),
    _row("cudnn_benchmark benchmark", "reproducibility.cudnn_benchmark"),
    _nowhere("data_seed", "one seed decides weights and order"),
    # --- saving, evaluating, logging ----------------------------------------------------------------------------------
    _row(
        "save_steps checkpoint.save_steps checkpoint.every_n_steps checkpointing.save_steps "
        "checkpoint.every_n_train_steps",
        HYPER + "save_steps",
    ),
    _row("eval_steps evaluation.eval_steps evaluation.steps val_check_interval", HYPER + "eval_steps"),
    _row(
        "logging_steps log_every_n_steps logging.steps log_interval logging.log_every_n_steps", HYPER + "logging_steps"
    ),
    _row(
        "save_total_limit checkpoint.keep_last checkpoint.save_total_limit keep_last_n checkpoint.keep_last_n",
        "checkpoint.keep_last",
    ),
    _row("checkpoint.save_top_k save_top_k checkpoint.keep_best", "checkpoint.keep_best"),
    _row("load_best_model_at_end", "checkpoint.keep_best", keep_best),
    _row("metric_for_best_model checkpoint.monitor", "checkpoint.metric", metric),
    _row("greater_is_better checkpoint.mode", "early_stopping.mode", greater),
    _row("save_strategy eval_strategy evaluation_strategy logging_strategy", "", strategy),
    _row("early_stopping.enabled early_stopping use_early_stopping", "early_stopping", switch),
    _row("early_stopping_patience early_stopping.patience", "early_stopping.patience"),
    _row(
        "early_stopping_threshold early_stopping.min_delta early_stopping.threshold early_stopping_min_delta",
        "early_stopping.min_delta",
    ),
    _row("early_stopping.monitor early_stopping.metric early_stopping_metric", "early_stopping.metric", metric),
    _row("early_stopping.mode early_stopping_mode", "early_stopping.mode", text),
    _nowhere(
        "early_stopping._target_ early_stopping.verbose early_stopping.restore_best_weights "
        "checkpoint._target_ callbacks",
        "the best weights become the model when early stopping is on",
        False,
    ),
    _row("do_eval evaluation.enabled evaluation_enabled run_evaluation", "evaluation.enabled"),
    _nowhere(
        "logging_dir log_dir logging.dir logging_first_step disable_tqdm log_level logging.level "
        "hydra.run.dir hydra.job.name hydra.sweep.dir hydra.sweep.subdir local_rank do_train do_predict "
        "overwrite_output_dir prediction_loss_only ddp_find_unused_parameters",
        "Tollgate has its own way, which changes nothing in the model",
        False,
    ),
    _row(
        "resume_from_checkpoint",
        "",
        only(False, "resuming is no part of the document: `tollgate run` goes on by itself, or from --resume PATH"),
    ),
    _row("push_to_hub", "", only(False, "nothing is uploaded; the finished model lies in model/")),
    # --- where it runs and what it may cost ---------------------------------------------------------------------------
    _row(
        "training_window_hours window_hours max_training_hours max_runtime_hours time_limit_hours time_budget_hours",
        "resources.expected_runtime_hours",
        note="for people only: to hold it, `tollgate run --max-runtime` or spec.limits.maxRuntime",
    ),
    _row("max_budget_usd budget_usd max_cost_usd cost_limit_usd resources.max_budget_usd", "resources.max_budget_usd"),
    _row("min_gpu_memory_gb gpu_memory_gb resources.gpu_memory_gb", "resources.min_gpu_memory_gb", important=False),
    _row(
        "min_system_memory_gb system_memory_gb resources.memory_gb", "resources.min_system_memory_gb", important=False
    ),
    _row(
        "optimization_profile profile performance_profile optimization_priority",
        "optimization_priority",
        of(PROFILES, "profiles are fast, balanced, quality, memory_efficient"),
    ),
    _row("compute_target", "compute_target", text),
    _row("deepspeed.zero_stage deepspeed.stage deepspeed.zero_optimization.stage zero_stage", "parallelism", zero),
    _row("fsdp", "parallelism", fsdp),
    _row(
        "strategy distributed.strategy parallelism",
        "parallelism",
        of(
            {
                "ddp": "ddp",
                "auto": "auto",
                "fsdp": "fsdp2",
                "fsdp2": "fsdp2",
                "deepspeed_stage_1": "zero1",
                "deepspeed_stage_2": "zero2",
                "deepspeed_stage_3": "zero3",
            },
            "no such strategy here",
        ),
    ),
    _nowhere(
        "deepspeed deepspeed_config",
        "a DeepSpeed file of its own is not read; write parallelism: zero1, zero2 or zero3",
    ),
    _nowhere(
        "num_gpus gpus n_gpu devices num_nodes accelerator distributed.num_gpus resources.gpus",
        "how many: `tollgate run --nproc`, or spec.compute of a TrainingRun",
        False,
    ),
    _row("torch_compile compile model.compile", "", only(False, "not offered here; the trainer decides")),
    # --- trackers and judgement ---------------------------------------------------------------------------------------
    _row("report_to", "tracking", report_to),
    _row(
        "use_wandb wandb_enabled wandb.enabled logging.wandb.enabled log_to_wandb wandb_logging enable_wandb",
        "tracking.wandb",
        tracker("wandb"),
    ),
    _row("wandb_project wandb.project logging.wandb.project logger.project", "tracking.wandb.project", text),
    _row("wandb_entity wandb.entity logging.wandb.entity", "tracking.wandb.entity", text),
    _row(
        "use_mlflow mlflow_enabled mlflow.enabled logging.mlflow.enabled enable_mlflow",
        "tracking.mlflow",
        tracker("mlflow"),
    ),
    _row(
        "mlflow_tracking_uri mlflow.tracking_uri logging.mlflow.tracking_uri tracking_uri",
        "tracking.mlflow.tracking_uri",
        text,
    ),
    _row(
        "mlflow_experiment_name mlflow.experiment_name logging.mlflow.experiment_name",
        "tracking.mlflow.experiment",
        text,
    ),
    _row("safety_metrics metrics", "safety_metrics", words),
    _nowhere(
        "toxicity_threshold max_toxicity min_safety_score safety_threshold fairness_threshold "
        "min_fairness_score crisis_threshold bias_threshold quality_threshold min_quality_score "
        "perplexity_threshold thresholds.toxicity thresholds.safety thresholds.fairness thresholds.quality "
        "thresholds.crisis",
        "thresholds are no part of the document: write a check of a PromotionPolicy",
    ),
    _row(
        "enable_safety_checks safety_checks_enabled require_approval human_review_required",
        "",
        of(
            FLAGS | {"true": Cannot("a PromotionPolicy demands it: checks and approvals")},
            "a PromotionPolicy demands it",
        ),
    ),
    _row(
        "redact_pii remove_pii pii_redaction privacy_preservation_enabled data.redact_pii",
        "dataset.privacy_preservation_enabled",
    ),
)


def by_name() -> dict[str, Row]:
    """Every name with its row. Raises: AssertionError when two rows claim one name."""
    found: dict[str, Row] = {}
    for row in TABLE:
        for name in row.names:
            assert name not in found, name
            found[name] = row
    return found
