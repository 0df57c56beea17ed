"""Documents -> YAML that every reader reads alike, and the example to start from."""

from __future__ import annotations

from typing import Any

import yaml

from tollgate.manifest import canonical
from tollgate.manifest.scalars import disagreement, plain


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some reader would take for something else."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    ambiguous = disagreement(value) is not None or plain(value) != value
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if ambiguous else None)


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = canonical.number(value)
    # PyYAML quotes a float that it would not itself read as one, so 1e-4 has to look like 1.0e-4.
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text if "." in text else f"{text}.0")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _number)


def to_yaml(document: dict[str, Any]) -> str:
    """Block YAML of a document of JSON values; read_yaml gives the same values back."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2)


EXAMPLE = """\
# A training manifest. The same file runs on a laptop (`tollgate run manifest.yaml`) and, as spec.manifest of a
# TrainingRun, on a cluster. Only `name` and `dataset.path` are required; all fields: docs/reference/manifest.md
name: my-model
description: What this model is for.

dataset:
  path: data/train.jsonl        # relative to this file; on a cluster to the dataset volume's folder
  format: auto                  # conversations | chat | text, or auto to look at the first lines
  splits:
    validation: 0.1             # share of documents that is held out and never trained on

model:
  # Train on from a model: a folder beside this file, or the id of one on a hub.
  # base: models/base
  # Or start from scratch with a transformers config; the tokenizer is trained on the data.
  config:
    model_type: llama
    hidden_size: 128
    intermediate_size: 352
    num_hidden_layers: 4
    num_attention_heads: 4
    num_key_value_heads: 4

adapter:
  type: none                    # none trains all weights, lora a small adapter (set rank, alpha)

hyperparameters:
  num_train_epochs: 1
  learning_rate: 1e-3
  per_device_train_batch_size: 8
  gradient_accumulation_steps: 1
  max_seq_length: 256
  warmup_ratio: 0.03
  logging_steps: 10

precision: auto                 # bf16 where the device has it, else fp32
seed: 42

checkpoint:
  every_minutes: 10             # an interrupted run goes on from its newest valid checkpoint
  keep_last: 2

compute_target: cpu             # cpu | gpu_single | gpu_multi | cloud_gpu: picks the cluster's profile

resources:
  max_budget_usd: "5.00"        # the cap on a cluster; spec.limits.maxCostUSD of a TrainingRun beats it

evaluation:
  enabled: true
"""
