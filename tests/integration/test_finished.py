"""Scripts wait for the end of a run with one `kubectl wait`, whatever the end is."""

from __future__ import annotations

import pytest
from lifecycle import Life, run_document
from witness import Ending, Pod

from tollgate.contract import LastWords

pytestmark = pytest.mark.integration
REFUSED = {
    "outcome": "failed",
    "reason": "DatasetRefused",
    "error": {"type": "", "message": "train.jsonl: no such file"},
}


def waited(lived: Life, name: str, seconds: int = 60) -> str:
    """What `kubectl wait` says of the run's end."""
    command = ("wait", f"trainingrun/{name}", "--for=condition=Finished", f"--timeout={seconds}s")
    done = lived.cluster.kubectl("-n", lived.namespace, *command, check=False)
    return done.stdout + done.stderr


def finished(lived: Life, name: str) -> tuple[str, str, str]:
    """Status, reason and message of the condition; the message is the sentence that people see, or empty."""
    status = lived.run(name)["status"]
    told = next(c for c in status["conditions"] if c["type"] == "Finished")
    assert told.get("message", "") in ("", status["message"])
    return told["status"], told["reason"], told.get("message", "")


def test_kubectl_wait_returns_at_every_end_and_not_before_a_run_that_goes_on_has_ended_again(lived: Life) -> None:
    usual = lived.witness.script

    def ending(pod: Pod) -> Ending | None:
        return Ending(64, LastWords.model_validate(REFUSED)) if pod.run == "broken" else usual(pod)

    lived.witness.script = ending
    lived.apply(run_document("good"))
    lived.apply(run_document("broken", judged=False))
    assert "condition met" in waited(lived, "good")
    assert finished(lived, "good")[:2] == ("True", "Succeeded")
    assert "condition met" in waited(lived, "broken")
    assert finished(lived, "broken")[:2] == ("True", "Failed")
    assert "no such file" in finished(lived, "broken")[2]

    lived.hold("train")
    lived.hold("train", 2)
    lived.apply(run_document("capped", judged=False))
    lived.until_phase("Running", name="capped")
    assert finished(lived, "capped") == ("False", "Running", "")
    lived.patch({"limits": {"maxCostUSD": "0.01"}}, "capped")
    assert "condition met" in waited(lived, "capped")
    assert lived.phase("capped") == "Stopped"
    assert finished(lived, "capped")[:2] == ("True", "BudgetExceeded")
    lived.patch({"limits": {"maxCostUSD": "50"}}, "capped")
    assert "timed out" in waited(lived, "capped", 3), "the end before the limit was raised is not the end"
    lived.until_phase("Running", name="capped")
    lived.release("train", 2)
    assert "condition met" in waited(lived, "capped")
    assert finished(lived, "capped")[:2] == ("True", "Succeeded")
    lived.patch({"ttlSecondsAfterFinished": 86400}, "good")
    assert "condition met" in waited(lived, "good"), "an edit of a spec does not hide an end that stands"
