"""TrainingManifest: the data scientist's document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tollgate.manifest.sections import (
    Adapter,
    Checkpoint,
    Dataset,
    EarlyStopping,
    Evaluation,
    Extensions,
    Hyperparameters,
    Joint,
    Model,
    ParallelismOptions,
    Report,
    Reproducibility,
    Resources,
    Section,
    Span,
    Tracking,
)


class TrainingManifest(Section):
    """Required: `name` and `dataset.path`. Everything else has a default in sections/."""

    name: Annotated[str, Field(min_length=1, max_length=128)] = Field(description="What the model is called.")
    manifest_id: str | None = Field(default=None, description="For people.")
    description: str | None = Field(default=None, description="For people.")
    version: str | None = Field(default=None, description="For people.")
    created_at: str | None = Field(default=None, description="For people; quote it, it looks like a date.")
    dataset: Dataset
    model: Model = Field(default_factory=Model)
    task: Literal["causal-lm", "classification", "span", "joint"] = Field(
        default="causal-lm", description="What is learned."
    )
    span: Span = Field(default_factory=Span)
    joint: Joint = Field(default_factory=Joint)
    adapter: Adapter = Field(default_factory=Adapter)
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    precision: Literal["auto", "bf16", "fp16", "fp32"] | None = Field(
        default=None, description="Default auto: bf16 where the device has it, else fp32."
    )
    tf32: bool = Field(default=True, description="TensorFloat-32 for what runs in fp32 on a GPU.")
    reproducibility: Reproducibility = Field(default_factory=Reproducibility)
    seed: int | None = Field(default=None, ge=0, lt=2**32, description="Short form of reproducibility.seed.")
    early_stopping: EarlyStopping | None = None
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    framework: Literal["transformers", "openai"] = Field(default="transformers", description="The one that there is.")
    compute_target: Literal["cpu", "gpu_single", "gpu_multi", "cloud_gpu"] = Field(
        default="cpu", description="On a cluster, without spec.compute: the profile whose defaultFor names it."
    )
    parallelism: Literal["auto", "ddp", "zero1", "zero2", "zero3", "fsdp2"] = Field(
        default="auto",
        description="How several processes share the work: whole copies (ddp), or shards of the optimizer (zero1), "
        "gradients (zero2) and weights (zero3, fsdp2); auto is ddp.",
    )
    parallelism_options: ParallelismOptions = Field(default_factory=ParallelismOptions)
    optimization_priority: Literal["fast", "balanced", "quality", "memory_efficient", "none"] = Field(
        default="none",
        description="Let the planner choose what the manifest does not say: batch, length, epochs, sharding, saves "
        "(docs/how-to/plan.md).",
    )
    preflight: bool = Field(
        default=True,
        description="Before the first step: check device, network and disk, and run one step at the longest length.",
    )
    safety_metrics: list[str] | None = Field(default=None, description="Not in this version.")
    resources: Resources = Field(default_factory=Resources)
    tracking: Tracking | None = None
    wandb_logging: bool | None = Field(default=None, description="Short form of tracking.wandb.")
    wandb_project: str | None = Field(default=None, description="Short form of tracking.wandb.project.")
    evaluation: Evaluation = Field(default_factory=Evaluation)
    report: Report = Field(default_factory=Report)
    extensions: Extensions = Field(default_factory=Extensions)
    evaluation_enabled: bool | None = Field(default=None, description="Short form of evaluation.enabled.")
    output_dir: str | None = Field(
        default=None,
        description="On a laptop: where the run's folder lies, relative to the manifest's file. Default runs/<name>.",
    )
    log_dir: str | None = Field(default=None, description="Not in this version.")

    @property
    def suites(self) -> tuple[str, ...]:
        """The evaluation's suites; where none are named, the task's own."""
        if self.evaluation.suites is not None:
            return tuple(self.evaluation.suites)
        return ("standard",) if self.task == "causal-lm" else (self.task,)
