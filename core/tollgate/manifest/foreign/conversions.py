"""How a foreign value becomes a manifest's: each function answers the value, or raises Cannot with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Known = Mapping[str, Any]
"""All foreign values by their plain key (lower case, without generic sections), for those that depend on another."""

Convert = Callable[[Any, Known], Any]

OFF = object()
"""Instead of a value: the section that the row names is switched off."""


class Cannot(Exception):  # noqa: N818 - not an error: a row of the list of what was not mapped
    """Why a value has no counterpart. harmless: leaving it out changes nothing."""

    def __init__(self, reason: str, *, harmless: bool = False) -> None:
        super().__init__(reason)
        self.harmless = harmless


def same(value: Any, known: Known) -> Any:
    """As it is; text that is a number or a truth value becomes one, because flat files are often full of it."""
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        try:
            return int(lowered) if lowered.lstrip("+-").isdigit() else float(lowered)
        except ValueError:
            return value
    return value


def text(value: Any, known: Known) -> Any:
    """As text."""
    if isinstance(value, bool | list):
        raise Cannot("text is asked for here")
    return str(value)


def words(value: Any, known: Known) -> list[str]:
    """A list of text; `a,b` is one, too."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        return [str(item) for item in value]
    raise Cannot("a list of text is asked for here")


def of(table: Mapping[str, Any], reason: str) -> Convert:
    """By a table of lower-case words; a dotted name such as `torch.optim.AdamW` counts by its last part, too."""

    def convert(value: Any, known: Known) -> Any:
        full = str(value).strip().lower()
        last = full.rpartition(".")[2]
        for name in (full, last):
            if name in table:
                found = table[name]
                if isinstance(found, Cannot):
                    raise found
                return found
        raise Cannot(reason)

    return convert


def unless(reason: str) -> Cannot:
    """In a table of words: nothing to map, because it is so anyway."""
    return Cannot(reason, harmless=True)


@dataclass(frozen=True, slots=True)
class Instead:
    """Another field than the row's, because of what the value is."""

    field: str
    value: Any


def warmup(value: Any, known: Known) -> Any:
    """Steps; transformers 5 takes a number below 1 as the share of all steps."""
    number = same(value, known)
    if isinstance(number, float) and 0 < number < 1:
        return Instead("hyperparameters.warmup_ratio", number)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def every(strategy_key: str) -> Convert:
    """Steps between two saves or evaluations, which do not count where the strategy says something else."""

    def convert(value: Any, known: Known) -> Any:
        names = (strategy_key, "evaluation_strategy") if strategy_key == "eval_strategy" else (strategy_key,)
        said = next((str(known[name]).lower() for name in names if known.get(name) is not None), "steps")
        if said.rpartition(".")[2] in ("no", "epoch"):
            raise Cannot(f"{strategy_key} is {said}, so it had no effect", harmless=True)
        return same(value, known)

    return convert


def data_seed(value: Any, known: Known) -> Any:
    """The order's own seed: nothing to map when it is the seed."""
    raise Cannot("one seed decides weights and order", harmless=same(value, known) == known.get("seed", 42))


def all_linear(value: Any, known: Known) -> Any:
    """Whether all linear layers get an adapter, as they do where none is named."""
    if same(value, known) is True:
        raise Cannot("all linear layers have one where none are named", harmless=True)
    named = any(key in known for key in ("lora_target_modules", "target_modules"))
    raise Cannot("name the layers in adapter.target_modules; without it all linear ones have one", harmless=named)


def zero_file(value: Any, known: Known) -> str:
    """A file with DeepSpeed's settings, by the stage in its name."""
    match = re.search(r"zero[_-]?([123])", str(value).lower())
    if match is None or "offload" in str(value).lower():
        raise Cannot(
            "a DeepSpeed file of its own is not read; write parallelism: zero1, zero2 or zero3, and perhaps "
            "parallelism_options.offload: cpu"
        )
    return f"zero{match[1]}"


def offload(value: Any, known: Known) -> str:
    """Where optimizer or weights lie: `cpu`, or a switch for it."""
    name = str(value).strip().lower()
    if name in ("none", "false"):
        raise Cannot("off, as it is without it", harmless=True)
    if name in ("cpu", "true"):
        return "cpu"
    raise Cannot("parallelism_options.offload is none or cpu")


def share(value: Any, known: Known) -> float:
    """Axolotl's val_set_size: a share below 1, a count from 1 on."""
    number = float(same(value, known))
    if number >= 1:
        raise Cannot("a count; here a share is held out: --set dataset.splits.validation=0.1")
    return number


def percent(value: Any, known: Known) -> float:
    """A share; above 1 it was meant in percent."""
    number = float(same(value, known))
    return number / 100 if number > 1 else number


def percent_only(value: Any, known: Known) -> float:
    """Percent -> share."""
    return float(same(value, known)) / 100


