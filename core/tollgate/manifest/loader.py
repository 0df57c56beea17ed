"""The one loader: a file, the API server's object or the pod's bytes -> the same manifest with the same digest.

Every way in goes text -> values (reading.py) -> normal values (normal.py) -> canonical bytes (canonical.py) -> model,
so what is
refused on a laptop is refused on the cluster with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tollgate.contract import API_VERSION, MAX_MANIFEST_BYTES
from tollgate.manifest import adapting, canonical, feeding, learning, overrides, paths, short_forms, support
from tollgate.manifest.errors import ABSENT, ManifestError, Problem, field_name
from tollgate.manifest.normal import normalise
from tollgate.manifest.overrides import Change, Override
from tollgate.manifest.reading import Path as FieldPath
from tollgate.manifest.reading import Reading, read_bytes
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.validation import problems_of

_RUN_KIND = "TrainingRun"
_INSIDE: FieldPath = ("spec", "manifest")


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest that is complete, consistent and can be trained by this version.

    `manifest` has its short forms resolved and its defaults filled in; `document` is what the author wrote, without
    nulls and defaults;
    `canonical` its RFC 8785 bytes and `digest` their `sha256:<hex>`; `source` says in words where it came from.
    """

    manifest: TrainingManifest
    document: dict[str, Any]
    canonical: bytes
    digest: str
    source: str


def load_file(path: Path) -> LoadedManifest:
    """Load a manifest from a YAML or JSON file; a TrainingRun object is taken by its spec.manifest.

    Raises: ManifestError with everything that is wrong; OSError is turned into one, too.
    """
    source, reading = _read_file(path)
    return _load(reading.value, source, reading.lines)


def load_overridden(
    path: Path, overlay: Path | None, layers: Sequence[Sequence[Override]]
) -> tuple[LoadedManifest, list[Change]]:
    """The file with an overlay file and then `layers` over it, and what they changed. Without changes: as load_file.

    The digest is of the effective document. Raises: ManifestError, also for a file that is none.
    """
    source, reading = _read_file(path)
    below: list[Sequence[Override]] = []
    if overlay is not None:
        over, patch = _read_file(overlay)
        _refuse_other_than_mapping(patch.value, over)
        below.append([Override((), patch.value, f"overlay {overlay}")])
    _refuse_other_than_mapping(reading.value, source)
    document, changes = overrides.apply(reading.value, [*below, *layers])
    if not changes:
        return _load(reading.value, source, reading.lines), []
    origins = ", ".join(dict.fromkeys(change.origin for change in changes))
    changed = {change.path for change in changes}
    lines = {field: line for field, line in reading.lines.items() if field not in changed}
    return _load(document, f"{source} with {origins}", lines), changes


def _read_file(path: Path) -> tuple[str, Reading]:
    """The values in a file, and its name in words. Raises: ManifestError, also for what is not plain values."""
    try:
        data = path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise ManifestError(
            str(path),
            [
                Problem(
                    "", ABSENT, f"the file cannot be read: {why}", "Check the path; a manifest is a YAML or JSON file."
                )
            ],
        ) from error
    return _read(data, str(path), path.suffix.lower() == ".json")


def load_bytes(data: bytes, source: str, *, is_json: bool = False) -> LoadedManifest:
    """Load the contents of a manifest file or of a file with a TrainingRun."""
    source, reading = _read(data, source, is_json)
    return _load(reading.value, source, reading.lines)


def _read(data: bytes, source: str, is_json: bool) -> tuple[str, Reading]:
    source, reading = _unwrap(read_bytes(data, source, is_json=is_json), source)
    if reading.found:
        raise ManifestError(source, _at_lines([item.problem for item in reading.found], reading.lines))
    return source, reading


def load_document(document: Mapping[str, Any], source: str) -> LoadedManifest:
    """Load a manifest that was already parsed, such as spec.manifest of an object from the API server.

    Raises: ManifestError with everything that is wrong.
    """
    return _load(document, source, {})


def load_canonical(data: bytes, expected_digest: str | None, source: str) -> LoadedManifest:
    """Load the file in the pod: exactly the canonical bytes, of exactly the expected digest ("sha256:<hex>") when
    there is one.

    Raises: ManifestError when digest or bytes differ, or for what load_document would refuse.
    """
    found = canonical.digest(data)
    if expected_digest is not None and expected_digest.removeprefix("sha256:") != found.removeprefix("sha256:"):
        raise ManifestError(
            source,
            [
                Problem(
                    "",
                    ABSENT,
                    f"these bytes have {found}, not {expected_digest}",
                    "The file was changed on the way; start the run again.",
                )
            ],
        )
    reading = read_bytes(data, source, is_json=True)
    if reading.found:
        raise ManifestError(source, [item.problem for item in reading.found])
    loaded = _load(reading.value, source, {})
    if loaded.canonical != data:
        raise ManifestError(
            source,
            [
                Problem(
                    "",
                    ABSENT,
                    "these bytes are not in canonical form",
                    "Write the file with LoadedManifest.canonical, not by hand.",
                )
            ],
        )
    return loaded


