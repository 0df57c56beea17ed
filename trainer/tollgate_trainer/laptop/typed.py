"""The options of a run as they have to be typed again, for "the same command goes on"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WHERE = ("output", "dataset_root", "name", "nproc", "usd_per_hour")
LIMITS = ("max_cost", "max_runtime")


def again(given: Mapping[str, object], wishes: Sequence[str], stopped_by_hand: bool) -> list[str]:
    """What stands behind `tollgate run FILE`.

    Args: given: the command's parameters, None where nothing was said; wishes: what stands over the manifest;
    stopped_by_hand: not by a limit, which would stop the same command at once.
    """
    names = (*WHERE, *LIMITS) if stopped_by_hand else WHERE
    words = [(f"--{name.replace('_', '-')}", given.get(name)) for name in names]
    return [*(part for flag, value in words if value is not None for part in (flag, str(value))), *wishes]
