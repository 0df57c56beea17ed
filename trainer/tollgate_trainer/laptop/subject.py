"""What `tollgate evaluate` is pointed at: a manifest, the output folder of a run, or any model folder; and how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tollgate.contract import Files
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import LoadedManifest, load_canonical
from tollgate.manifest.sections import Evaluation, PromptSets
from tollgate_trainer.laptop.preparation import LaptopError

SETS = tuple(PromptSets.model_fields)
_ONE_SET = {"toxicity": "toxicity", "crisis": "crisis", "fairness": "fairness", "text": "text", "text_overlap": "text"}
_ONE_SET |= {"translation": "translation", "rubric": "rubric"}
_MODEL_FILES = ("config.json", "adapter_config.json", "moe_lora.json")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for instead of the manifest. prompts: `FILE`, or `SET=FILE`; settings: a file."""

    suites: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    settings: Path | None = None

    @property
    def given(self) -> bool:
        """Whether the evaluation is another one than the manifest's."""
        return bool(self.suites or self.prompts or self.settings)


def is_run(folder: Path) -> bool:
    """Whether a folder is the output of a run with a finished model."""
    return (folder / Files.MODEL / Files.MODEL_INFO).is_file()


def started(folder: Path) -> None:
    """Raises: LaptopError when nothing in a folder was left by a run, not even by one that failed at once."""
    traces = (Files.EVENTS, Files.RESULT, Files.OUTCOMES, Files.EVIDENCE, f"{Files.MODEL}/{Files.MODEL_INFO}")
    if not any((folder / name).exists() for name in traces):
        raise LaptopError(f"{folder} holds no run; name a run's output folder, such as runs/my-model")


def is_model(folder: Path) -> bool:
    """Whether a folder holds a saved model."""
    return any((folder / name).is_file() for name in _MODEL_FILES)


def manifest_of(folder: Path) -> LoadedManifest:
    """The manifest that the finished model in an output folder was trained from, as an attempt kept it.

    Raises: LaptopError when no attempt did.
    """
    try:
        digest = str(json.loads((folder / Files.MODEL / Files.MODEL_INFO).read_text("utf-8"))["manifest_digest"])
    except (OSError, ValueError, KeyError) as error:
        raise LaptopError(f"{folder / Files.MODEL / Files.MODEL_INFO} can't be understood: {error}") from error
    for path in sorted((folder / Files.OUTCOMES).glob("attempt-*/manifest.json"), reverse=True):
        try:
            return load_canonical(path.read_bytes(), digest, str(path))
        except ManifestError:
            continue  # of another attempt with another manifest
    raise LaptopError(
        f"{folder} keeps no manifest of {digest}; name the manifest's file: tollgate evaluate FILE --output {folder}"
    )


def dataset_root(folder: Path, manifest: LoadedManifest) -> Path:
    """The folder that dataset.path is relative to: the nearest one around the output in which it exists.

    What is found is only a guess; the evaluation checks the data's digest. Raises: LaptopError when nothing is found.
    """
    for place in (*folder.absolute().parents, Path.cwd()):
        if (place / manifest.manifest.dataset.path).exists():
            return place
    raise LaptopError(
        f"the dataset {manifest.manifest.dataset.path} lies in no folder around {folder}; say --dataset-root"
    )


def effective(base: Evaluation, asked: Settings) -> Evaluation:
    """The settings of an evaluation: the manifest's or a file's, with the prompt sets of the command line.

    Raises: LaptopError naming the option and what is wrong.
    """
    section = base
    if asked.settings is not None:
        section = _read(asked.settings)
    sets: dict[str, Any] = section.prompt_sets.model_dump()
    for text in asked.prompts:
        name, equals, file = text.rpartition("=")
        if not equals:
            name = _only_set(asked.suites or tuple(section.suites or ()), text)
        if name not in SETS:
            raise LaptopError(f"--prompts {text}: there is no prompt set {name!r}; the sets are {', '.join(SETS)}")
        path = Path(file).absolute()
        if not path.is_file():
            raise LaptopError(f"--prompts {text}: there is no file {file}")
        sets[name] = str(path)
    changed = section.model_dump() | {"prompt_sets": sets, "suites": list(asked.suites) or section.suites}
    return Evaluation.model_validate(changed)


def _only_set(suites: Sequence[str], text: str) -> str:
    found = {_ONE_SET[suite] for suite in suites if suite in _ONE_SET}
    if len(found) != 1:
        raise LaptopError(
            f"--prompts {text}: say for which set, as SET={text}; the sets are {', '.join(SETS)}, and --suite "
            f"{', '.join(suites) or '(none)'} does not ask for exactly one"
        )
    return found.pop()


def _read(path: Path) -> Evaluation:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Evaluation.model_validate((said or {}).get("evaluation", said))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise LaptopError(f"--settings {path} can't be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"evaluation.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LaptopError(f"--settings {path}: {problems}") from error
