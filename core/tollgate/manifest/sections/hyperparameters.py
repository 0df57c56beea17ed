"""`hyperparameters` and `reproducibility`: the optimisation, and what makes it repeatable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tollgate.manifest.sections.section import Ratio, Section


class Optimizer(Section):
    """AdamW."""

    name: Literal["adamw"] = Field(default="adamw", description="The one that there is.")
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.9, 0.999], description="How fast the means of gradient and square forget."
    )
    eps: float = Field(default=1e-8, gt=0, description="Added to the root of the squares' mean.")


class Scheduler(Section):
    """Learning rate over steps."""

    name: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="How it falls after the warmup: to 0 along a line or a half wave, or not at all."
    )


class Hyperparameters(Section):
    """The optimisation. Give max_steps or num_train_epochs; max_steps wins when both are given, as in transformers."""

    num_train_epochs: float = Field(default=3.0, gt=0, description="Times that all training documents are seen.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps, in place of epochs.")
    learning_rate: float = Field(
        default=5e-5, gt=0, description="At its height. Usual: 5e-5 for all weights, 2e-4 for LoRA, 1e-3 from scratch."
    )
    per_device_train_batch_size: int = Field(
        default=8, ge=1, description="Documents (with packing rows) of one pass on one process."
    )
    per_device_eval_batch_size: int | None = Field(
        default=None, ge=1, description="The same while evaluating. Default: that of training."
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="Passes of an optimizer step: a larger step without more memory."
    )
    warmup_steps: int | None = Field(default=None, ge=0, description="Steps in which the learning rate rises from 0.")
    warmup_ratio: Ratio | None = Field(default=None, description="The same as a share of all steps.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's.")
    max_seq_length: int = Field(
        default=512, ge=8, description="Tokens of a document at most; what is longer is cut, or read in windows (span)."
    )
    save_steps: int | None = Field(
        default=None,
        ge=1,
        description="A checkpoint after so many steps. Default: by the clock, checkpoint.every_minutes.",
    )
    eval_steps: int | None = Field(
        default=None, ge=1, description="Measure the held-out documents after so many steps. Default: after each epoch."
    )
    logging_steps: int = Field(default=10, ge=1, description="Log loss and pace after so many steps.")
    bf16: bool | None = Field(default=None, description="Short form of precision: bf16.")
    fp16: bool | None = Field(default=None, description="Short form of precision: fp16.")
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in backward: less memory, about a third more time."
    )
    max_grad_norm: float = Field(default=1.0, ge=0, description="A longer gradient is cut to it; 0 cuts none.")
    optimizer: Optimizer = Field(default_factory=Optimizer)
    scheduler: Scheduler = Field(default_factory=Scheduler)
    packing: bool | Literal["auto"] = Field(
        default=False,
        description="Several documents share a row of max_seq_length tokens, and the batch sizes count rows; causal-lm "
        "only. Before the first step it is tried whether the model keeps them apart: where not, `auto` goes on without "
        "and says so, `true` is an error.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the model (torch.compile). On a CPU only with packing, whose batches have one shape; "
        "elsewhere it is off, and the run says why.",
    )
    cross_entropy: Literal["auto", "chunked", "plain"] = Field(
        default="auto",
        description="chunked: output head and loss in one, some tokens at a time, so that the logits (the most memory, "
        "with a large vocabulary) are never all there; causal-lm only. auto: chunked on a GPU, where the loss comes "
        "out the same for this model.",
    )
    dataloader_num_workers: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        default="auto",
        description="Processes that read data beside the training. auto: as many as a short measurement asks for, "
        "which is usually none.",
    )
    group_by_length: bool = Field(
        default=False,
        description="Batches of documents of similar length: less padding, and steps that are less like each other.",
    )


class Reproducibility(Section):
    """Seeds and determinism."""

    seed: int = Field(default=42, ge=0, lt=2**32, description="Of the order of documents, new weights and dropout.")
    deterministic: bool = Field(
        default=False,
        description="Algorithms that give the same bits each time: a resumed run is the same run, and the loss of each "
        "step is kept as an exact number. Slower on a GPU.",
    )
    cudnn_benchmark: bool = Field(default=False, description="Let cuDNN choose algorithms by their time.")
