"""The sections of a TrainingManifest. Every default of the document is written here and nowhere else.

snake_case, as data scientists write it. What a section says but this version cannot do yet is refused aloud by
support.py,
never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from tollgate.api.quantities import USD_PATTERN, Money, Usd
from tollgate.manifest import canonical


def _budget(value: Any) -> Any:
    """A number's shortest decimal form is what its author wrote, so 180.1 is exactly 180.10 USD."""
    if isinstance(value, bool) or not isinstance(value, int | float) or isinstance(value, Usd):
        return value
    return canonical.number(value)


Budget = Annotated[
    Money,
    BeforeValidator(_budget),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": USD_PATTERN}]}),
]
Sha256 = Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")]
Ratio = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=100)]


class Section(BaseModel):
    """Unknown keys are errors; values are not coerced between types (an int is accepted where a float is asked for)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Splits(Section):
    """Which part is held out. Either shares of one file, or files of their own."""

    validation: Ratio = Field(
        default=0.1, description="Share of documents held out for validation and evaluation, by a hash of their text."
    )
    validation_path: str | None = Field(
        default=None, description="A file of its own for validation; then `validation` is not used."
    )


class DataSource(Section):
    """Another file or folder that is trained on; what it does not say is as in `dataset`."""

    path: str = Field(min_length=1, description="A file, or a folder of files of one format.")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="In events and as eval_loss/<name>. Default: the file's, without suffix.",
    )
    format: (
        Literal["auto", "conversations", "chat", "prompt_completion", "text", "classification", "span", "joint"] | None
    ) = None
    weight: Weight = Field(default=1.0, description="How often its documents are trained on in an epoch.")
    sha256: Sha256 | None = Field(default=None, description="Checked before training when given.")


class Dataset(Section):
    """The training data. `path` is relative to the manifest's file on a laptop and to the dataset volume on a
    cluster.
    """

    path: str = Field(min_length=1, description="A file, or a folder of files of one format.")
    name: str | None = Field(default=None, description="For people.")
    version: str | None = Field(default=None, description="For people.")
    format: Literal["auto", "conversations", "chat", "prompt_completion", "text", "classification", "span", "joint"] = (
        Field(
            default="auto",
            description="What a record means; the suffix says how it is read (.json .jsonl .csv .tsv .parquet .txt). "
            "auto: the task's, or for causal-lm what the keys say (docs/how-to/data.md).",
        )
    )
    commit_hash: str | None = Field(default=None, description="For people: the revision of the data.")
    sha256: Sha256 | None = Field(default=None, description="Checked before training when given.")
    size_bytes: int | None = Field(default=None, ge=0, description="Checked before training when given.")
    created_at: str | None = Field(default=None, description="For people; quote it, it looks like a date.")
    splits: Splits = Field(default_factory=Splits)
    text_field: str = Field(default="text", description="The field of the text; for span also `context` by default.")
    label_field: str = Field(default="label", description="classification, joint: the field of the class.")
    question_field: str = Field(
        default="question", description="span, joint: the field of the question; by default also `criterion`."
    )
    answer_field: str = Field(
        default="answer", description="span, joint: the field of the answer; by default also `answers`, as in SQuAD."
    )
    answer_start_field: str = Field(
        default="answer_start", description="span, joint: where the answer begins, in characters of the text."
    )
    group_field: str | None = Field(
        default=None,
        description="Records of one group stay on one side of the split, such as one patient's or author's.",
    )
    sources: list[DataSource] = Field(
        default_factory=list,
        description="More of them, each `{path, name, format, weight, sha256}`; all but path may be left out.",
    )
    weight: Weight = Field(
        default=1.0,
        description="How often documents of `path` are trained on in an epoch: 2 is twice, 0.5 another half in each.",
    )
    streaming: bool = Field(
        default=False,
        description="Read documents as they are tokenised instead of keeping them in memory; held-out ones are kept.",
    )
    privacy_preservation_enabled: bool = Field(
        default=False,
        description="Replace e-mail addresses, telephone numbers, payment cards and IBANs before anything else.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Train on so many documents at most, chosen by the hash of their text, and hold out in proportion; "
        "for a quick look.",
    )


DEFAULT_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
"""What is trained, from scratch, when a manifest names no model: 5 million weights that a laptop's CPU can train."""


