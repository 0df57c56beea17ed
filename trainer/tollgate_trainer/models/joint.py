"""One model that classifies a text and marks the span that answers: a shared encoder, or one for each.

It is the library's encoder with two linear heads; the class comes from the mean of the tokens' vectors, so encoders and
decoders both serve. The folder loads with `JointModel.from_pretrained(folder)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from tollgate_trainer.models.heads import Head

DROPOUT = 0.1


class JointConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The encoder's own config, how many of it there are, and how much each loss counts."""

    model_type = "tollgate_joint"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        encoders: str = "shared",
        classification_weight: float = 1.0,
        span_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.encoder = dict(encoder or {})
        self.encoders = encoders
        self.classification_weight = classification_weight
        self.span_weight = span_weight
        # What the trainer and its checks look for in any config.
        for name in ("vocab_size", "hidden_size", "type_vocab_size", "max_position_embeddings"):
            if name in self.encoder:
                kwargs.setdefault(name, self.encoder[name])
        super().__init__(**kwargs)

    def encoder_config(self) -> PretrainedConfig:
        """The encoder's config as the library has it."""
        values = dict(self.encoder)
        config: PretrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
        return config


@dataclass
class JointOutput(ModelOutput):
    """loss: weighted sum, a scalar; logits: [texts, classes]; start_logits, end_logits: [texts, tokens]."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None


class JointModel(PreTrainedModel):
    """Classification and span."""

    config_class = JointConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: JointConfig) -> None:
        super().__init__(config)
        self.encoder = _encoder(config)
        self.span_encoder = _encoder(config) if config.encoders == "two" else None
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(config.encoder["hidden_size"], int(config.num_labels or 0))
        self.qa_outputs = nn.Linear(config.encoder["hidden_size"], 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The (first) encoder's."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Of the (first) encoder."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        label_weights: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
    ) -> JointOutput:
        """Args: input_ids, attention_mask, token_type_ids: [texts, tokens]; labels, start_positions, end_positions:
        [texts]; label_weights: [texts], how much a text's class counts (a long document has several windows).
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        states = self.encoder(**given).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        logits = self.classifier(self.dropout(mean))
        span_states = states if self.span_encoder is None else self.span_encoder(**given).last_hidden_state
        starts, ends = self.qa_outputs(self.dropout(span_states)).unbind(dim=-1)
        loss = None
        if labels is not None and start_positions is not None and end_positions is not None:
            each = functional.cross_entropy(logits.float(), labels, reduction="none")
            weights = torch.ones_like(each) if label_weights is None else label_weights.to(each.dtype)
            class_loss = (each * weights).sum() / weights.sum()
            span_loss = functional.cross_entropy(starts.float(), start_positions)
            span_loss = (span_loss + functional.cross_entropy(ends.float(), end_positions)) / 2
            loss = self.config.classification_weight * class_loss + self.config.span_weight * span_loss
        return JointOutput(loss=loss, logits=logits, start_logits=starts, end_logits=ends)


def create(config: PretrainedConfig, head: Head) -> PreTrainedModel:
    """A model with fresh weights (fp32). Raises: ModelRefused."""
    try:
        return JointModel(_joint_config(config, head))
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ModelRefused(f"no encoder can be made from this config: {error}", "model.config") from error


def load(name: str, config: PretrainedConfig, head: Head, **options: Any) -> PreTrainedModel:
    """A base with both heads, or a finished joint model.

    Args: config: the base's own; options: for `from_pretrained`.
    Raises: ModelRefused, and what `from_pretrained` raises.
    """
    from tollgate_trainer.models.heads import refuse_misfit

    if isinstance(config, JointConfig):
        model = JointModel.from_pretrained(name, config=config, **options)
        return cast("PreTrainedModel", model)
    joint = JointModel(_joint_config(config, head))
    for part in ("encoder", "span_encoder"):
        if getattr(joint, part) is None:
            continue
        loaded, info = AutoModel.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options
        )
        refuse_misfit(name, "", info["mismatched_keys"])
        setattr(joint, part, _bare(loaded))
    joint.classifier.to(options["dtype"])
    joint.qa_outputs.to(options["dtype"])
    return cast("PreTrainedModel", joint)


def _joint_config(config: PretrainedConfig, head: Head) -> JointConfig:
    values = config.to_dict()
    values["model_type"] = config.model_type
    for name in ("architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        values.pop(name, None)  # of the folder that it was read from, not of the encoder
    if "hidden_size" not in values:
        values["hidden_size"] = config.hidden_size  # some architectures name it otherwise
    return JointConfig(
        encoder=values,
        encoders=head.encoders,
        classification_weight=head.classification_weight,
        span_weight=head.span_weight,
        id2label=dict(enumerate(head.labels)),
        label2id={label: number for number, label in enumerate(head.labels)},
        pad_token_id=config.pad_token_id,
    )


def _encoder(config: JointConfig) -> PreTrainedModel:
    make: Any = AutoModel.from_config
    return _bare(make(config.encoder_config()))


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """Without a pooler: it would never be used, and several processes would wait for its gradients. No cache."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        setattr(model, "pooler", None)  # noqa: B010 - the library types it as always there
    model.config.use_cache = False
    return model


AutoConfig.register(JointConfig.model_type, JointConfig)
AutoModel.register(JointConfig, JointModel)
