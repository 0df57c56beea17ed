"""What a mixture of LoRA experts is, as it is saved beside its weights. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tollgate.manifest.sections import Adapter
from tollgate_trainer import durable
from tollgate_trainer.refusal import ModelRefused

CONFIG_FILE = "moe_lora.json"
WEIGHTS_FILE = "adapter_moe.safetensors"
FORMAT = 1
NO_MERGE = (
    "a mixture of LoRA experts cannot be merged: what it adds depends on each token's gates, so no single weight "
    "equals it. Keep the adapter on its base (load it with tollgate_trainer.models.load_finished), or train with "
    "adapter.type: lora"
)


@dataclass(frozen=True, slots=True)
class MoeLoraConfig:
    """experts E, top_k k of them per token, each of `rank` r; s = alpha / rank scales each expert's own output.

    target_modules: names (or endings of names) of linear layers, or `all-linear`; modules_to_save: modules that are
    trained whole beside the adapter (a new head); balance: weight of the balance loss, 0 turns it off.
    """

    experts: int
    top_k: int
    rank: int
    alpha: float
    dropout: float
    balance: float
    target_modules: tuple[str, ...] | str
    modules_to_save: tuple[str, ...] = ()

    @property
    def scaling(self) -> float:
        """What multiplies the adapter's output: alpha over the rank of one expert, not of all together."""
        return self.alpha / self.rank

    @classmethod
    def from_manifest(cls, adapter: Adapter, modules_to_save: tuple[str, ...] = ()) -> MoeLoraConfig:
        """The manifest's section, which has been checked, with its defaults."""
        mixture = adapter.mixture
        return cls(
            experts=mixture.experts,
            top_k=mixture.top_k,
            rank=adapter.rank,
            alpha=adapter.alpha,
            dropout=adapter.dropout,
            balance=mixture.balance,
            target_modules=tuple(adapter.target_modules) if adapter.target_modules else "all-linear",
            modules_to_save=modules_to_save,
        )

    def write(self, folder: Path) -> None:
        """Put it beside the weights."""
        document = {"format": FORMAT, "type": "moe-lora", **asdict(self)}
        durable.write(folder / CONFIG_FILE, json.dumps(document, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> MoeLoraConfig:
        """The saved one. Raises: ModelRefused when it is missing, of another format, or not understood."""
        path = folder / CONFIG_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if (found := document.pop("format")) != FORMAT:
                raise ModelRefused(f"{path} has format {found}; this version of Tollgate reads {FORMAT}")
            document.pop("type")
            targets = document.pop("target_modules")
            return cls(
                **document | {"modules_to_save": tuple(document["modules_to_save"])},
                target_modules=targets if isinstance(targets, str) else tuple(targets),
            )
        except OSError as error:
            raise ModelRefused(f"{path}, which describes the adapter's experts, cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(f"{path} cannot be understood ({type(error).__name__}: {error})") from error
