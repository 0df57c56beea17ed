"""`python -m bench [NAME ...]`: api-calls, event-cpu, crashes; without a name these three.

`python -m bench cap [--rounds N]` needs root and takes options, `python -m bench moe-lora` and
`python -m bench trainer NAME` train models: each stands alone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from bench import api_calls, cap, crashes, event_cpu

BENCHES: dict[str, Callable[[], int]] = {
    "api-calls": api_calls.main,
    "event-cpu": event_cpu.main,
    "crashes": crashes.main,
}


def main(names: list[str]) -> int:
    """Runs them in order; answers 1 when one found something that must not be."""
    if names[:1] == ["cap"]:
        return cap.main(names[1:])
    if names == ["moe-lora"]:
        from bench import moe_lora  # torch takes seconds

        return moe_lora.main()
    if names[:1] == ["trainer"]:
        from bench import trainer

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its trainings go down with it
        return trainer.main(names[1:])
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(
            f"bench: {unknown[0]!r} is not known; there are {', '.join(BENCHES)}, cap, moe-lora, trainer",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a bench that is ended takes its cluster down
    return int(any([BENCHES[name]() for name in names or BENCHES]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
