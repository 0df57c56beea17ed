"""Bad input that only a pod can find is told in the trainer's own words, at once, and is not tried again."""

from __future__ import annotations

import pytest
import runs
from runs import Tollgate, attempts, phase

pytestmark = pytest.mark.e2e

REFUSED = {
    "refused-missing": ({"path": "tiny/absent.json"}, ["dataset.path", "tiny/absent.json"]),
    "refused-digest": ({"sha256": "0" * 64}, ["dataset.sha256", "0" * 64, "sha256:"]),
}


def test_a_dataset_that_is_missing_or_another_one_fails_the_run_with_the_fix(tollgate: Tollgate) -> None:
    for name, (dataset, _) in REFUSED.items():
        tollgate.apply(runs.run(name, steps=5, manifest={"dataset": dataset}))
    for name, (_, words) in REFUSED.items():
        run = tollgate.wait_for_phase(name, "Failed", "Succeeded", "Stopped")
        assert phase(run) == "Failed"
        (attempt,) = attempts(run)
        failure = attempt["failure"]
        assert (failure["class"], failure["reason"], failure["exitCode"]) == ("User", "DatasetRefused", 64)
        failed = next(c for c in run["status"]["conditions"] if c["type"] == "Failed")
        assert failed["status"] == "True"
        for said in (failure["message"], failed["message"], run["status"]["message"]):
            assert not [word for word in words if word not in said], said
