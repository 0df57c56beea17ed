"""What `tollgate model` and `tollgate infer` are pointed at: a run's output folder, or any model folder. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tollgate.contract import Files
from tollgate_trainer.models.finished import BASE_FILE, PLAIN_ADAPTER, ModelInfo
from tollgate_trainer.models.heads import read_task
from tollgate_trainer.models.moe_lora.config import CONFIG_FILE as MOE_LORA
from tollgate_trainer.refusal import ModelRefused

Kind = Literal["whole", "lora", "moe-lora"]
_KINDS: tuple[tuple[str, Kind], ...] = (("config.json", "whole"), (PLAIN_ADAPTER, "lora"), (MOE_LORA, "moe-lora"))


@dataclass(frozen=True, slots=True)
class Shelved:
    """A model on the disk. info: None for a folder that no training of ours made; base: the contents of base.json."""

    folder: Path
    kind: Kind
    info: ModelInfo | None
    base: dict[str, Any] | None
    task: dict[str, Any] | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def problem(self) -> str | None:
        """How the files differ from what was saved, None when they are whole. Reads every byte.

        Raises: ModelRefused without a record to compare with.
        """
        if self.info is None:
            raise ModelRefused(
                f"{self.folder} has no {Files.MODEL_INFO}, so nothing says what its files should be; Tollgate did not "
                "train it"
            )
        return self.info.problem(self.folder)

    def whole(self) -> Shelved:
        """Itself. Raises: ModelRefused when its files are not what was saved."""
        if self.info is not None and (problem := self.problem()) is not None:
            raise ModelRefused(f"{self.folder} is damaged: {problem}; restore it from a backup")
        return self


def shelved(where: Path) -> Shelved:
    """The model in a run's output folder or in a model folder. Raises: ModelRefused when neither holds one."""
    for folder in (where / Files.MODEL, where):
        for name, kind in _KINDS:
            if (folder / name).is_file():
                return Shelved(folder, kind, ModelInfo.read(folder), _json(folder / BASE_FILE), read_task(folder))
    raise ModelRefused(
        f"{where} holds no model: there is no {', '.join(name for name, _ in _KINDS)} in it or in its {Files.MODEL}/. "
        "Name a run's output folder, such as runs/my-model, or a model folder"
    )


def described(model: Shelved) -> dict[str, Any]:
    """What is known about it, for people and scripts; unknown is null."""
    known = model.info.document if model.info is not None else {}
    named = (
        "name",
        "run",
        "digest",
        "manifest_digest",
        "dataset_digest",
        "step",
        "chosen_step",
        "total_steps",
        "stopped_early",
        "tokens",
        "parameters",
        "trainable_parameters",
        "seed",
        "equality",
        "metrics",
        "topology",
        "merged_from",
        "finished_at",
    )
    return {
        "folder": str(model.folder),
        "kind": model.kind,
        "task": model.task["task"] if model.task is not None else "causal-lm",
        "bytes": model.size,
        **{name: known.get(name) for name in named},
        "base": model.base,
        "labels": list(model.task["labels"]) if model.task is not None and "labels" in model.task else None,
    }


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be understood: {error}") from error
