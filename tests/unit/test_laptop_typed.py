"""The command that a run tells its person to type next."""

from __future__ import annotations

import pytest

from tollgate_trainer.laptop.follow import sentence
from tollgate_trainer.laptop.typed import again

GIVEN = {"name": "try 2", "output": None, "dataset_root": "/data", "usd_per_hour": "2", "max_cost": "1", "debug": False}


def test_a_run_that_was_stopped_by_hand_goes_on_by_the_same_command() -> None:
    assert again(GIVEN, ["--set", "a.b=1"], stopped_by_hand=True) == [
        "--dataset-root", "/data", "--name", "try 2", "--usd-per-hour", "2", "--max-cost", "1", "--set", "a.b=1",
    ]  # fmt: skip


def test_a_limit_that_stopped_a_run_is_not_typed_again() -> None:
    assert "--max-cost" not in again(GIVEN, [], stopped_by_hand=False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"equality": "bit-equal"}, "step 20 (bit-equal)"),
        (
            {"equality": "statistical", "because": ["x is off"]},
            "step 20 with the same samples, but not bit for bit: x is off",
        ),
        ({}, "step 20"),
    ],
)
def test_a_resumed_run_says_what_it_has_in_common_with_one_that_was_never_stopped(
    more: dict[str, object], words: str
) -> None:
    assert sentence({"event": "restore", "step": 20, **more}) == f"going on from the checkpoint of {words}"
