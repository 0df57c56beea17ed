"""The order of training: a pure function of seed and epoch that no topology changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.order import Order, RankBatches, Share
from tollgate_trainer.lifecycle.batching import batching, total_steps, warmup_steps
from tollgate_trainer.refusal import OutputRefused

orders = st.builds(
    Order,
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60).map(
        lambda values: np.asarray(values, dtype=np.int64)
    ),
    seed=st.integers(0, 2**32 - 1),
    world=st.integers(1, 4),
    micro_batch=st.integers(1, 5),
    accumulation=st.integers(1, 3),
)


@given(orders, st.integers(0, 3))
def test_an_epoch_shows_every_sample_once_but_for_fill_ups_of_its_last_group(order: Order, epoch: int) -> None:
    seen = [i for m in range(order.micro_steps_per_epoch) for r in range(order.world) for i in order.batch(epoch, m, r)]
    assert set(seen) == set(range(order.samples))
    assert len(seen) - order.samples < order.world


@given(orders, st.integers(0, 2))
def test_no_process_is_ever_without_a_batch(order: Order, epoch: int) -> None:
    for micro_step in range(order.micro_steps_per_epoch):
        for rank in range(order.world):
            assert 1 <= len(order.batch(epoch, micro_step, rank)) <= order.micro_batch


@given(orders)
def test_the_batches_of_a_process_are_those_that_its_steps_name(order: Order) -> None:
    for rank in range(order.world):
        batches = RankBatches(order, rank)
        shown: list[int] = []
        for epoch in range(2):
            batches.epoch = epoch
            shown += [index for batch in batches for row in batch for index in row]
        steps = range(1, 2 * order.steps_per_epoch + 1)
        assert shown == [index for step in steps for index in order.at_step(step, rank)]


@given(orders, st.integers(1, 4))
def test_a_step_sees_the_same_samples_with_fewer_processes_and_more_accumulation(order: Order, step: int) -> None:
    alone = Order(order.lengths, order.seed, 1, order.micro_batch, order.accumulation * order.world)
    assert alone.steps_per_epoch == order.steps_per_epoch
    together = {index for rank in range(order.world) for index in order.at_step(step, rank)}
    own = set(alone.at_step(step, 0))
    assert own <= together
    assert len(together) - len(own) < order.world


@given(orders, st.integers(0, 40))
def test_tokens_and_samples_until_a_step_are_the_sums_over_its_steps(order: Order, step: int) -> None:
    alone = Order(order.lengths, order.seed, 1, order.samples_per_step, 1)
    indices = [i for s in range(1, step + 1) for i in alone.at_step(s, 0)]
    assert order.tokens_until(step) == sum(int(order.lengths[i]) for i in indices)
    assert order.samples_until(step) == len(indices)


def manifest(**hyperparameters: object) -> TrainingManifest:
    return TrainingManifest.model_validate({"name": "t", "dataset": {"path": "d"}, "hyperparameters": hyperparameters})


@pytest.mark.parametrize(
    ("world", "replan", "resumed", "expected"),
    [
        (2, 0, None, (8, 1)),
        (2, 1, None, (4, 2)),
        (2, 2, None, (2, 4)),
        (2, 9, None, (1, 8)),
        (1, 0, 16, (8, 2)),
        (4, 0, 16, (4, 1)),
        (1, 0, 6, (6, 1)),
        (3, 0, 24, (8, 1)),
    ],
)
def test_samples_per_step_stay_whatever_the_topology(
    world: int, replan: int, resumed: int | None, expected: tuple[int, int]
) -> None:
    found = batching(manifest(per_device_train_batch_size=8), world, replan, resumed)
    assert (found.micro_batch, found.accumulation) == expected
    assert found.samples_per_step == (resumed if resumed is not None else 8 * world)
    assert found.adapted == (expected != (8, 1))


def test_processes_that_cannot_share_the_checkpoints_samples_are_refused_with_the_numbers() -> None:
    with pytest.raises(OutputRefused, match="8 samples per step, which 3 processes"):
        batching(manifest(), 3, 0, 8)


def test_steps_and_warm_up_follow_the_manifest() -> None:
    assert total_steps(manifest(max_steps=7, num_train_epochs=3.0), 10) == 7
    assert total_steps(manifest(num_train_epochs=2.5), 3) == 8
    assert warmup_steps(manifest(warmup_ratio=0.05), 30) == 2
    assert warmup_steps(manifest(warmup_steps=0, warmup_ratio=0.5), 30) == 0


shares = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=3)


@given(shares, st.integers(0, 1000), st.integers(1, 5))
def test_each_sample_of_a_weighted_source_is_used_as_often_as_any_other_give_or_take_one(
    sizes: list[tuple[int, int]], seed: int, epochs: int
) -> None:
    firsts = np.cumsum([0, *(size for size, _ in sizes)])
    parts = tuple(Share(int(first), size, count) for first, (size, count) in zip(firsts[:-1], sizes, strict=True))
    lengths = np.arange(1, firsts[-1] + 1, dtype=np.int64)
    order = Order(lengths, seed, world=1, micro_batch=2, accumulation=2, shares=parts)
    assert order.samples == sum(count for _, count in sizes)
    used = np.zeros(len(lengths), dtype=int)
    for epoch in range(epochs):
        dealt = order.of_epoch(epoch)
        assert (dealt == Order(lengths, seed, 1, 2, 2, parts).of_epoch(epoch)).all()
        used += np.bincount(dealt, minlength=len(lengths))
    for part in parts:
        own = used[part.first : part.first + part.size]
        assert own.sum() == epochs * part.count
        assert own.max() - own.min() <= 1
    assert order.tokens_until(epochs * order.steps_per_epoch) == int((used * lengths).sum())


def test_sources_of_weight_one_are_in_the_order_in_which_one_file_would_be() -> None:
    lengths = np.ones(30, dtype=np.int64)
    plain = Order(lengths, 7, 1, 4, 1)
    assert plain.batch(1, 0, 0) == [int(i) for i in plain.of_epoch(1)[:4]]