# --- steps ------------------------------------------------------------------------------------------------------------


def _unwrap(reading: Reading, source: str) -> tuple[str, Reading]:
    """A TrainingRun's manifest instead of the object around it; any other object is the wrong file."""
    value = reading.value
    if not isinstance(value, dict) or "kind" not in value or "apiVersion" not in value:
        return source, reading
    kind, version = value["kind"], value["apiVersion"]
    if kind != _RUN_KIND or version != API_VERSION:
        message = f"this is a {kind} of {version}, neither a manifest nor a {_RUN_KIND} of {API_VERSION}"
        raise ManifestError(
            source, [Problem("kind", kind, message, "Is it the right file?", reading.lines.get(("kind",)))]
        )
    spec = value.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("manifest"), dict):
        raise ManifestError(
            source,
            [
                Problem(
                    "spec.manifest",
                    ABSENT,
                    f"this {_RUN_KIND} has no manifest",
                    "Write the manifest below spec.manifest.",
                )
            ],
        )
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    depth = len(_INSIDE)
    inner = Reading(
        spec["manifest"],
        {path[depth:]: line for path, line in reading.lines.items() if path[:depth] == _INSIDE},
        [
            replace(item, path=item.path[depth:], problem=replace(item.problem, field=field_name(item.path[depth:])))
            for item in reading.found
            if item.path[:depth] == _INSIDE
        ],
    )
    return f"{source} (spec.manifest of {_RUN_KIND} {name or 'without a name'})", inner


def _load(value: Any, source: str, lines: dict[FieldPath, int]) -> LoadedManifest:
    _refuse_other_than_mapping(value, source)
    document, found = normalise(value)
    if found:
        raise ManifestError(source, _at_lines([problem for _, problem in found], lines))
    data = canonical.serialise(document)
    if len(data) > MAX_MANIFEST_BYTES:
        largest = max(document, key=lambda name: len(canonical.serialise(document[name])))
        raise ManifestError(
            source,
            [
                Problem(
                    "",
                    ABSENT,
                    f"this manifest has {len(data)} bytes as canonical JSON, {MAX_MANIFEST_BYTES} are the most",
                    f"Its largest part is `{largest}`; keep long lists and texts in a file beside the dataset.",
                )
            ],
        )
    manifest = _model(document, source, lines)
    return LoadedManifest(manifest, document, data, canonical.digest(data), source)


def _refuse_other_than_mapping(value: Any, source: str) -> None:
    if not isinstance(value, Mapping):
        what = "nothing" if value is None else "a list" if isinstance(value, list) else "one value"
        raise ManifestError(
            source,
            [
                Problem(
                    "",
                    ABSENT,
                    f"this holds {what}, not a mapping of fields",
                    "A manifest has lines such as `name: my-model`.",
                )
            ],
        )


def _model(document: dict[str, Any], source: str, lines: dict[FieldPath, int]) -> TrainingManifest:
    """Types first, then contradictions, then what the version cannot do: each only makes sense once the one before
    holds.
    """
    try:
        TrainingManifest.model_validate(document)
    except ValidationError as error:
        raise ManifestError(source, _at_lines(problems_of(error, document), lines)) from error
    long, problems = short_forms.resolve(document)
    if problems:
        raise ManifestError(source, _at_lines(problems, lines))
    manifest = TrainingManifest.model_validate(long)
    problems = [
        *support.unsupported(manifest),
        *adapting.problems(manifest),
        *learning.problems(manifest),
        *feeding.problems(manifest),
        *_stray_paths(manifest),
    ]
    if problems:
        raise ManifestError(source, _at_lines(problems, lines))
    return manifest


def _stray_paths(manifest: TrainingManifest) -> list[Problem]:
    named = {
        "dataset.path": manifest.dataset.path,
        "dataset.splits.validation_path": manifest.dataset.splits.validation_path,
        "output_dir": manifest.output_dir,
        **{f"dataset.sources[{i}].path": source.path for i, source in enumerate(manifest.dataset.sources)},
    }
    return [problem for field, text in named.items() if text and (problem := paths.stray(field, text))]


def _at_lines(problems: list[Problem], lines: dict[FieldPath, int]) -> list[Problem]:
    """The problems with the line of their field, or of the nearest section around it, in the file's order."""
    by_name = {field_name(path): line for path, line in lines.items()}
    placed = [problem if problem.line else replace(problem, line=_line(problem.field, by_name)) for problem in problems]
    return sorted(placed, key=lambda problem: problem.line or 0)


def _line(field: str, by_name: dict[str, int]) -> int | None:
    while field:
        if field in by_name:
            return by_name[field]
        field = field.rpartition(".")[0]
    return None