def switch(value: Any, known: Known) -> Any:
    """A section's on and off."""
    return {} if same(value, known) not in (False, 0, "no", "off") else OFF


def only(value_that_works: Any, reason: str) -> Convert:
    """Nothing to map when it is this value, else a reason."""

    def convert(value: Any, known: Known) -> Any:
        if same(value, known) == value_that_works:
            raise Cannot("this is what Tollgate does anyway", harmless=True)
        raise Cannot(reason)

    return convert


def amp(value: Any, known: Known) -> str:
    """Automatic mixed precision, on or off, with the type of its own key where there is one."""
    if same(value, known) is False:
        return "fp32"
    kind = known.get("amp.dtype", known.get("amp.precision", known.get("amp_dtype", "")))
    return str(precision(kind, known)) if kind else "auto"


_PRECISIONS = {
    **dict.fromkeys(("bf16", "bfloat16", "bf16-mixed", "bf16-true"), "bf16"),
    **dict.fromkeys(("fp16", "float16", "half", "16", "16-mixed", "fp16-mixed"), "fp16"),
    **dict.fromkeys(("fp32", "float32", "float", "32", "32-true", "no", "none", "full"), "fp32"),
    "auto": "auto",
}
precision: Convert = of(_PRECISIONS, "precision is one of auto, bf16, fp16, fp32")


def amp_dtype(value: Any, known: Known) -> Any:
    """The type of automatic mixed precision: told by the switch beside it, where there is one."""
    if "amp.enabled" in known or "use_amp" in known:
        raise Cannot("it is part of precision, which the switch beside it gives", harmless=True)
    return precision(value, known)


def zero(value: Any, known: Known) -> str:
    """DeepSpeed's stage."""
    stage = same(value, known)
    if stage in (1, 2, 3):
        return f"zero{stage}"
    if stage in (0, False):
        return "auto"
    raise Cannot("zero stages are 0 to 3")


def fsdp(value: Any, known: Known) -> str:
    """Whether weights are sharded."""
    if value in ("", False, [], "none", "no"):
        raise Cannot("off, as it is without it", harmless=True)
    return "fsdp2"


def tracker(name: str) -> Convert:
    """A tracker's switch."""

    def convert(value: Any, known: Known) -> Any:
        if same(value, known) is False:
            raise Cannot("off, as it is without it", harmless=True)
        return {"project": str(known["wandb_project"])} if name == "wandb" and "wandb_project" in known else {}

    return convert


def report_to(value: Any, known: Known) -> dict[str, Any]:
    """The list of trackers."""
    names = [name.lower() for name in words(value, known)]
    if not set(names) - {"none", "tensorboard"}:
        raise Cannot("no tracker but the run's own report and events", harmless=True)
    if unknown := set(names) - {"wandb", "mlflow", "none", "tensorboard"}:
        raise Cannot(f"there is no tracker {', '.join(sorted(unknown))}; wandb and mlflow are known")
    return {name: {} for name in names if name in ("wandb", "mlflow")}


def keep_best(value: Any, known: Known) -> int:
    """In transformers the best model is loaded at the end; here the best checkpoint is kept and becomes the model."""
    if same(value, known) is False:
        raise Cannot("off, as it is without it", harmless=True)
    return 1


def metric(value: Any, known: Known) -> str:
    """Names of metrics of the held-out documents: `val_loss` and `loss` are `eval_loss`."""
    name = str(value)
    for prefix in ("eval_", "val_", "valid_", "validation_"):
        name = name.removeprefix(prefix)
    return f"eval_{name.removeprefix('val/').removeprefix('eval/')}"


def greater(value: Any, known: Known) -> str:
    """Whether a larger metric is better."""
    if not any(key.startswith("early_stopping") for key in known):
        raise Cannot("the direction of a metric is known", harmless=True)
    return "max" if same(value, known) is True else "min"


def strategy(value: Any, known: Known) -> Any:
    """When to save or evaluate; the steps stand in their own key."""
    if str(value).lower() in ("steps", "epoch", "no"):
        why = {"steps": "the steps' own key says it", "epoch": "an evaluation at each epoch's end is the default"}
        raise Cannot(why.get(str(value).lower(), "checkpoints and evaluations are always made"), harmless=True)
    raise Cannot("save_steps and eval_steps say when")


def repository(value: Any, known: Known) -> Any:
    """A data set's name is for people; it is no place to load from."""
    if any(key in known for key in DATA_PATHS):
        return str(value)
    raise Cannot("data is read from a file beside the manifest; download it and set dataset.path")


DATA_PATHS = (
    *("train_file", "dataset_path", "data_path", "train_data_path", "train_path", "training_file", "data.path"),
    *("data.train_path", "data.train_file", "data.train", "data.train_data", "dataset.path", "dataset.train_file"),
    *("dataset.train_path", "dataset.train", "data.file", "train_data"),
)
