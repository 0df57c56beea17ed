"""Rows of the mapping table: saving, evaluating and logging, where it runs, trackers and thresholds."""

from __future__ import annotations

from tollgate.manifest.foreign.conversions import (
    Cannot,
    every,
    fsdp,
    greater,
    keep_best,
    metric,
    of,
    offload,
    only,
    report_to,
    strategy,
    switch,
    text,
    tracker,
    unless,
    words,
    zero,
    zero_file,
)
from tollgate.manifest.foreign.row import HYPER, Row, nowhere, row
from tollgate.manifest.foreign.vocabulary import FLAGS, PROFILES

RUNNING: tuple[Row, ...] = (
    # --- saving, evaluating, logging ----------------------------------------------------------------------------------
    row(
        "save_steps checkpoint.save_steps checkpoint.every_n_steps checkpointing.save_steps "
        "checkpoint.every_n_train_steps",
        HYPER + "save_steps",
        every("save_strategy"),
    ),
    row(
        "eval_steps evaluation.eval_steps evaluation.steps val_check_interval",
        HYPER + "eval_steps",
        every("eval_strategy"),
    ),
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
    row(
        "do_eval",
        "evaluation.enabled",
        of({"true": True, "false": unless("the finished model is evaluated all the same")}, "true or false"),
    ),
    row("evaluation.enabled evaluation_enabled run_evaluation", "evaluation.enabled"),
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
    row("deepspeed deepspeed_config", "parallelism", zero_file, "by the file's name; the rest of it is not read"),
    row(
        "deepspeed.zero_optimization.offload_optimizer.device deepspeed.zero_optimization.offload_param.device "
        "fsdp_config.fsdp_offload_params fsdp_config.offload_params",
        "parallelism_options.offload",
        offload,
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
)
