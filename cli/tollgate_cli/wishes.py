"""What the options and the environment of a command ask of the manifest's file, and the document that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tollgate.manifest.loader import LoadedManifest, load_overridden
from tollgate.manifest.overrides import Change, Override, from_environment, setting
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.writing import to_yaml

QUICK_STEPS = 4
QUICK_EVERY = 2
QUICK_DOCUMENTS = 64
QUICK_QUESTIONS = 20
QUICK_PREFIX = "quick-test"


@dataclass(frozen=True, slots=True)
class Wishes:
    """As the options say it. settings: the texts of `--set`."""

    overlay: Path | None = None
    settings: tuple[str, ...] = ()
    max_steps: int | None = None
    learning_rate: float | None = None
    quick_test: bool = False

    def arguments(self) -> list[str]:
        """As they are typed, to go on with the same document; a quick test is not gone on with."""
        words = [*(("--overlay", str(self.overlay)) if self.overlay else ())]
        words += [] if self.max_steps is None else ["--max-steps", str(self.max_steps)]
        words += [] if self.learning_rate is None else ["--learning-rate", str(self.learning_rate)]
        return [*words, *(word for text in self.settings for word in ("--set", text))]

    def options(self) -> list[Override]:
        """The highest layer: flags and settings. Raises: ManifestError for a setting that is none."""
        flags = (
            ("max_steps", "--max-steps", self.max_steps),
            ("learning_rate", "--learning-rate", self.learning_rate),
        )
        return [
            *(
                Override(("hyperparameters", field), value, f"{flag} {value}")
                for field, flag, value in flags
                if value is not None
            ),
            *(setting(text) for text in self.settings),
        ]


@dataclass(frozen=True, slots=True)
class Effective:
    """What is trained: the file with everything that stands over it, and what that changed."""

    loaded: LoadedManifest
    changes: tuple[Change, ...] = ()

    def record(self) -> str:
        """The effective manifest as a file that loads as itself, with where each change came from."""
        told = [
            "# The manifest that was trained: its file with what stood over it.",
            f"# {self.loaded.digest}",
            f"# from {self.loaded.source}",
            *(f"# changed: {change}" for change in self.changes),
        ]
        lines = [line.replace("\n", " ") for line in told]
        return "\n".join([*lines, to_yaml(self.loaded.document)])


def effective(file: Path, wishes: Wishes, environ: Mapping[str, str]) -> Effective:
    """The manifest of a file, or of a TrainingRun in it, with overlay, environment and options over it, in this order.

    A quick test's changes stand below the options, so `--quick-test --max-steps 8` makes eight steps.
    Raises: ManifestError.
    """
    environment, options = from_environment(environ), wishes.options()
    loaded, changes = load_overridden(file, wishes.overlay, [environment, options])
    if wishes.quick_test:
        layers: Sequence[Sequence[Override]] = [environment, quick_test(loaded.manifest), options]
        loaded, changes = load_overridden(file, wishes.overlay, layers)
    return Effective(loaded, tuple(changes))


def quick_test(manifest: TrainingManifest) -> list[Override]:
    """Every part of a run in little: a few steps on little data, with saves and evaluations between them.

    What decides whether it works at all (model, sequence length, micro-batch, precision, task) stays as it is.
    """
    asked, dataset, judged = manifest.hyperparameters, manifest.dataset, manifest.evaluation
    changes = (
        ("hyperparameters", "max_steps", asked.max_steps, min(asked.max_steps or QUICK_STEPS, QUICK_STEPS)),
        ("hyperparameters", "gradient_accumulation_steps", (n := asked.gradient_accumulation_steps), min(n, 2)),
        ("hyperparameters", "save_steps", asked.save_steps, QUICK_EVERY),
        ("hyperparameters", "eval_steps", asked.eval_steps, QUICK_EVERY),
        ("hyperparameters", "logging_steps", asked.logging_steps, 1),
        ("dataset", "limit", dataset.limit, min(dataset.limit or QUICK_DOCUMENTS, QUICK_DOCUMENTS)),
        ("evaluation", "max_samples", judged.max_samples, min(judged.max_samples or QUICK_QUESTIONS, QUICK_QUESTIONS)),
    )
    found = [Override((section, field), new, "--quick-test") for section, field, old, new in changes if old != new]
    if (uri := manifest.checkpoint.uri) is not None:
        found.append(Override(("checkpoint", "uri"), f"{uri.rstrip('/')}/{QUICK_PREFIX}", "--quick-test"))
    return found
