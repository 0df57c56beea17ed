"""What must start in a moment and survive a full memory does not import torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "tollgate_trainer.main",
        "tollgate_trainer.training",
        "tollgate_trainer.data",
        "tollgate_trainer.dataset.commands",
        "tollgate_trainer.models.commands",
    ],
)
def test_checks_and_adoption_come_before_torch_is_imported(module: str) -> None:
    code = f"import sys, {module}; sys.exit(int(any(n in sys.modules for n in ('torch', 'transformers', 'peft'))))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
