"""`python -m tollgate_trainer train|evaluate`: what the launcher starts, one process per accelerator.

Exit codes: 0 completed, 75 stopped, 64 refused, 70 failed. torchrun answers 1 for all but 0, so what counts is the
outcome file that each process leaves.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from tollgate.contract import USER_FAILURES, Env, ExitCode, FailureReason, LastWords, Outcome, StopReason
from tollgate_trainer import durable
from tollgate_trainer.lifecycle import outcome
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.goodput import Goodput, State, rounded, without_lost_steps
from tollgate_trainer.lifecycle.parting import stopped
from tollgate_trainer.lifecycle.stop import StopFlag
from tollgate_trainer.refusal import Refused
from tollgate_trainer.training import Training

USAGE = "usage: python -m tollgate_trainer train|evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the first argument says; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["train"]:
        return train()
    if words == ["evaluate"]:
        from tollgate_trainer.evaluate.run import main as evaluate

        return evaluate()
    print(USAGE, file=sys.stderr)
    return ExitCode.USER


def train() -> int:
    """Train in this process, leave its outcome for the launcher, and return its exit code."""
    flag = StopFlag().install()
    if os.environ.get(Env.DEBUG):
        trace()
    try:
        attempt = Attempt.parse(os.environ)
    except Refused as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return ExitCode.USER
    goodput = Goodput(attempt.started_at)
    training = Training(attempt, os.environ, flag, goodput)
    flag.leave = lambda: _leave(training)
    try:
        words = training.run()
    except (Exception, KeyboardInterrupt) as error:
        return _failed(training, error)
    outcome.write(attempt, words, failed=False)
    training.close_trackers()
    return ExitCode.COMPLETED if words.outcome is Outcome.COMPLETED else ExitCode.STOPPED


def trace() -> None:
    """Log everything to standard error, by rank; a crash of the interpreter shows all of its threads."""
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.DEBUG, stream=sys.stderr, format=f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"
    )
    for name in ("botocore", "boto3", "s3transfer", "urllib3", "filelock", "matplotlib", "fsspec", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO)  # below that they tell of requests, with their signatures
    faulthandler.enable()


def _leave(training: Training) -> None:
    """Ends this process before its first step, from the signal handler: the interpreter may be deep in an import."""
    words = LastWords(outcome=Outcome.STOPPED, reason=StopReason.SIGNAL)
    if training.session is not None:
        words = stopped(training.session)
    training.note_time()
    outcome.write(training.attempt, words, failed=False)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.STOPPED)


def _failed(training: Training, error: BaseException) -> int:
    attempt, session = training.attempt, training.session
    reason = outcome.failure_of(error, attempt.world)
    cause = outcome.words_of(error, attempt.rank, reason)
    if reason not in USER_FAILURES:
        traceback.print_exception(error)
    print(f"tollgate: rank {attempt.rank}: {reason}: {cause.message}", file=sys.stderr, flush=True)
    doing = training.goodput.switch(State.STOP)
    seconds: dict[str, float] = dict(training.goodput.seconds())
    words = LastWords(outcome=Outcome.FAILED, reason=reason, error=cause)
    if session is not None:
        before = session.earlier.get(State.STEP, 0.0)
        seconds = without_lost_steps(seconds, max(session.committed_step_seconds - before, 0.0))
        words = words.model_copy(
            update={
                "step": session.progress.step if session.progress.step is not None else session.resumed_from,
                "total_steps": session.progress.total_steps,
                "epoch": session.progress.epoch,
                "loss": session.progress.loss,
                "checkpoint": session.committed,
                "resumed_from_step": session.resumed_from,
            }
        )
    training.note_time()
    if reason is FailureReason.OUT_OF_MEMORY:
        from tollgate_trainer.lifecycle.memory import advice

        text, field = advice(session)
        cause = cause.model_copy(update={"message": f"{cause.message} ({text})", "field": field})
        _note_memory(training, cause.message, doing)
    words = words.model_copy(update={"goodput_seconds": rounded(seconds), "error": cause})
    try:
        training.events.add("end", reason=str(reason), error=cause.message)
        outcome.write(attempt, words, failed=True)
    except OSError as problem:  # the launcher reads the traceback above instead
        print(f"tollgate: the outcome could not be written: {problem}", file=sys.stderr, flush=True)
    training.close_trackers()
    code = ExitCode.USER if reason in USER_FAILURES else ExitCode.APPLICATION
    if attempt.world > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking the process group down would wait for peers that are waiting for us
    return code


def _note_memory(training: Training, message: str, doing: State) -> None:
    """logs/oom.json: what the next attempt's plan and the user need to know."""
    from tollgate_trainer.lifecycle.memory import situation

    attempt = training.attempt
    record = {"attempt": attempt.number, "rank": attempt.rank, "replan": attempt.replan, "message": message}
    path = attempt.output_root / "logs" / "oom.json"
    try:
        durable.write(
            path, json.dumps(record | situation(training.session) | {"state": str(doing)}, indent=1).encode() + b"\n"
        )
    except OSError as problem:
        print(f"tollgate: {path} could not be written: {problem}", file=sys.stderr)
