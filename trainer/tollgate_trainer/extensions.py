"""Code of somebody else's in a training, without a fork: a loss, a step, a source of data.

An extension is an entry point of an installed package, or `module:Class` of a module that whoever runs the machine has
allowed. What a package installs was chosen by whoever made the image; a name in a manifest was chosen by whoever wrote
it, so that alone runs nothing. No torch is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from tollgate.contract import ALLOWED_EXTENSIONS
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.refusal import ManifestRefused

Tensor = Any
"""torch's. The launcher, which has no torch, imports this module."""
Kind = Literal["loss", "trainer_step", "dataset_source"]
GROUPS: dict[Kind, str] = {
    "loss": "tollgate.losses",
    "trainer_step": "tollgate.trainer_steps",
    "dataset_source": "tollgate.dataset_sources",
}
METHODS: dict[Kind, str] = {"loss": "__call__", "trainer_step": "__call__", "dataset_source": "records"}
ALLOWED = ALLOWED_EXTENSIONS
"""Each module that it names allows itself and what lies below it."""


class Loss(Protocol):
    """What is minimised, for causal-lm. Held-out losses stay the plain ones, so that runs can be compared."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the predicted tokens; Tollgate divides it by their number over all processes and micro-steps.

        Args: logits: fp32, [rows, tokens, vocabulary], each already at the place of what it predicts; targets:
        [rows, tokens], -100 where nothing is predicted.
        """
        ...


Train = Callable[[dict[str, Any]], Any]


class TrainerStep(Protocol):
    """Around forward and backward of each micro-batch."""

    def __call__(self, model: Any, batch: dict[str, Any], train: Train) -> Tensor:
        """The detached loss, which is what `train(batch)` answers after forward and backward; call it once.

        Chance comes from torch's own generators: a resumed run gets them back as they were.
        """
        ...


class DatasetSource(Protocol):
    """Reads files that Tollgate can't."""

    def records(self, file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(where it stands, for messages; a record as a line of JSON would hold it, meant as `dataset.format` says).

        The same file gives the same records in the same order. Raises: ValueError for a file that can't be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Extension:
    """One that was found. version: of its package, empty when it is not one of an installed package."""

    kind: Kind
    name: str
    code: Any
    version: str


def extension(
    manifest: TrainingManifest,
    kind: Kind,
    environ: Mapping[str, str] = os.environ,
    found: Sequence[EntryPoint] | None = None,
) -> Extension | None:
    """The extension of a kind that the manifest names, made; None when it names none.

    Raises: ManifestRefused for one that is not installed, not allowed, or can't be made.
    """
    name: str | None = getattr(manifest.extensions, kind)
    if name is None:
        return None
    field = f"extensions.{kind}"
    make, version = _from_module(name, field, environ) if ":" in name else _installed(name, kind, field, found)
    try:
        code = make()
    except Exception as error:  # somebody else's code: whatever it raises, the extension is missing
        raise ManifestRefused(f"{name} can't be made ({type(error).__name__}: {error}); repair it", field) from error
    if not callable(getattr(code, METHODS[kind], None)):
        raise ManifestRefused(f"{name} is no {kind}: it has no {METHODS[kind]}; docs/how-to/extend.md has one", field)
    return Extension(kind, name, code, version)


def _installed(name: str, kind: Kind, field: str, found: Sequence[EntryPoint] | None) -> tuple[Callable[[], Any], str]:
    offered = {point.name: point for point in (entry_points(group=GROUPS[kind]) if found is None else found)}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise ManifestRefused(
            f"no installed package offers {name!r} in the group {GROUPS[kind]} (known: {known}); install it, or write "
            f"module:Class of a module that {ALLOWED} names",
            field,
        )
    point = offered[name]
    return _loaded(point.load, f"{name} ({point.value})", field), point.dist.version if point.dist else ""


def _from_module(name: str, field: str, environ: Mapping[str, str]) -> tuple[Callable[[], Any], str]:
    module, _, attribute = name.partition(":")
    allowed = [prefix.strip() for prefix in environ.get(ALLOWED, "").split(",") if prefix.strip()]
    if not any(module == prefix or module.startswith(prefix + ".") for prefix in allowed):
        raise ManifestRefused(
            f"the module {module} is not allowed here ({ALLOWED} names {', '.join(allowed) or 'none'}); on a laptop "
            f"set {ALLOWED}={module}, on a cluster the admin sets it in the ComputeProfile's env",
            field,
        )
    return _loaded(lambda: getattr(import_module(module), attribute), name, field), ""


def _loaded(load: Callable[[], Any], shown: str, field: str) -> Callable[[], Any]:
    try:
        made: Callable[[], Any] = load()
    except Exception as error:  # importing runs somebody else's code
        raise ManifestRefused(f"{shown} can't be loaded ({type(error).__name__}: {error}); repair it", field) from error
    return made
