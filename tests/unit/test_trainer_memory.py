"""Memory that ran out: what is said, what the next attempt does, and when only the user can mend it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollgate.contract import MAX_REPLANS, Env, ErrorWords, FailureReason, LastWords, Outcome, Role
from tollgate.manifest.loader import load_document
from tollgate_trainer.laptop import preparation
from tollgate_trainer.lifecycle import outcome
from tollgate_trainer.lifecycle.agreement import Agreement
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.events import Events
from tollgate_trainer.lifecycle.goodput import Goodput
from tollgate_trainer.lifecycle.lease import Holder, Lease
from tollgate_trainer.lifecycle.memory import FIELD, advice
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.stop import StopFlag
from trainer_fixtures import manifest

LOADED = load_document(manifest(), "test")


def attempt(root: Path, number: int = 1, replan: int = 0, uid: str = "u") -> Attempt:
    environ = {
        **{Env.RUN: "r", Env.UID: uid, Env.ATTEMPT: str(number), Env.MANIFEST: "/m", Env.REPLAN: str(replan)},
        **{Env.DATASET_ROOT: "/d", Env.OUTPUT_ROOT: str(root)},
    }
    return Attempt.parse(environ)


@pytest.mark.parametrize(
    ("micro_batch", "replan", "words", "field"),
    [
        (4, 0, "the next attempt halves them", None),
        (2, 1, "the next attempt halves them", None),
        (2, 2, "they were halved 2 times; lower", FIELD),
        (1, 0, "it cannot be halved; lower", FIELD),
        (None, 0, "the model itself does not fit", None),
    ],
)
def test_the_next_plan_is_promised_only_where_there_is_one_and_else_a_field_is_named(
    tmp_path: Path, micro_batch: int | None, replan: int, words: str, field: str | None
) -> None:
    session = Session(
        attempt=attempt(tmp_path, 1 + replan, replan),
        loaded=LOADED,
        dataset_digest="",
        goodput=Goodput(None),
        events=Events(tmp_path, False, 1),
        agreement=Agreement(1),
        flag=StopFlag(),
        lease=Lease(tmp_path, "u", 1),
    )
    if micro_batch is not None:
        session.remember(topology={"micro_batch": micro_batch})
    text, found = advice(session)
    assert words in text
    assert found == field


def leave(root: Path, number: int, reason: FailureReason, uid: str = "u") -> None:
    words = LastWords(outcome=Outcome.FAILED, reason=reason, error=ErrorWords(message="m", rank=0))
    outcome.write(attempt(root, number, uid=uid), words, failed=True)


def replan_on_a_laptop(root: Path) -> str:
    """What the next attempt of the run in this folder is told."""
    place = preparation.workplace(LOADED, "r", root, root, root, fresh=False)
    return place.environment(Role.TRAIN)[Env.REPLAN]


def test_on_a_laptop_each_attempt_that_ran_out_of_memory_halves_the_next_ones_micro_batch_twice_at_most(
    tmp_path: Path,
) -> None:
    assert replan_on_a_laptop(tmp_path) == "0"
    Lease.acquire(tmp_path, Holder.here("u", 1, "r", preparation.NAMESPACE, datetime.now(UTC)))
    leave(tmp_path, 1, FailureReason.EXCEPTION)
    leave(tmp_path, 2, FailureReason.OUT_OF_MEMORY, uid="another run in this folder")
    assert replan_on_a_laptop(tmp_path) == "0"
    for number, expected in ((3, 1), (4, 2), (5, MAX_REPLANS)):
        leave(tmp_path, number, FailureReason.OUT_OF_MEMORY)
        assert replan_on_a_laptop(tmp_path) == str(expected)
