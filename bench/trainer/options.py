"""What can be chosen on the command line, and what it is otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

BENCHES = ("overhead", "packing", "forecast", "stop", "memory", "render")
QUICK: dict[str, dict[str, int]] = {
    "overhead": {"rounds": 8, "skip": 20, "steps": 8, "runs": 0},
    "packing": {"rounds": 6, "skip": 4, "steps": 12, "runs": 3},
    "forecast": {"rounds": 0, "skip": 0, "steps": 100, "runs": 20},
    "stop": {"rounds": 0, "skip": 0, "steps": 30, "runs": 3},
    "memory": {"rounds": 0, "skip": 0, "steps": 30, "runs": 2},
}
FULL: dict[str, dict[str, int]] = {
    "overhead": {"rounds": 16, "skip": 20, "steps": 20, "runs": 0},
    "packing": {"rounds": 15, "skip": 4, "steps": 16, "runs": 3},
    "forecast": {"rounds": 0, "skip": 0, "steps": 250, "runs": 20},
    "stop": {"rounds": 0, "skip": 0, "steps": 60, "runs": 10},
    "memory": {"rounds": 0, "skip": 0, "steps": 60, "runs": 5},
}


@dataclass(frozen=True, slots=True)
class Options:
    """rounds: turns forth and back; skip, steps: of each block, left out and measured (else: of a run); runs: repeats
    or seeds; rows: of a step, 0: by the machine; loss_steps: of a training whose held-out loss is compared, at
    learning_rate after warmup_steps.
    """

    bench: str
    rounds: int
    skip: int
    steps: int
    runs: int
    rows: int
    loss_steps: int
    learning_rate: float
    warmup_steps: int


def parsed(words: Sequence[str]) -> Options:
    """Raises: SystemExit, which says how it is used."""
    parser = argparse.ArgumentParser(
        prog="python -m bench trainer",
        description="What training by Tollgate costs against stock HF Trainer. For example: "
        "python -m bench trainer overhead --quick",
    )
    parser.add_argument("bench", choices=BENCHES, help="render: put the kept results into docs/design/trainer-speed.md")
    parser.add_argument("--quick", action="store_true", help="the fewest blocks that the rules allow")
    parser.add_argument("--rounds", type=int, help="turns forth and back; each arm computes two blocks in one")
    parser.add_argument("--blocks", type=int, help="of Tollgate and stock together: four a round; instead of --rounds")
    parser.add_argument("--skip", type=int, help="steps of each block that are not measured")
    parser.add_argument("--steps", type=int, help="measured steps of each block, or steps of a run")
    parser.add_argument("--runs", type=int, help="repeats, or seeds")
    parser.add_argument(
        "--rows", type=int, default=0, help="rows of a step (overhead); default: 0.24 s of this machine"
    )
    parser.add_argument("--loss-steps", type=int, help="packing: steps of a training whose held-out loss is compared")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, help="packing: of the trainings (default: %(default)s)"
    )
    parser.add_argument("--warmup-steps", type=int, default=40, help="packing: of the trainings (default: %(default)s)")
    given = parser.parse_args(words)
    known = (QUICK if given.quick else FULL).get(given.bench, QUICK["stop"])
    chosen = {key: value if (one := getattr(given, key)) is None else one for key, value in known.items()}
    if given.blocks is not None:
        if given.rounds is not None:
            parser.error("--blocks and --rounds are the same in other words; give one")
        chosen["rounds"] = -(-given.blocks // 4)
    loss_steps = given.loss_steps if given.loss_steps is not None else 120 if given.quick else 400
    for name, value in {**chosen, "rows": given.rows, "loss-steps": loss_steps}.items():
        if value < 0 or (name in ("rounds", "steps", "runs") and known.get(name, 1) and value < 1):
            parser.error(f"--{name} {value}: give at least 1")
    rate = {"learning_rate": given.learning_rate, "warmup_steps": given.warmup_steps}
    return Options(given.bench, **chosen, rows=given.rows, loss_steps=loss_steps, **rate)
