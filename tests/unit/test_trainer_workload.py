"""What each step will have to do is known before it is done, and is what its batches then hold."""

from __future__ import annotations

import numpy as np
import pytest

from tollgate_trainer.data.order import PAD_MULTIPLE, Order
from tollgate_trainer.plan.workload import Workload

LENGTHS = np.random.Generator(np.random.PCG64(3)).integers(3, 90, 61)


def order(**how: object) -> Order:
    given: dict[str, object] = {"world": 1, "micro_batch": 4, "accumulation": 1} | how
    return Order(LENGTHS, 7, **given)  # type: ignore[arg-type]


def padded(order: Order, step: int, rank: int) -> int:
    """By the batches themselves."""
    epoch, within = divmod(step - 1, order.steps_per_epoch)
    total = 0
    first = within * order.accumulation
    for micro_step in range(first, min(first + order.accumulation, order.micro_steps_per_epoch)):
        rows = [sum(int(LENGTHS[i]) for i in row) for row in order.batch_rows(epoch, micro_step, rank)]
        total += len(rows) * -(-max(rows) // PAD_MULTIPLE) * PAD_MULTIPLE
    return total


@pytest.mark.parametrize("how", [{}, {"by_length": True}, {"pack": 96}, {"accumulation": 3}], ids=str)
def test_the_work_of_a_step_is_what_its_batches_hold(how: dict[str, object]) -> None:
    one = order(**how)
    workload = Workload(one, fixed=False)
    for step in range(1, 2 * one.steps_per_epoch + 1):
        assert workload.of_step(step) == padded(one, step, 0)


def test_of_several_processes_the_one_with_the_most_counts() -> None:
    two = order(world=2)
    workload = Workload(two, fixed=False)
    for step in range(1, two.steps_per_epoch):  # the last one's rest is spread differently
        assert workload.of_step(step) == max(padded(two, step, rank) for rank in (0, 1))


def test_what_is_left_is_the_sum_of_its_steps_within_an_epoch_and_nearly_so_over_several() -> None:
    one = order()
    workload, each = Workload(one, fixed=False), one.steps_per_epoch
    assert workload.between(3, each) == sum(workload.of_step(step) for step in range(4, each + 1))
    far = sum(padded(one, step, 0) for step in range(4, 3 * each + 6))
    assert workload.between(3, 3 * each + 5) == pytest.approx(far, rel=0.05)
    assert workload.between(each, each) == 0


def test_batches_of_one_shape_are_all_the_same_work() -> None:
    packed = order(pack=96)
    workload = Workload(packed, fixed=True)
    assert {workload.of_step(step) for step in range(1, packed.steps_per_epoch + 1)} == {4 * 96}