class Model(Section):
    """The model to start from: `base` (a path, or a hub id with a revision), or `config` to start from scratch."""

    base: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = Field(
        default=None,
        description="A transformers config with model_type; weights are initialised from the seed. With neither `base` "
        "nor `config`: a small Llama (docs/reference/manifest.md).",
    )
    tokenizer: str | None = Field(
        default=None,
        description="Path or hub id; default: the base's own. With `config` and none given one is trained on the data.",
    )
    quantization: Literal["none", "int8", "nf4"] = Field(
        default="none", description="How the frozen base is held; needs an adapter, and a `base`."
    )
    trust_remote_code: bool = Field(default=False, description="Always refused unless the cluster's admin opted in.")


DEFAULT_EXPERTS = 4
DEFAULT_TOP_K = 2
DEFAULT_BALANCE = 0.01


@dataclass(frozen=True, slots=True)
class Mixture:
    """Experts per layer, how many of them serve a token, and the weight of the balance loss."""

    experts: int
    top_k: int
    balance: float


class Adapter(Section):
    """Which weights are trained."""

    type: Literal["none", "lora", "moe-lora"] = "none"
    rank: int = Field(default=16, ge=1, le=1024, description="Of the LoRA; with `moe-lora` of each expert.")
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | None = Field(default=None, description="Default: all linear layers but the head.")
    rslora: bool = False
    dora: bool = Field(default=False, description="LoRA with a trained magnitude per output; `lora` only.")
    experts: int | None = Field(default=None, ge=2, le=64, description="`moe-lora`: LoRAs per layer. Default 4.")
    top_k: int | None = Field(
        default=None,
        ge=2,
        description="`moe-lora`: experts per token. Default 2; the gate of a single one is always 1, its router would "
        "learn nothing.",
    )
    balance: float | None = Field(
        default=None,
        ge=0,
        description="`moe-lora`: weight of the loss that spreads tokens over experts (1.0 when even). Default 0.01.",
    )

    @property
    def mixture(self) -> Mixture:
        """The experts that are asked for, with their defaults."""
        experts, top_k = self.experts or DEFAULT_EXPERTS, self.top_k or DEFAULT_TOP_K
        even = 0.0 if top_k >= experts else DEFAULT_BALANCE
        return Mixture(experts, top_k, even if self.balance is None else self.balance)


class Optimizer(Section):
    """AdamW."""

    name: Literal["adamw"] = "adamw"
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(default_factory=lambda: [0.9, 0.999])
    eps: float = Field(default=1e-8, gt=0)


class Scheduler(Section):
    """Learning rate over steps."""

    name: Literal["linear", "cosine", "constant"] = "linear"


class Hyperparameters(Section):
    """The optimisation. Give max_steps or num_train_epochs; max_steps wins when both are given, as in transformers."""

    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    per_device_train_batch_size: int = Field(default=8, ge=1)
    per_device_eval_batch_size: int | None = Field(default=None, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: Ratio | None = None
    weight_decay: float = Field(default=0.0, ge=0)
    max_seq_length: int = Field(default=512, ge=8)
    save_steps: int | None = Field(default=None, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    logging_steps: int = Field(default=10, ge=1)
    bf16: bool | None = Field(default=None, description="Short form of precision: bf16.")
    fp16: bool | None = Field(default=None, description="Short form of precision: fp16.")
    gradient_checkpointing: bool = False
    max_grad_norm: float = Field(default=1.0, ge=0)
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

    seed: int = Field(default=42, ge=0, lt=2**32)
    deterministic: bool = False
    cudnn_benchmark: bool = False


class EarlyStopping(Section):
    """Stop when the metric has not improved by min_delta for `patience` evaluations."""

    metric: str = "eval_loss"
    mode: Literal["min", "max"] = "min"
    patience: int = Field(default=3, ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Checkpoint(Section):
    """When to save besides save_steps, and what to keep."""

    every_minutes: float | None = Field(default=None, gt=0, description="Default: 10 unless save_steps is given.")
    keep_last: int = Field(default=2, ge=1)
    keep_best: int = Field(default=0, ge=0)
    metric: str = "eval_loss"
    uri: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/=+-]*)?$",
        description="s3://bucket/prefix: checkpoints go there instead of the output folder, uploaded beside the steps; "
        "one prefix a run. Credentials and endpoint come from the environment.",
    )


