"""Rows of the mapping table: how long, how much, the optimizer and the numbers."""

from __future__ import annotations

from tollgate.manifest.foreign.conversions import amp, amp_dtype, data_seed, of, only, precision, unless, warmup
from tollgate.manifest.foreign.row import HYPER, Row, nowhere, row
from tollgate.manifest.foreign.vocabulary import ADAMW, SCHEDULES

_SWITCH = of(
    {"true": True, **dict.fromkeys(("false", "auto"), unless("precision auto decides"))}, "true, false or auto"
)

LEARNING: tuple[Row, ...] = (
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
        warmup,
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
    row("label_smoothing label_smoothing_factor", "", only(0, "the loss is the task's own")),
    row("neftune_noise_alpha noisy_embedding_alpha", "", only(0, "no noise is added to embeddings")),
    row(
        "gradient_checkpointing model.gradient_checkpointing activation_checkpointing", HYPER + "gradient_checkpointing"
    ),
    # --- numbers ------------------------------------------------------------------------------------------------------
    row("bf16", HYPER + "bf16", _SWITCH),
    row("fp16", HYPER + "fp16", _SWITCH),
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
    row("data_seed", "", data_seed),
)
