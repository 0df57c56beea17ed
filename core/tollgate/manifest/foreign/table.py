"""The mapping table: names that configurations use elsewhere, and the manifest's field that each stands for.

One table for all shapes, its rows by what they are about (rows_*.py), and by where names come from (axolotl.py,
arguments.py). A name is a dotted key in lower case; generic sections around it (`training.`, `args.`) do not count, so
`training.learning_rate` is found under `learning_rate`. A row without a field says where it belongs.
"""

from __future__ import annotations

from tollgate.manifest.foreign.arguments import ARGUMENTS
from tollgate.manifest.foreign.axolotl import AXOLOTL
from tollgate.manifest.foreign.row import Row
from tollgate.manifest.foreign.rows_learning import LEARNING
from tollgate.manifest.foreign.rows_running import RUNNING
from tollgate.manifest.foreign.rows_subject import SUBJECT

GENERIC = frozenset(
    [
        *("training", "train", "trainer", "training_args", "training_arguments", "trainingarguments", "args"),
        *("hyperparameters", "hparams", "hyperparams", "params", "config", "cfg", "settings", "safety", "tracking"),
        *("finetune", "finetuning", "fine_tuning", "optimization"),
    ]
)
"""Sections that say nothing about what their keys mean."""

TABLE: tuple[Row, ...] = (*SUBJECT, *LEARNING, *RUNNING, *ARGUMENTS, *AXOLOTL)


def by_name() -> dict[str, Row]:
    """Every name with its row. Raises: AssertionError when two rows claim one name."""
    found: dict[str, Row] = {}
    for one in TABLE:
        for name in one.names:
            assert name not in found, name
            found[name] = one
    return found
