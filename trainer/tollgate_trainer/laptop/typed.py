"""The options of a run as they have to be typed again, for "the same command goes on"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tollgate.contract import LastWords, Outcome, StopReason

WHERE = ("output", "dataset_root", "name", "nproc", "policy", "usd_per_hour")
LIMITS = ("max_cost", "max_runtime")


def again(given: Mapping[str, object], wishes: Sequence[str], words: LastWords | None, elsewhere: bool) -> list[str]:
    """What stands behind `tollgate run FILE`.

    Args: given: the command's parameters, None where nothing was said; wishes: what stands over the manifest;
    words: how it ended; a limit that stopped it would stop the same command at once; elsewhere: another run is meant
    than the one that lies in --output, as after a quick test.
    """
    limited = words is not None and words.outcome is Outcome.STOPPED and words.reason != StopReason.SIGNAL
    names = WHERE if limited else (*WHERE, *LIMITS)
    typed = [(f"--{name.replace('_', '-')}", given.get(name)) for name in names]
    typed = [(flag, value) for flag, value in typed if not (elsewhere and flag == "--output")]
    asked = given.get("evaluate")
    evaluate = [] if asked is None else ["--evaluate" if asked else "--no-evaluate"]
    return [*(part for flag, value in typed if value is not None for part in (flag, str(value))), *evaluate, *wishes]