class ParallelismOptions(Section):
    """More about zero1, zero2, zero3 and fsdp2."""

    offload: Literal["none", "cpu"] = Field(
        default="none",
        description="`cpu` keeps the optimizer (with zero3 and fsdp2 also the weights) in host memory: slower, for "
        "models that do not fit otherwise.",
    )


class Span(Section):
    """How a text is searched for the answer; for the tasks span and joint."""

    doc_stride: int = Field(default=128, ge=0, description="Tokens that two neighbouring windows of a long text share.")
    max_answer_tokens: int = Field(default=64, ge=1, description="No longer answer is given.")


class Joint(Section):
    """How a class and a span are learned together; for the task joint."""

    encoders: Literal["shared", "two"] = Field(
        default="shared", description="One encoder for both, or one for each (twice the weights)."
    )
    classification_weight: float = Field(default=1.0, ge=0, description="Of the class's loss.")
    span_weight: float = Field(default=1.0, ge=0, description="Of the span's loss.")


class Resources(Section):
    """What the run needs and may cost; spec.limits beats it."""

    min_gpu_memory_gb: float | None = Field(
        default=None, gt=0, description="For people: the profile decides what a node has."
    )
    min_system_memory_gb: float | None = Field(
        default=None, gt=0, description="For people: the profile decides what a node has."
    )
    expected_runtime_hours: float | None = Field(
        default=None, gt=0, description="For people: spec.limits.maxRuntime is the limit."
    )
    max_budget_usd: Budget | None = Field(
        default=None, description="The cap in USD when spec.limits.maxCostUSD is absent; micro-USD inside."
    )


class Mlflow(Section):
    """An MLflow server or a database file; credentials come from the environment only (docs/how-to/track.md)."""

    tracking_uri: str | None = Field(
        default=None,
        min_length=1,
        description="http(s)://, or sqlite:///PATH relative to the output folder. Default: MLFLOW_TRACKING_URI of the "
        "environment, else sqlite:///tracking/mlflow.db.",
    )
    experiment: str | None = Field(default=None, min_length=1, description="Default: the manifest's name.")
    run_name: str | None = Field(default=None, min_length=1, description="Default: the run's name.")
    registered_model: str | None = Field(
        default=None, pattern=r"^[^/:]+$", description="Register the finished model as a version of this model."
    )
    alias: str | None = Field(
        default=None, pattern=r"^[A-Za-z][\w-]*$", description="Let this alias of the model name the new version."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="On the tracking run.")
    log_model: bool = Field(default=False, description="Send the model's files too; else only model_info.json.")


class Wandb(Section):
    """Weights & Biases; credentials come from the environment only (docs/how-to/track.md)."""

    project: str | None = Field(default=None, min_length=1, description="Default: the manifest's name.")
    entity: str | None = Field(default=None, min_length=1)
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None,
        description="offline: files below tracking/ of the output folder, for `wandb sync`. Default: WANDB_MODE of the "
        "environment, else online.",
    )
    tags: list[str] = Field(default_factory=list)


class Tracking(Section):
    """Experiment trackers. None of them ends or slows a training: what fails is said, and told later."""

    mlflow: Mlflow | None = None
    wandb: Wandb | None = None
    comet: dict[str, Any] | None = None


