"""`python -m bench trainer overhead|packing|forecast|stop|memory|render`: the trainer's speed, by rules set before.

Each keeps its raw figures as bench/results/trainer-NAME.json; `render` makes the tables of docs/design/trainer-speed.md
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from bench.trainer.options import parsed

MODULES = {"stop": "stopping"}


def main(words: Sequence[str]) -> int:
    """Answers 1 when a bar was missed; an inconclusive result says so and answers 0."""
    options = parsed(words)
    module = import_module(f"bench.trainer.{MODULES.get(options.bench, options.bench)}")  # torch takes seconds
    code: int = module.main(options)
    return code
