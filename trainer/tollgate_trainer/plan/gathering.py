"""`tollgate plan`'s child process: what needs torch and the data, told to its parent as JSON."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tollgate.estimate import Pace
from tollgate.manifest import canonical
from tollgate.manifest.loader import LoadedManifest
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning import devices
from tollgate.planning.choose import choose
from tollgate.planning.facts import Facts, epoch_of
from tollgate.planning.lengths import Lengths, lengths_of
from tollgate.planning.shapes import Shape
from tollgate_trainer import durable
from tollgate_trainer.data import load_documents
from tollgate_trainer.plan import hardware
from tollgate_trainer.plan.arranging import Sizes, arranger

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the child found. pace: of this machine's CPU, None when it was not asked for or could not be measured."""

    dataset_digest: str
    sizes: Sizes
    shape: Shape | None
    labels: int | None
    unknown: str | None
    cpu_flops: float | None = None
    pace: Pace | None = None

    @property
    def lengths(self) -> Lengths:
        """Of the documents, before they are cut."""
        return lengths_of(self.sizes.lengths, self.sizes.held_out)


def cache_path(loaded: LoadedManifest, dataset_digest: str) -> Path:
    """Where statistics of this data under this model and tokenizer are kept: nothing else in the manifest matters."""
    document = loaded.document
    kept: dict[str, Any] = {
        name: document.get(name)
        for name in ("dataset", "model", "task", "adapter", "extensions", "span", "joint")
        if name in document
    }
    if loaded.manifest.task != "causal-lm":  # whose texts and windows are cut by the task
        kept["max_seq_length"] = loaded.manifest.hyperparameters.max_seq_length
    key = hashlib.sha256(canonical.serialise(kept) + dataset_digest.encode() + bytes([FORMAT])).hexdigest()
    root = os.environ.get("TOLLGATE_CACHE")
    folder = Path(root) if root else Path.home() / ".cache" / "tollgate"
    return folder / "plan" / f"{key[:32]}.json"


def gather(loaded: LoadedManifest, dataset_root: Path, cpu: bool) -> Gathered:
    """Statistics (from the cache when data and model are the same), sizes, and with `cpu` this machine's pace.

    Raises: DatasetRefused, ModelRefused, ManifestError.
    """
    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.source import tokenizer_source
    from tollgate_trainer.plan.facts import labels_of, shape_for, whole_sizes
    from tollgate_trainer.plan.probe import model_pace, product_flops
    from tollgate_trainer.plan.shape import config_of
    from tollgate_trainer.tasks.choose import task_for

    manifest = loaded.manifest
    documents = load_documents(manifest, dataset_root)
    path = cache_path(loaded, documents.digest)
    found = _cached(path)
    tokenizer: Any = None
    if found is None or cpu:
        source = tokenizer_source(manifest, dataset_root)
        if source is not None:
            tokenizer = tokenizers.load(source)
        else:
            size = int((manifest.model.config or {}).get("vocab_size", tokenizers.DEFAULT_VOCABULARY))
            tokenizer = tokenizers.from_json(tokenizers.train(documents.train, size))
    if found is None:
        task = task_for(manifest, documents, tokenizer, dataset_root)
        shape, unknown = shape_for(manifest, dataset_root, tokenizer, task)
        sizes = whole_sizes(documents, task, tokenizer, manifest)
        found = Gathered(documents.digest, sizes, shape, labels_of(manifest, documents), unknown)
        durable.write(path, json.dumps(asdict(found)).encode())
    if not cpu:
        return found
    flops = product_flops()
    pace = None
    if found.shape is not None:
        rows, width = _probe_shape(manifest, found)
        pace = model_pace(manifest, config_of(manifest, dataset_root, tokenizer), found.shape, rows, width)
    return replace(found, cpu_flops=flops, pace=pace)


def _probe_shape(manifest: TrainingManifest, found: Gathered) -> tuple[int, int]:
    """Rows and width of a typical micro-batch of the run."""
    arrange = arranger(found.sizes, manifest.reproducibility.seed)
    facts = Facts(found.lengths, found.shape, devices.cpu(hardware.host_memory()), arrange, labels=found.labels)
    settings = choose(manifest, facts).settings
    epoch = epoch_of(manifest, facts, settings)
    width = -(-round(epoch.width) // 8) * 8
    if found.shape is not None and found.shape.positions is not None:
        width = min(width, found.shape.positions)
    return min(settings.micro_batch, epoch.rows), width


def _cached(path: Path) -> Gathered | None:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # absent, or of another version: it is gathered again


def parse(text: str) -> Gathered:
    """Read what the child wrote. Raises: ValueError."""
    found: Gathered = TypeAdapter(Gathered).validate_json(text)
    return found


def dump(found: Gathered) -> str:
    """As JSON."""
    return json.dumps(asdict(found))
