"""What follows from the numbers of a run: each sentence has its number, and nothing follows from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import Files
from tollgate.manifest.loader import load_document
from tollgate_trainer.report.advice import recommendations, samples_needed
from tollgate_trainer.report.record import read
from trainer_fixtures import manifest


def put(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def told(root: Path, *events: dict[str, Any]) -> None:
    put(root, Files.EVENTS, "\n".join(json.dumps({"attempt": 1, **event}) for event in events))


def data(**train: int) -> dict[str, Any]:
    return {"event": "data", "train": {"samples": 1000, **train}, "validation": {"documents": 500}}


def evaluations(*losses: float) -> list[dict[str, Any]]:
    return [{"event": "eval", "step": 10 * (n + 1), "eval_loss": loss} for n, loss in enumerate(losses)]


def experts(*usage: float) -> dict[str, Any]:
    return {"event": "experts", "step": 9, "usage": {"layers.0.up": list(usage)}}


def ended(**seconds: float) -> dict[str, Any]:
    return {"schema": 1, "outcome": "completed", "reason": "Completed", "step": 9, "goodputSeconds": seconds}


@pytest.mark.parametrize(
    ("events", "follows"),
    [
        ([data(truncated_samples=21)], "2.1% of the training samples (21 of 1,000) were cut"),
        ([data(truncated_samples=10)], None),
        ([data(dropped_samples=50)], "50 training samples were dropped"),
        ([{"event": "data", "validation": {"documents": 40}}], "Only 40 documents were held out"),
        ([{"event": "data", "validation": {"documents": 0}}], None),
        (
            evaluations(3.0, 3.1, 3.2, 3.3),
            "rose at each of the last 3 evaluations, from 3 at step 10 to 3.3: set early",
        ),
        (evaluations(3.0, 3.1, 3.05, 3.3), None),
        (evaluations(3.1, 3.2, 3.3), None),
        (evaluations(3.0, 2.7), "still falling at the end, by 10.0% since"),
        (evaluations(3.0, 2.99), None),
        (evaluations(3.0, 2.7, 2.8), None),
        ([experts(0.45, 0.45, 0.07, 0.03)], "1 expert hardly took part at the end; expert 3 of layers.0.up got 3.0%"),
        ([experts(0.3, 0.3, 0.3, 0.1)], None),
        ([{"event": "experts", "step": 9, "usage": {"layers.0.up": "uneven"}}], None),
        ([{"event": "eval", "step": 1, "eval_loss": "nan"}, {"event": "data", "train": "many"}], None),
        ([], None),
    ],
)
def test_a_sentence_follows_from_what_the_events_say(
    tmp_path: Path, events: list[dict[str, Any]], follows: str | None
) -> None:
    told(tmp_path, *events)
    found = recommendations(read(tmp_path))
    assert len(found) == (follows is not None), found
    assert follows is None or follows in found[0]


@pytest.mark.parametrize(
    ("tokens", "computed", "packing", "changes", "follows"),
    [
        (580, 1000, None, {}, "About 42% of the computed tokens were padding"),
        (580, 1000, {"event": "packing", "on": True}, {}, None),
        (580, 1000, {"event": "packing", "on": False}, {}, "About 42%"),
        (580, 1000, None, {"task": "classification"}, None),
        (580, 1000, None, {"parallelism": "zero3"}, None),
        (580, 1000, None, {"hyperparameters": {"group_by_length": True}}, None),
        (900, 1000, None, {}, None),
        (900, 0, None, {}, None),
        (900, None, None, {}, None),
    ],
)
def test_padding_is_told_where_packing_would_help(
    tmp_path: Path, tokens: Any, computed: Any, packing: dict[str, Any] | None, changes: dict[str, Any], follows: Any
) -> None:
    put(tmp_path, Files.PLAN, {"work": {"tokens": tokens, "computed": computed}})
    accepted = load_document(manifest(**changes), "manifest.json").canonical
    put(tmp_path, "outcomes/attempt-1/manifest.json", accepted.decode())
    told(tmp_path, *([packing] if packing else []))
    found = recommendations(read(tmp_path))
    assert len(found) == (follows is not None), found
    assert follows is None or follows in found[0]


@pytest.mark.parametrize(
    ("seconds", "follows"),
    [
        ({"step": 910.0, "save": 90.0}, "9% of the time went into saving"),
        ({"step": 910.0, "lost": 90.0}, "9% of the time went into steps that a restart did again"),
        ({"step": 800.0, "data": 200.0}, "20% of the time went into reading data"),
        ({"step": 700.0, "evaluate": 300.0}, "30% of the time went into evaluating"),
        ({"step": 1.0, "save": 9.0}, None),
        ({"step": 970.0, "save": 30.0}, None),
    ],
)
def test_time_that_goes_elsewhere_is_told_with_its_setting(
    tmp_path: Path, seconds: dict[str, float], follows: str | None
) -> None:
    put(tmp_path, Files.RESULT, ended(**seconds))
    found = recommendations(read(tmp_path))
    assert len(found) == (follows is not None), found
    assert follows is None or follows in found[0]


@pytest.mark.parametrize(
    ("check", "follows"),
    [
        (
            {"value": 45.0, "boundValue": 55.0, "samples": 300, "verdict": "Inconclusive",
             "reason": "upper bound 55 > 50: 300 samples cannot tell; evaluate with more"},
            "perplexity can't be told from 50 with 300 samples: about 900 more would decide it",
        ),
        ({"value": 45.0, "boundValue": 49.0, "samples": 300, "verdict": "Passed", "reason": ""}, None),
        ({"value": 45.0, "boundValue": 55.0, "samples": 3, "verdict": "Inconclusive", "reason": "3 of 9"}, None),
        ({"verdict": "Inconclusive", "reason": "cannot tell"}, None),
    ],
)  # fmt: skip
def test_a_check_that_straddles_is_told_the_samples_that_would_decide_it(
    tmp_path: Path, check: dict[str, Any], follows: str | None
) -> None:
    asked = {"metric": "perplexity", "op": "<=", "threshold": 50, "bound": "upper", **check}
    stages = [
        {"stage": name, "verdict": "Inconclusive", "policyDigest": "sha256:0", "checks": [asked]} for name in "ab"
    ]
    put(tmp_path, "evaluation/gates.json", {"policy": "care", "stages": stages})
    found = recommendations(read(tmp_path))
    assert len(found) == (follows is not None), found
    assert follows is None or follows in found[0]


@given(
    value=st.floats(-10, 10),
    half=st.floats(0.01, 5),
    gap=st.floats(0.01, 5),
    samples=st.integers(1, 10_000),
)
def test_with_the_samples_that_are_named_the_interval_would_not_reach_the_threshold(
    value: float, half: float, gap: float, samples: int
) -> None:
    needed = samples_needed(value, value + half, value + gap, samples)
    if needed is not None:
        assert half * (samples / needed) ** 0.5 <= gap * (1 + 1e-6)
        assert (needed > samples) == (half > gap) or abs(half - gap) < 1e-6


@pytest.mark.parametrize("unknown", [(None, 1.0, 2.0, 3), (1.0, None, 2.0, 3), (1.0, 1.5, 2.0, 0), (2.0, 1.5, 2.0, 3)])
def test_samples_that_can_not_be_counted_are_unknown(unknown: tuple[Any, Any, float, Any]) -> None:
    assert samples_needed(*unknown) is None
