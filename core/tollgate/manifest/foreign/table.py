"""The mapping table: names that configurations use elsewhere, and the manifest's field that each stands for.

One table for all shapes. A name is a dotted key in lower case; generic sections around it (`training.`, `args.`) do not
count, so `training.learning_rate` is found under `learning_rate`. A row without a field says where it belongs.
"""

from __future__ import annotations

from tollgate.manifest.foreign.axolotl import AXOLOTL
from tollgate.manifest.foreign.conversions import (
    DATA_PATHS,
    Cannot,
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
    strategy,
    switch,
    text,
    tracker,
    words,
    zero,
)
from tollgate.manifest.foreign.row import Row, nowhere, row
from tollgate.manifest.foreign.vocabulary import ADAMW, FLAGS, FORMATS, PROFILES, SCHEDULES, TASKS, adapter_type

GENERIC = frozenset(
    [
        *("training", "train", "trainer", "training_args", "training_arguments", "trainingarguments", "args"),
        *("hyperparameters", "hparams", "hyperparams", "params", "config", "cfg", "settings", "safety", "tracking"),
        *("finetune", "finetuning", "fine_tuning", "optimization"),
    ]
)
"""Sections that say nothing about what their keys mean."""


HYPER = "hyperparameters."

TABLE: tuple[Row, ...] = (
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
        "validation_split val_split val_set_size eval_split data.validation_split data.val_split data.val_ratio "
        "val_ratio eval_ratio test_size data.test_size",
        "dataset.splits.validation",
        percent,
    ),
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
        "dataloader_num_workers data.num_workers num_workers data.shuffle shuffle pin_memory data.pin_memory "
        "dataloader_pin_memory data.cache_dir cache_dir preprocessing_num_workers dataloader_drop_last "
        "remove_unused_columns",
        "the trainer decides it",
        False,
    ),
    # --- how long and how much ----------------------------------------------------------------------------------------
    row("num_train_epochs num_epochs epochs max_epochs n_epochs", HYPER + "num_train_epochs"),
    row("max_steps max_train_steps total_steps", HYPER + "max_steps", note="-1 means by epochs"),
    row(
        "per_device_train_batch_size train_batch_size micro_batch_size batch_size data.batch_size "
        "data.train_batch_size per_gpu_train_batch_size",
        HYPER + "per_device_train_batch_size",
        note="samples per process and micro-batch",
    ),
    row(
        "per_device_eval_batch_size eval_batch_size data.eval_batch_size val_batch_size data.val_batch_size",
        HYPER + "per_device_eval_batch_size",
    ),
    row(
        "gradient_accumulation_steps accumulate_grad_batches grad_accum_steps accumulation_steps grad_accumulation",
        HYPER + "gradient_accumulation_steps",
    ),
    row(
        "max_seq_length max_length max_seq_len sequence_len block_size model_max_length data.max_length "
        "data.max_seq_length model.max_length model.max_seq_length seq_length cutoff_len "
        "tokenizer.max_length",
        HYPER + "max_seq_length",
    ),
    row("packing data.packing sample_packing", HYPER + "packing"),
    nowhere(
        "effective_batch_size global_batch_size total_batch_size",
        "give per_device_train_batch_size and gradient_accumulation_steps; the product with the processes is this",
    ),
    row(
        "auto_find_batch_size",
        "",
        only(False, "a run that is out of memory halves its micro-batch in the next attempt by itself"),
    ),
    # --- optimisation -------------------------------------------------------------------------------------------------
    row("learning_rate lr optimizer.lr optimizer.learning_rate optim.lr", HYPER + "learning_rate"),
    row("weight_decay optimizer.weight_decay optim.weight_decay", HYPER + "weight_decay"),
    row(
        "optim optimizer optimizer.name optimizer.type optimizer._target_ optim.name optim._target_",
        HYPER + "optimizer.name",
        of(ADAMW, "the optimizer is AdamW; this one would train other weights"),
    ),
    row("optimizer.betas betas adam_betas optim.betas", HYPER + "optimizer.betas"),
    row("adam_beta1 optimizer.beta1", HYPER + "optimizer.betas[0]"),
    row("adam_beta2 optimizer.beta2", HYPER + "optimizer.betas[1]"),
    row("adam_epsilon optimizer.eps optimizer.epsilon adam_eps optim.eps", HYPER + "optimizer.eps"),
    row(
        "max_grad_norm gradient_clip_val clip_grad_norm grad_clip gradient_clipping max_gradient_norm "
        "optimizer.max_grad_norm",
        HYPER + "max_grad_norm",
    ),
    row(
        "lr_scheduler_type lr_scheduler scheduler scheduler.name scheduler.type scheduler._target_ optimizer.scheduler",
        HYPER + "scheduler.name",
        of(SCHEDULES, "schedulers are linear, cosine and constant, each with a warm-up"),
    ),
    row(
        "warmup_steps num_warmup_steps scheduler.warmup_steps scheduler.num_warmup_steps optimizer.warmup_steps",
        HYPER + "warmup_steps",
    ),
    row("warmup_ratio scheduler.warmup_ratio optimizer.warmup_ratio warmup_fraction", HYPER + "warmup_ratio"),
    nowhere(
        "scheduler.num_training_steps scheduler.t_max scheduler.total_iters scheduler.total_steps",
        "a scheduler runs over all of the training's steps",
        False,
    ),
    nowhere(
        "scheduler.eta_min scheduler.min_lr lr_scheduler_kwargs scheduler.num_cycles",
        "the schedule ends at 0 and has no options",
    ),
    nowhere(
        "optimizer.amsgrad optimizer.foreach optimizer.fused optimizer.capturable",
        "the trainer's AdamW has its own way",
        False,
    ),
    nowhere("label_smoothing label_smoothing_factor neftune_noise_alpha", "the loss is the task's own"),
    row(
        "gradient_checkpointing model.gradient_checkpointing activation_checkpointing", HYPER + "gradient_checkpointing"
    ),
    # --- numbers ------------------------------------------------------------------------------------------------------
    row(
        "bf16",
        HYPER + "bf16",
        of(
            {"true": True, **dict.fromkeys(("false", "auto"), Cannot("precision auto decides", harmless=True))},
            "true, false or auto",
        ),
    ),
    row(
        "fp16",
        HYPER + "fp16",
        of(
            {"true": True, **dict.fromkeys(("false", "auto"), Cannot("precision auto decides", harmless=True))},
            "true, false or auto",
        ),
    ),
    row("precision mixed_precision training_precision", "precision", precision),
    row("amp.enabled use_amp amp", "precision", amp),
    row("amp.dtype amp_dtype amp.precision", "precision", amp_dtype),
    nowhere(
        "amp.grad_scaler amp.init_scale amp.growth_interval amp.opt_level fp16_opt_level",
        "the trainer scales where a precision needs it",
        False,
    ),
    row("tf32", "tf32"),
    row("seed random_seed experiment.seed reproducibility.seed", "reproducibility.seed"),
    row(
        "deterministic full_determinism reproducibility.deterministic experiment.deterministic",
        "reproducibility.deterministic",
    ),
    row("cudnn_benchmark benchmark", "reproducibility.cudnn_benchmark"),
    nowhere("data_seed", "one seed decides weights and order"),
    # --- saving, evaluating, logging ----------------------------------------------------------------------------------
    row(
        "save_steps checkpoint.save_steps checkpoint.every_n_steps checkpointing.save_steps "
        "checkpoint.every_n_train_steps",
        HYPER + "save_steps",
    ),
    row("eval_steps evaluation.eval_steps evaluation.steps val_check_interval", HYPER + "eval_steps"),
    row(
        "logging_steps log_every_n_steps logging.steps log_interval logging.log_every_n_steps", HYPER + "logging_steps"
    ),
    row(
        "save_total_limit checkpoint.keep_last checkpoint.save_total_limit keep_last_n checkpoint.keep_last_n",
        "checkpoint.keep_last",
    ),
    row("checkpoint.save_top_k save_top_k checkpoint.keep_best", "checkpoint.keep_best"),
    row("load_best_model_at_end", "checkpoint.keep_best", keep_best),
    row("metric_for_best_model checkpoint.monitor", "checkpoint.metric", metric),
    row("greater_is_better checkpoint.mode", "early_stopping.mode", greater),
    row("save_strategy eval_strategy evaluation_strategy logging_strategy", "", strategy),
    row("early_stopping.enabled early_stopping use_early_stopping", "early_stopping", switch),
    row("early_stopping_patience early_stopping.patience", "early_stopping.patience"),
    row(
        "early_stopping_threshold early_stopping.min_delta early_stopping.threshold early_stopping_min_delta",
        "early_stopping.min_delta",
    ),
    row("early_stopping.monitor early_stopping.metric early_stopping_metric", "early_stopping.metric", metric),
    row("early_stopping.mode early_stopping_mode", "early_stopping.mode", text),
    nowhere(
        "early_stopping._target_ early_stopping.verbose early_stopping.restore_best_weights "
        "checkpoint._target_ callbacks",
        "the best weights become the model when early stopping is on",
        False,
    ),
    row("do_eval evaluation.enabled evaluation_enabled run_evaluation", "evaluation.enabled"),
    nowhere(
        "logging_dir log_dir logging.dir logging_first_step disable_tqdm log_level logging.level "
        "hydra.run.dir hydra.job.name hydra.sweep.dir hydra.sweep.subdir local_rank do_train do_predict "
        "overwrite_output_dir prediction_loss_only ddp_find_unused_parameters",
        "Tollgate has its own way, which changes nothing in the model",
        False,
    ),
    row(
        "resume_from_checkpoint",
        "",
        only(False, "resuming is no part of the document: `tollgate run` goes on by itself, or from --resume PATH"),
    ),
    row("push_to_hub", "", only(False, "nothing is uploaded; the finished model lies in model/")),
    # --- where it runs and what it may cost ---------------------------------------------------------------------------
    row(
        "training_window_hours window_hours max_training_hours max_runtime_hours time_limit_hours time_budget_hours",
        "resources.expected_runtime_hours",
        note="for people only: to hold it, `tollgate run --max-runtime` or spec.limits.maxRuntime",
    ),
    row("max_budget_usd budget_usd max_cost_usd cost_limit_usd resources.max_budget_usd", "resources.max_budget_usd"),
    row("min_gpu_memory_gb gpu_memory_gb resources.gpu_memory_gb", "resources.min_gpu_memory_gb", important=False),
    row("min_system_memory_gb system_memory_gb resources.memory_gb", "resources.min_system_memory_gb", important=False),
    row(
        "optimization_profile profile performance_profile optimization_priority",
        "optimization_priority",
        of(PROFILES, "profiles are fast, balanced, quality, memory_efficient"),
    ),
    row("compute_target", "compute_target", text),
    row("deepspeed.zero_stage deepspeed.stage deepspeed.zero_optimization.stage zero_stage", "parallelism", zero),
    row("fsdp", "parallelism", fsdp),
    row(
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
    nowhere(
        "deepspeed deepspeed_config",
        "a DeepSpeed file of its own is not read; write parallelism: zero1, zero2 or zero3",
    ),
    nowhere(
        "num_gpus gpus n_gpu devices num_nodes accelerator distributed.num_gpus resources.gpus",
        "how many: `tollgate run --nproc`, or spec.compute of a TrainingRun",
        False,
    ),
    row("torch_compile compile model.compile", HYPER + "compile"),
    row("group_by_length", HYPER + "group_by_length"),
    # --- trackers and judgement ---------------------------------------------------------------------------------------
    row("report_to", "tracking", report_to),
    row(
        "use_wandb wandb_enabled wandb.enabled logging.wandb.enabled log_to_wandb wandb_logging enable_wandb",
        "tracking.wandb",
        tracker("wandb"),
    ),
    row("wandb_project wandb.project logging.wandb.project logger.project", "tracking.wandb.project", text),
    row("wandb_entity wandb.entity logging.wandb.entity", "tracking.wandb.entity", text),
    row(
        "use_mlflow mlflow_enabled mlflow.enabled logging.mlflow.enabled enable_mlflow",
        "tracking.mlflow",
        tracker("mlflow"),
    ),
    row(
        "mlflow_tracking_uri mlflow.tracking_uri logging.mlflow.tracking_uri tracking_uri",
        "tracking.mlflow.tracking_uri",
        text,
    ),
    row(
        "mlflow_experiment_name mlflow.experiment_name logging.mlflow.experiment_name",
        "tracking.mlflow.experiment",
        text,
    ),
    row("safety_metrics metrics", "safety_metrics", words),
    nowhere(
        "toxicity_threshold max_toxicity min_safety_score safety_threshold fairness_threshold "
        "min_fairness_score crisis_threshold bias_threshold quality_threshold min_quality_score "
        "perplexity_threshold thresholds.toxicity thresholds.safety thresholds.fairness thresholds.quality "
        "thresholds.crisis",
        "thresholds are no part of the document: write a check of a PromotionPolicy",
    ),
    row(
        "enable_safety_checks safety_checks_enabled require_approval human_review_required",
        "",
        of(
            FLAGS | {"true": Cannot("a PromotionPolicy demands it: checks and approvals")},
            "a PromotionPolicy demands it",
        ),
    ),
    row(
        "redact_pii remove_pii pii_redaction privacy_preservation_enabled data.redact_pii",
        "dataset.privacy_preservation_enabled",
    ),
    *AXOLOTL,
)


def by_name() -> dict[str, Row]:
    """Every name with its row. Raises: AssertionError when two rows claim one name."""
    found: dict[str, Row] = {}
    for one in TABLE:
        for name in one.names:
            assert name not in found, name
            found[name] = one
    return found
