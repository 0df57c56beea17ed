"""Rows of the mapping table: names that only TrainingArguments, its DeepSpeed and FSDP sections, and TRL have."""

from __future__ import annotations

from tollgate.manifest.foreign.conversions import of, only, text, unless
from tollgate.manifest.foreign.row import HYPER, Row, nowhere, row

_OWN = "Tollgate has its own way, which changes nothing in the model"
_SPEED = "how fast it runs is the trainer's choice; it changes no result"
_FILE = "the trainer writes DeepSpeed's file itself"

ARGUMENTS: tuple[Row, ...] = (
    # --- transformers' TrainingArguments ------------------------------------------------------------------------------
    nowhere(
        "log_on_each_node log_level_replica include_num_input_tokens_seen include_for_metrics eval_do_concat_batches "
        "eval_use_gather_object eval_accumulation_steps batch_eval_metrics skip_memory_metrics debug "
        "save_on_each_node save_safetensors enable_jit_checkpoint restore_callback_states_from_checkpoint project "
        "trackio_space_id trackio_bucket_id trackio_static_space_id label_names length_column_name eval_delay "
        "eval_on_start ignore_data_skip use_cache hub_model_id hub_token hub_strategy hub_private_repo "
        "hub_always_push hub_revision push_to_hub_model_id push_to_hub_token push_to_hub_organization "
        "jit_mode_eval use_mps_device past_index ray_scope",
        _OWN,
        False,
    ),
    nowhere(
        "activation_checkpointing_kwargs gradient_checkpointing_kwargs gradient_checkpointing_kwargs.use_reentrant "
        "torch_compile_backend torch_compile_mode torch_empty_cache_steps use_liger_kernel liger_kernel_config "
        "bf16_full_eval fp16_full_eval half_precision_backend "
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
        "dataloader_in_order ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout "
        "torchdynamo activation_offloading padding_free pad_to_multiple_of",
        _SPEED,
        False,
    ),
    nowhere(
        "accelerator_config "
        "accelerator_config.split_batches accelerator_config.dispatch_batches accelerator_config.even_batches "
        "accelerator_config.use_seedable_sampler accelerator_config.non_blocking "
        "accelerator_config.gradient_accumulation_kwargs accelerator_config.use_configured_state",
        "the trainer deals documents to the processes itself",
        False,
    ),
    row("average_tokens_across_devices", "", only(True, "each trained token counts the same over all processes")),
    row("save_only_model", "", only(False, "a checkpoint holds what resuming needs; model/ is the model alone")),
    nowhere("logging_nan_inf_filter", "a loss that is not finite stops the run", False),
    nowhere("optim_args optim_target_modules", "the optimizer is AdamW over all trained weights"),
    nowhere("parallelism_config", "write parallelism: ddp, zero1, zero2, zero3 or fsdp2"),
    # --- what a DeepSpeed or FSDP section says besides the stage ------------------------------------------------------
    nowhere(
        "deepspeed.train_batch_size deepspeed.train_micro_batch_size_per_gpu deepspeed.gradient_accumulation_steps "
        "deepspeed.gradient_clipping deepspeed.steps_per_print deepspeed.wall_clock_breakdown deepspeed.bf16.enabled "
        "deepspeed.fp16.enabled deepspeed.fp16.loss_scale deepspeed.fp16.loss_scale_window "
        "deepspeed.fp16.initial_scale_power deepspeed.fp16.hysteresis deepspeed.fp16.min_loss_scale "
        "deepspeed.zero_optimization.overlap_comm deepspeed.zero_optimization.contiguous_gradients "
        "deepspeed.zero_optimization.reduce_bucket_size deepspeed.zero_optimization.allgather_bucket_size "
        "deepspeed.zero_optimization.reduce_scatter deepspeed.zero_optimization.allgather_partitions "
        "deepspeed.zero_optimization.round_robin_gradients deepspeed.zero_optimization.sub_group_size "
        "deepspeed.zero_optimization.stage3_prefetch_bucket_size "
        "deepspeed.zero_optimization.stage3_param_persistence_threshold "
        "deepspeed.zero_optimization.stage3_max_live_parameters deepspeed.zero_optimization.stage3_max_reuse_distance "
        "deepspeed.zero_optimization.stage3_gather_16bit_weights_on_model_save "
        "deepspeed.zero_optimization.offload_optimizer.pin_memory deepspeed.zero_optimization.offload_param.pin_memory "
        "deepspeed.zero_allow_untested_optimizer",
        _FILE,
        False,
    ),
    nowhere(
        "fsdp_config fsdp_config.min_num_params fsdp_config.xla fsdp_config.xla_fsdp_v2 fsdp_config.xla_fsdp_grad_ckpt "
        "fsdp_config.fsdp_version fsdp_config.fsdp_limit_all_gathers fsdp_config.limit_all_gathers "
        "fsdp_config.fsdp_sync_module_states fsdp_config.sync_module_states fsdp_config.fsdp_use_orig_params "
        "fsdp_config.use_orig_params fsdp_config.fsdp_cpu_ram_efficient_loading "
        "fsdp_config.cpu_ram_efficient_loading fsdp_config.fsdp_auto_wrap_policy fsdp_config.auto_wrap_policy "
        "fsdp_config.fsdp_transformer_layer_cls_to_wrap fsdp_config.transformer_layer_cls_to_wrap "
        "fsdp_config.fsdp_state_dict_type fsdp_config.state_dict_type fsdp_config.fsdp_sharding_strategy "
        "fsdp_config.fsdp_reshard_after_forward fsdp_config.reshard_after_forward fsdp_config.fsdp_backward_prefetch "
        "fsdp_config.backward_prefetch fsdp_config.forward_prefetch fsdp_config.fsdp_forward_prefetch fsdp_version",
        "fsdp2 shards each layer of the model",
        False,
    ),
    # --- TRL's SFTConfig ----------------------------------------------------------------------------------------------
    nowhere(
        "dataset_num_proc dataset_batch_size eval_packing num_of_sequences chars_per_token shuffle_dataset "
        "dataset_kwargs.add_special_tokens dataset_kwargs.append_concat_token dataset_kwargs.skip_prepare_dataset",
        "the trainer prepares the data itself",
        False,
    ),
    row("completion_only_loss", "", only(True, "a prompt carries no loss here")),
    row("assistant_only_loss", "", only(True, "in chats only the assistant's words carry loss here")),
    row(
        "packing_strategy",
        "",
        of({name: unless("packing keeps documents whole") for name in ("bfd", "ffd")}, "documents are not cut"),
    ),
    row("truncation_mode", "", only("keep_start", "too long documents lose their end, not their beginning")),
    row("loss_type", "", only("nll", "the loss is the task's own; another is an extension (extensions.loss)")),
    nowhere("chat_template_path", "the template is the tokenizer's own; save it into the tokenizer's folder"),
    nowhere("eos_token pad_token", "the special tokens are the tokenizer's own"),
    nowhere("lora_modules_to_save modules_to_save", "besides the adapter nothing is trained"),
    row("dataloader_num_workers data.num_workers num_workers", HYPER + "dataloader_num_workers"),
    row(
        "train_sampling_strategy",
        HYPER + "group_by_length",
        of(
            {"group_by_length": True, "random": unless("the order is drawn by the seed")},
            "documents come in an order that is drawn by the seed",
        ),
    ),
    row("use_cpu no_cuda", "compute_target", of({"true": "cpu", "false": unless("off, as it is")}, "true or false")),
    row("model_init_kwargs.revision", "model.revision", text),
    row("model_init_kwargs.trust_remote_code", "model.trust_remote_code"),
    nowhere(
        "model_init_kwargs.torch_dtype model_init_kwargs.dtype model_init_kwargs.attn_implementation "
        "model_init_kwargs.device_map model_init_kwargs.use_cache dtype",
        "the task and `precision` decide it",
        False,
    ),
    row("bnb_4bit_quant_type", "", of({"nf4": unless("nf4 is what 4 bits are here")}, "4 bits are nf4 here")),
    nowhere(
        "bnb_4bit_compute_dtype bnb_4bit_use_double_quant use_bnb_nested_quant bnb_4bit_quant_storage",
        "`precision` decides the type of the computation",
        False,
    ),
    row(
        "lora_bias lora.bias peft.bias bias",
        "",
        of({"none": unless("this is what Tollgate does anyway")}, "an adapter trains no biases"),
    ),
    nowhere("lora_task_type lora.task_type peft.task_type", "the task decides it", False),
)
