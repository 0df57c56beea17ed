"""Where the model comes from: a config, a folder, or a hub id with a revision. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tollgate.manifest import paths
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.refusal import ModelRefused

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class Source:
    """What `from_pretrained` is given: an absolute folder, or a hub id with its revision; both None for a config."""

    folder: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    @property
    def offline(self) -> bool:
        """True when nothing needs the network."""
        return self.hub_id is None

    @property
    def name(self) -> str:
        """What to give `from_pretrained`."""
        if self.folder is not None:
            return str(self.folder)
        assert self.hub_id is not None
        return self.hub_id


def model_source(manifest: TrainingManifest, dataset_root: Path) -> Source:
    """Where the weights come from.

    Raises: ModelRefused when neither `base` nor `config` is given, both are, or the folder holds no model.
    """
    model = manifest.model
    if model.base is None and model.config is None:
        raise ModelRefused(
            "give model.base (a folder with a model) or model.config (a transformers config to start from scratch)",
            "model",
        )
    if model.base is not None and model.config is not None:
        raise ModelRefused("model.base and model.config are both given; keep one", "model")
    if model.base is None:
        return Source()
    source = _located(model.base, model.revision, dataset_root, "model.base")
    if source.folder is not None:
        if not (source.folder / "config.json").is_file():
            raise ModelRefused(f"{source.folder} has no config.json, so it is not a saved model", "model.base")
        if not any(True for pattern in WEIGHTS for _ in source.folder.glob(pattern)):
            raise ModelRefused(f"{source.folder} has no weights ({' or '.join(WEIGHTS)})", "model.base")
    return source


def tokenizer_source(manifest: TrainingManifest, dataset_root: Path) -> Source | None:
    """Where the tokenizer comes from: its own path, the base's, or None when it is to be trained on the data.

    Raises: ModelRefused.
    """
    if manifest.model.tokenizer is not None:
        return _located(manifest.model.tokenizer, manifest.model.revision, dataset_root, "model.tokenizer")
    source = model_source(manifest, dataset_root)
    return source if source.folder is not None or source.hub_id is not None else None


def _located(given: str, revision: str | None, dataset_root: Path, field: str) -> Source:
    folder = paths.resolve(dataset_root, given, field)
    if folder.is_dir():
        return Source(folder=folder)
    if revision is None:
        raise ModelRefused(
            f"there is no folder {given} below the dataset root ({folder}); put the model there, or, for a model of a "
            "hub, name its exact model.revision (a commit) too",
            field,
        )
    return Source(hub_id=given, revision=revision)
