"""A stop before the first step costs no grace: there is nothing to save and nobody to agree with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollgate.contract import ExitCode, Outcome, StopReason
from trainer_fixtures import ended, gang, wait_for

pytestmark = pytest.mark.e2e


def test_a_process_that_is_asked_to_stop_while_it_loads_leaves_at_once_and_says_so(tmp_path: Path) -> None:
    run = gang(tmp_path)
    with ended(run.start(1)) as process:
        wait_for(lambda: run.events("start"))
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.STOPPED, output
    assert (run.words().outcome, run.words().reason) == (Outcome.STOPPED, StopReason.SIGNAL)
    assert run.events("step") == []
    assert not (run.output / "model").exists()


def test_the_next_attempt_after_such_a_stop_trains_to_the_end(tmp_path: Path) -> None:
    run = gang(tmp_path)
    with ended(run.start(1)) as process:
        wait_for(lambda: run.events("start"))
        process.terminate()
        process.communicate(timeout=60)
    code, output = run.run(attempt=2)
    assert code == ExitCode.COMPLETED, output
    assert run.words(2).outcome is Outcome.COMPLETED