class PromptSets(Section):
    """JSONL files of prompts, relative to the dataset root; docs/how-to/evaluate.md says what stands in each."""

    toxicity: str | None = Field(default=None, description="`prompt` a line: what may draw a toxic reply.")
    crisis: str | None = Field(default=None, description="`prompt`, and `kind`: crisis or harmless.")
    fairness: str | None = Field(default=None, description="`prompt`, `scenario`, `group`: one text for each group.")
    rubric: str | None = Field(default=None, description="`prompt` a line: the replies are judged by the judge.")
    text: str | None = Field(default=None, description="`prompt`, `reference`; default: the held-out conversations.")
    translation: str | None = Field(default=None, description="`prompt`, `reference`, a translation; also gives BLEU.")


class Scorers(Section):
    """What judges replies: a classifier that Tollgate trained (its run's folder), or a JSON file of rules. Relative to
    the dataset root.
    """

    toxicity: str | None = Field(default=None, description="Toxic replies: suites safety and fairness.")
    unsafe: str | None = Field(default=None, description="Replies that are unsafe in a crisis: suite safety.")
    redirect: str | None = Field(default=None, description="Replies that lead to help: suite safety.")
    refusal: str | None = Field(default=None, description="Refused answers: suite fairness.")


class Judge(Section):
    """A local language model that rates replies. Its numbers are advisory until people's labels show that it agrees."""

    path: str = Field(min_length=1, description="The model's folder, relative to the dataset root.")
    digest: Sha256 = Field(description="Of the folder's files, as `tollgate evaluate` names it: the judge is pinned.")
    labels: str | None = Field(
        default=None, description="JSONL of `rubric`, `prompt`, `reply`, `rating` (1 to 5) by people; 100 a rubric."
    )
    rubrics: dict[str, str] | None = Field(
        default=None,
        description="Name and question of each; default: relevance, completeness, clarity, domain_appropriateness.",
    )
    min_agreement: float = Field(
        default=0.4, ge=0, le=1, description="The lower bound that quadratic weighted kappa with the labels must reach."
    )


class Extensions(Section):
    """Code of your own, without a fork: entry points of installed packages, or `module:Class` where whoever runs the
    machine allows the module (TOLLGATE_ALLOWED_EXTENSIONS); docs/how-to/extend.md.
    """

    loss: str | None = Field(default=None, description="causal-lm: what is minimised (group tollgate.losses).")
    trainer_step: str | None = Field(
        default=None, description="Around forward and backward of a micro-batch (group tollgate.trainer_steps)."
    )
    dataset_source: str | None = Field(
        default=None, description="Reads the files of the dataset (group tollgate.dataset_sources)."
    )


class Evaluation(Section):
    """Evaluation after training; spec.evaluation beats it."""

    enabled: bool = True
    suites: list[str] | None = Field(
        default=None,
        min_length=1,
        description="standard, safety, fairness, text, translation, rubric, legacy, classification, auroc, span, "
        "joint, or an evaluator's name. Default: the task's own, which is standard for causal-lm.",
    )
    prompt_sets: PromptSets = Field(default_factory=PromptSets)
    task_files: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="JSONL files of `prompt`, `choices`, `answer`, each with its weight in quality_score; default: "
        "questions made from the held-out documents.",
    )
    scorer: Scorers = Field(default_factory=Scorers)
    judge: Judge | None = None
    positive_label: str | None = Field(
        default=None,
        description="Of a classifier with two labels: the one to find. Its threshold and ROC are then frozen, so that "
        "it can be a scorer.",
    )
    max_samples: int | None = Field(
        default=None,
        ge=1,
        description="At most so many prompts, questions or documents a metric; default: the suite's.",
    )
    completions_per_prompt: int = Field(default=1, ge=1, le=64)
    max_new_tokens: int = Field(default=64, ge=1, le=8192)
    temperature: float = Field(default=0.0, ge=0, le=5, description="0 takes the likeliest token each time.")
    batch_size: int = Field(default=16, ge=1, description="Prompts that are answered at once; it changes the draws.")
    samples: int = Field(
        default=3,
        ge=0,
        le=64,
        description="causal-lm: how many held-out prompts the model answers at each evaluation while it trains, for "
        "people; 0 is none.",
    )
