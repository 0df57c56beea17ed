"""Models with a head for a task: classification, span, or both; made from a config or put on a base.

Classification and span use the library's own architectures, so the finished model loads without Tollgate. Joint is
JointModel of joint.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TASK_FILE = "task.json"
"""In the model's folder: what the task knows (classes, threshold, lengths)."""

_MADE_FOR = {
    "classification": "AutoModelForSequenceClassification",
    "span": "AutoModelForQuestionAnswering",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What a model is asked to give. labels: the classes in the order of the outputs, () for span."""

    kind: Literal["classification", "span", "joint"]
    labels: tuple[str, ...] = ()
    encoders: Literal["shared", "two"] = "shared"
    classification_weight: float = 1.0
    span_weight: float = 1.0

    @property
    def peft_task(self) -> str | None:
        """PEFT's name of the task; None is its plain model, which hands on all inputs.

        PEFT 0.21's own model for question answering takes token_type_ids and silently drops them.
        """
        return "SEQ_CLS" if self.kind == "classification" else None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Head:
        """The head that a task.json describes."""
        return cls(
            kind=document["task"],
            labels=tuple(document.get("labels", ())),
            encoders=document.get("encoders", "shared"),
            classification_weight=document.get("classification_weight", 1.0),
            span_weight=document.get("span_weight", 1.0),
        )

    def create(self, config: PretrainedConfig) -> PreTrainedModel:
        """A model with fresh weights (fp32). Raises: ModelRefused where the architecture has no such head."""
        import transformers

        _refuse_unfit(config, self)
        if self.kind == "joint":
            from tollgate_trainer.models import joint

            return joint.create(config, self)
        self._describe(config)
        auto: Any = getattr(transformers, _MADE_FOR[self.kind])
        try:
            model: PreTrainedModel = auto.from_config(config, dtype="float32")
        except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
            raise ModelRefused(
                f"no model for {self.kind} can be made from this config: {error}", "model.config"
            ) from error
        return model

    def loader(self, source: Source, pad_token_id: int) -> Callable[..., PreTrainedModel]:
        """`from_pretrained` for the base of `source` with this head; what the base does not have is initialised.

        Raises: ModelRefused, now or when it is called.
        """
        import transformers

        from tollgate_trainer.models import joint  # makes its type of config known

        config = base_config(source)
        _refuse_unfit(config, self)
        config.pad_token_id = pad_token_id
        if self.kind == "joint":
            return partial(joint.load, config=config, head=self)
        self._describe(config)
        auto: Any = getattr(transformers, _MADE_FOR[self.kind])

        def load(name: str, **options: Any) -> PreTrainedModel:
            # The base may have been made for other classes: its head is replaced, everything else has to fit.
            model, info = auto.from_pretrained(
                name, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options
            )
            refuse_misfit(name, model.base_model_prefix + ".", info["mismatched_keys"])
            loaded: PreTrainedModel = model
            return loaded

        return load

    def modules(self, model: PreTrainedModel) -> list[str]:
        """The modules that are not the base: they are always trained, whatever the adapter is."""
        if self.kind == "joint":
            return ["classifier", "qa_outputs"]
        return [
            name
            for name, child in model.named_children()
            if name != model.base_model_prefix and any(True for _ in child.parameters())
        ]

    def train_in_full_precision(self, model: Any) -> None:
        """A head on a base in 16 bits is trained in 32, as the adapter beside it is."""
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.float()

    def _describe(self, config: PretrainedConfig) -> None:
        if self.kind == "span":
            config.num_labels = 2  # start and end
            return
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {label: number for number, label in enumerate(self.labels)}
        config.problem_type = "single_label_classification"


def base_config(source: Source) -> PretrainedConfig:
    """The config of a base. Raises: ModelRefused."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source.name, revision=source.revision or "main", local_files_only=source.offline, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelRefused(f"{source.name} has no config that can be read: {error}", "model.base") from error
    return config


def config_of(manifest: TrainingManifest, source: Source, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The config of the manifest's model, given or of its base. Raises: ModelRefused."""
    from tollgate_trainer.models.build import config_from

    if manifest.model.config is None:
        return base_config(source)
    return config_from(manifest.model.config, tokenizer)


def refuse_too_long(config: PretrainedConfig, max_length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: ModelRefused when the model has fewer positions than a sequence may have tokens."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return
    if "roberta" in config.model_type or config.model_type in ("camembert", "longformer"):
        positions -= int(tokenizer.pad_token_id or 0) + 1  # they count from behind the padding token's number
    if max_length > positions:
        raise ModelRefused(
            f"the model has {positions} positions, sequences may have {max_length} tokens; lower it to at most "
            f"{positions}",
            "hyperparameters.max_seq_length",
        )


def refuse_misfit(name: str, inner: str, mismatched: Iterable[Any]) -> None:
    """Raises: ModelRefused when a weight of the base itself (not of its head) has another shape than its config."""
    if wrong := sorted(str(key[0]) for key in mismatched if str(key[0]).startswith(inner)):
        raise ModelRefused(
            f"{name} does not fit its own config: {', '.join(wrong[:3])} have another shape; restore the folder",
            "model.base",
        )


def _refuse_unfit(config: PretrainedConfig, head: Head) -> None:
    if config.is_encoder_decoder:
        raise ModelRefused(
            f"{config.model_type} is an encoder and a decoder; task {head.kind} needs one of them: use for example "
            "bert, modernbert, llama or qwen3",
            "model",
        )


def task_known(model: Any) -> dict[str, Any] | None:
    """The task.json that a model was loaded with (load_finished leaves it in the config), None without one."""
    known: dict[str, Any] | None = getattr(model.config, "tollgate_task", None)
    return known


def read_task(folder: Path) -> dict[str, Any] | None:
    """The task.json of a finished model, None for a causal language model. Raises: ModelRefused."""
    path = folder / TASK_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ModelRefused(f"{path} cannot be understood: {error}") from error
    return document
