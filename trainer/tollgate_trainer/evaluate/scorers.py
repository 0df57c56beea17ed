"""What marks replies: a classifier that Tollgate trained, with its frozen threshold, or rules, with labelled replies.

Each brings what is known about itself into the evidence. A scorer whose quality is not known well enough still marks,
but its metrics are advisory: no gate may rest on them. A scorer that is not named is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tollgate.contract import Files
from tollgate.manifest import paths
from tollgate_trainer.evaluate import prompts, threshold
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import ScorerFacts, Vector
from tollgate_trainer.evaluate.threshold import Threshold
from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused, ModelRefused

_BATCH = 64
_LONGEST = 512
Purpose = Literal["toxicity", "unsafe", "redirect", "refusal"]


class Scorer(Protocol):
    """Marks texts. `advisory`: why no gate may rest on it."""

    @property
    def name(self) -> str:
        """What the evidence calls it."""
        ...

    @property
    def version(self) -> str:
        """Changes with what it marks."""
        ...

    @property
    def facts(self) -> ScorerFacts:
        """Digest, properties and ROC."""
        ...

    @property
    def advisory(self) -> str | None:
        """None when a gate may rest on it."""
        ...

    def marks(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is one of those that it looks for."""
        ...


def load(subject: Subject, purpose: Purpose) -> Scorer:
    """The scorer that the manifest names for a purpose.

    Raises: ManifestRefused when it names none; ModelRefused, DatasetRefused when it is not there or not usable.
    """
    field = f"evaluation.scorer.{purpose}"
    path = prompts.named(getattr(subject.settings.scorer, purpose), field, f"a scorer for {purpose}")
    place = subject.find(path, field)
    if place.is_dir():
        return Classifier.load(place, purpose, field, subject)
    if place.is_file():
        return Rules.load(place, path, field)
    raise ModelRefused(f"there is no scorer {path} below {subject.root}; put it there or correct the path", field)


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier and its threshold: marks what scores from the threshold on."""

    model: Any
    tokenizer: Any
    device: Any
    positive: int
    purpose: str
    threshold: Threshold
    advisory: str | None

    @property
    def name(self) -> str:
        """Its purpose."""
        return f"{self.purpose}-classifier"

    @property
    def version(self) -> str:
        """The first digits of the model's digest."""
        return self.threshold.model.removeprefix("sha256:")[:12]

    @property
    def facts(self) -> ScorerFacts:
        """As measured on held-out data."""
        return self.threshold.facts

    @classmethod
    def load(cls, folder: Path, purpose: str, field: str, subject: Subject) -> Classifier:
        """From the output folder of a run, or a folder with model and threshold.json.

        Raises: ModelRefused when it is no classifier, its threshold is missing or belongs to other weights.
        """
        run = (folder / Files.MODEL).is_dir()
        model_folder = folder / Files.MODEL if run else folder
        frozen = threshold.read(folder / ("evaluation/" + threshold.FILE if run else threshold.FILE))
        found = digest_of(inventory(model_folder, [Files.MODEL_INFO, threshold.FILE]))
        if found != frozen.model:
            raise ModelRefused(
                f"the threshold in {folder} was frozen for {frozen.model}, the model there has {found}; evaluate the "
                "classifier again",
                field,
            )
        model, tokenizer, labels = classifier(model_folder, field)
        if frozen.positive_label not in labels:
            raise ModelRefused(
                f"{model_folder} knows the labels {sorted(labels)}, its threshold is of {frozen.positive_label!r}; "
                "evaluate the classifier again",
                field,
            )
        advisory = frozen.advisory
        if subject.trained_on is not None and frozen.dataset == subject.trained_on:
            advisory = "its scorer was trained on the data of the model that it judges"
        model.to(subject.device)
        return cls(model, tokenizer, subject.device, labels[frozen.positive_label], purpose, frozen, advisory)

    def marks(self, texts: Sequence[str]) -> list[bool]:
        """Whether the probability of the positive label reaches the threshold. An empty text is marked as any other."""
        scores = probabilities(self.model, self.tokenizer, self.device, texts)[:, self.positive]
        return [bool(score >= self.threshold.threshold) for score in scores]


