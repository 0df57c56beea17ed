"""Ranks that need not import torch again: one process imports it, and forks the processes of each attempt.

Each attempt is made of processes of its own, with nothing left of an earlier one but imported modules; they meet over
a port as under torchrun, and end as the trainer ends them. Started by `ranks()`; one JSON line in per attempt, one out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trainer_fixtures import Gang, free_port

SLOW = 2.0
"""Seconds before the first batch, with `slow-start`."""
PATIENCE = 20.0
"""Seconds that the others get once a rank has died; they may wait for it in a collective."""


class Ranks:
    """The forking process, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(
        self, run: Gang, attempt: int, processes: int, plot: dict[str, Any] | None = None, **more: str
    ) -> list[int]:
        """Exit codes by rank (negative: the signal) of an attempt; what was written stands in `output` of the run."""
        environ = run.environment(attempt, processes, **more)
        run.take_lease(attempt)
        order = {
            "environ": environ,
            "processes": processes,
            "port": free_port(),
            "plot": plot,
            "output": str(run.root / f"attempt-{attempt}.log"),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that forks ranks has died"
        codes: list[int] = json.loads(answer)
        return codes


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Start it; it ends when its input is closed."""
    here = Path(__file__).resolve()
    repository = here.parents[1]
    paths = [str(repository / part) for part in ("core", "trainer")] + [str(here.parent)]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
    }
    process = subprocess.Popen(
        [sys.executable, str(here)], env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Ranks(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serve(orders: IO[str], answers: IO[str]) -> None:
    for line in orders:
        order = json.loads(line)
        pids = [_fork(order, rank) for rank in range(order["processes"])]
        answers.write(json.dumps(_codes(pids)) + "\n")
        answers.flush()


def _fork(order: dict[str, Any], rank: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(order["output"], "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.clear()
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["processes"], "MASTER_PORT": order["port"]}
        world["LOCAL_WORLD_SIZE"] = order["processes"]
        os.environ.update(order["environ"], MASTER_ADDR="127.0.0.1", **{name: str(v) for name, v in world.items()})
        from tollgate_trainer.main import main

        if order["plot"] is not None and order["plot"]["rank"] == rank:
            _install(**order["plot"])
        code = main(["train"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _codes(pids: list[int]) -> list[int]:
    """Of all ranks; those that outlive one that failed for too long are killed."""
    codes: dict[int, int] = {}
    end = None
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(found[1])
                if codes[pid] not in (0, 75):
                    end = end or time.monotonic() + PATIENCE
        if end is not None and time.monotonic() > end:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _leave_unsharded() -> None:
    from tollgate_trainer.lifecycle.fsdp import FullyShard

    FullyShard.shard = lambda self, model, *_: model  # type: ignore[method-assign,assignment,misc]


def _slow_start() -> None:
    from tollgate_trainer.data.order import RankBatches

    real = RankBatches.__iter__

    def slowly(self: RankBatches) -> Any:
        RankBatches.__iter__ = real  # type: ignore[method-assign]
        time.sleep(SLOW)
        return real(self)

    RankBatches.__iter__ = slowly  # type: ignore[method-assign]


def _refuse_caches() -> None:
    from key_value_cache import refuse_caches

    refuse_caches()


ALL_ALONG = {"unsharded": _leave_unsharded, "slow-start": _slow_start, "refuse-caches": _refuse_caches}


def _install(kind: str, rank: int, step: int) -> None:
    """What happens to this rank at that step: `signal`, `signal-in-save`, `kill-in-save`, `nan`, `overflow` (the loss
    is finite, its gradient is not) or `memory`. All along: `unsharded`, `slow-start`, `refuse-caches`.
    """
    from tollgate_trainer.lifecycle.checkpoints import Checkpoints
    from tollgate_trainer.lifecycle.loop import TrainingLoop

    if kind in ALL_ALONG:
        ALL_ALONG[kind]()
        return
    real_loss, real_commit = TrainingLoop.compute_loss, Checkpoints.commit

    def compute_loss(self: TrainingLoop, *args: Any, **kwargs: Any) -> Any:
        loss = real_loss(self, *args, **kwargs)
        if self.state.global_step + 1 != step:
            return loss
        if kind == "nan":
            return loss * float("nan")
        if kind == "memory":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 1 TB")
        if kind == "overflow":
            loss.register_hook(lambda gradient: gradient * float("inf"))
            return loss
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    def commit(self: Checkpoints, at: int, *args: Any, **kwargs: Any) -> Any:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill-in-save" else signal.SIGTERM)
        return real_commit(self, at, *args, **kwargs)

    if kind in ("signal", "nan", "memory", "overflow"):
        TrainingLoop.compute_loss = compute_loss  # type: ignore[method-assign]
    else:
        Checkpoints.commit = commit  # type: ignore[method-assign]


if __name__ == "__main__":
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import Trainer  # noqa: F401

    from tollgate_trainer.lifecycle import fsdp, run  # noqa: F401

    _serve(sys.stdin, talk)