def classifier(folder: Path, field: str) -> tuple[Any, Any, dict[str, int]]:
    """(model, tokenizer, label -> column) of a saved sequence classifier. Raises: ModelRefused."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.source import Source

    if (folder / "adapter_config.json").is_file():
        raise ModelRefused(f"{folder} holds an adapter; merge it into its base to use it as a scorer", field)
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{folder} holds no saved model: {error}", field) from error
    if not any(str(name).endswith("ForSequenceClassification") for name in architectures):
        raise ModelRefused(
            f"{folder} holds {', '.join(architectures) or 'no known model'}, not a classifier; train one with "
            "`task: classification`",
            field,
        )
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    labels = {str(name): int(index) for index, name in model.config.id2label.items()}
    return model.eval(), tokenizers.load(Source(folder=folder)), labels


def probabilities(model: Any, tokenizer: Any, device: Any, texts: Sequence[str]) -> Vector:
    """Softmax over the labels, shape [texts, labels]; texts are cut at 512 tokens, or at what the model can hold."""
    import torch

    from tollgate_trainer.tasks.inputs import forward

    places = getattr(model.config, "max_position_embeddings", None) or _LONGEST
    found = []
    with torch.inference_mode():
        for first in range(0, len(texts), _BATCH):
            batch = tokenizer(
                [text or " " for text in texts[first : first + _BATCH]],
                padding=True,
                truncation=True,
                max_length=min(_LONGEST, places),
                return_tensors="pt",
            )
            given = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            logits = forward(model, given).logits
            found.append(torch.softmax(logits.double(), dim=-1).cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, model.config.num_labels))


@dataclass(frozen=True)
class Rules:
    """Regular expressions, searched in the text folded to lower case and single spaces; any of them marks.

    What they miss and what they mark wrongly is measured on labelled replies each time.
    """

    name: str
    version: str
    patterns: tuple[re.Pattern[str], ...]
    facts: ScorerFacts
    advisory: str | None

    @classmethod
    def load(cls, file: Path, path: str, field: str) -> Rules:
        """From JSON: name, version, patterns, and labelled: a JSONL file beside it with `text` and `label`.

        Raises: DatasetRefused, ManifestRefused naming file and entry.
        """
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            rules = cls(
                name=str(said["name"]),
                version=str(said["version"]),
                patterns=tuple(re.compile(str(pattern)) for pattern in said["patterns"]),
                facts=ScorerFacts(),
                advisory="its rules were measured on no labelled replies",
            )
            labelled = said.get("labelled")
        except (OSError, ValueError, KeyError, TypeError, re.error) as error:
            raise ManifestRefused(
                f"{path} is no file of rules ({type(error).__name__}: {error}); it needs name, version and patterns",
                field,
            ) from error
        content = hashlib.sha256(file.read_bytes())
        if labelled is None:
            return replace(rules, facts=ScorerFacts(digest=f"sha256:{content.hexdigest()}"))
        examples = []
        for origin, record in prompts.rows(paths.resolve(file.parent, str(labelled), field), str(labelled), field):
            if not isinstance(record.get("label"), bool):
                raise DatasetRefused(f"{origin}: label must be true or false, not {record.get('label')!r}", field)
            examples.append((prompts.text_of(record, "text", origin, field), bool(record["label"])))
        content.update((file.parent / str(labelled)).read_bytes())
        return _measured(rules, examples, f"sha256:{content.hexdigest()}")

    def marks(self, texts: Sequence[str]) -> list[bool]:
        """Whether any pattern is found."""
        return [any(pattern.search(folded) for pattern in self.patterns) for folded in map(fold, texts)]


def _measured(rules: Rules, examples: Sequence[tuple[str, bool]], digest: str) -> Rules:
    truth = np.asarray([label for _, label in examples])
    marked = np.asarray(rules.marks([text for text, _ in examples]))
    positives, negatives = int(truth.sum()), int((~truth).sum())
    properties = {"positives": float(positives), "negatives": float(negatives)}
    advisory = None
    if min(positives, negatives) < threshold.LEAST:
        advisory = (
            f"its rules were measured on {positives} positives and {negatives} negatives; at least "
            f"{threshold.LEAST} of each are needed"
        )
    roc: tuple[tuple[float, float, float], ...] = ()
    if positives and negatives:
        sensitivity, alarms = float(marked[truth].mean()), float(marked[~truth].mean())
        properties |= {"sensitivity": sensitivity, "specificity": 1 - alarms}
        roc = ((1.0, sensitivity, alarms),)
        if sensitivity <= alarms:
            advisory = f"its rules tell nothing apart (sensitivity {sensitivity:.3f}, false alarms {alarms:.3f})"
    return replace(rules, facts=ScorerFacts(properties, digest, roc), advisory=advisory)


def fold(text: str) -> str:
    """Unicode NFC, straight apostrophes, case folded, white space collapsed."""
    plain = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(plain.casefold().split())
