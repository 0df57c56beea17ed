"""The last words of an attempt: found in outcome files, else in what was printed, and never more than is known.

Pure but for the reading functions: how an attempt ended is decided from values, so that every way to end is a row of a
table.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tollgate.contract import (
    USER_FAILURES,
    ErrorWords,
    ExitCode,
    FailureReason,
    LastWords,
    Outcome,
    StopReason,
    shorten,
)

COMPLETED = "Completed"
_TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(?P<last>\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE
)
# torchrun's own summary of a worker that failed: `  rank      : 1 (local_rank: 1)` and `  exitcode  : -9 (pid: 4242)`.
_WORKER = re.compile(r"^\s*rank\s*:\s*(?P<rank>\d+).*\n\s*exitcode\s*:\s*(?P<code>-?\d+)", re.MULTILINE)
_RANK = re.compile(r"^\[(?:rank|default)\d+\]: ?", re.MULTILINE)  # torch marks the lines of each rank
_PEER = re.compile(
    r"DistBackendError|DistNetworkError|Connection (reset|closed) by peer|Broken pipe"
    r"|ProcessGroup(NCCL|Gloo).*(timeout|abort)",
    re.IGNORECASE,
)
_SUMMARY = ("torch.distributed.elastic.multiprocessing.errors.ChildFailedError", "ChildFailedError", "SignalException")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ended:
    """How the processes ended, as the launcher saw it.

    returncode: of the command, negative for a signal, None when it was never started. stop: why somebody asked to stop,
    None when nobody did. killed: the launcher sent SIGKILL. unborn: torchrun had not started a process yet.
    kernel_kills: how many processes the kernel killed for want of memory meanwhile. survivors: pids that even SIGKILL
    did not end.
    """

    returncode: int | None
    output: str = ""
    stop: StopReason | None = None
    killed: bool = False
    unborn: bool = False
    kernel_kills: int = 0
    survivors: tuple[int, ...] = ()


def read_outcomes(folder: Path, pattern: str, since: datetime) -> list[LastWords]:
    """The outcomes in `folder` whose names match the glob `pattern`; who ended before `since` is of another life.

    A file that is not ours is left out, as if its process had written nothing; the launcher then reads the output.
    """
    found = []
    for path in sorted(folder.glob(pattern)):
        words = LastWords.parse(path.read_text(encoding="utf-8", errors="replace"))
        if words is not None and (words.ended_at is None or words.ended_at >= since):
            found.append(words)
    return found


def cause(found: Iterable[LastWords]) -> LastWords | None:
    """The failure that came first: no PeerLost if there is another, then the earliest, then the lowest rank."""

    def order(words: LastWords) -> tuple[bool, float, int, int, str]:
        ended = words.ended_at.timestamp() if words.ended_at else float("inf")
        rank = words.error.rank if words.error and words.error.rank is not None else 0
        return words.reason == FailureReason.PEER_LOST, ended, words.node_index or 0, rank, words.to_json()

    return min((w for w in found if w.outcome is Outcome.FAILED), key=order, default=None)


def conclude(found: Sequence[LastWords], ended: Ended) -> LastWords:
    """How the attempt ended on this node, from its processes' outcomes and what the launcher saw.

    The outcome files are trusted before exit codes (torchrun answers 1 for everything). The order of the guards is the
    rule: work that was done to its end stays done; a real failure is never hidden by the stop that it caused; a stop
    that somebody asked for explains a process that left without a word.
    """
    failure = cause(found)
    real = failure is not None and failure.reason != FailureReason.PEER_LOST
    if done := next((w for w in found if w.outcome is Outcome.COMPLETED), None):
        return done
    left = next((w for w in found if w.outcome is Outcome.STOPPED), None)
    if left is not None and ended.stop is not None:
        # The trainer saw a SIGTERM; only the launcher knows that its own timer sent it.
        return left.model_copy(update={"reason": _reason(left, ended.stop)})
    if failure is not None and real:
        return failure
    printed = from_output(ended)
    if ended.stop is None and printed.reason == FailureReason.KILLED:
        return printed  # who was killed left no words; torchrun then ended the others, who say Signal or PeerLost
    if left is not None:
        return left
    if ended.stop is not None:
        stopped = LastWords(outcome=Outcome.STOPPED, reason=ended.stop, error=ErrorWords(message=_unfinished(ended)))
        # A rank that lost its peers to the same stop still knows its step and its checkpoint.
        return failure.model_copy(update=_set_fields(stopped)) if failure else stopped
    return failure or printed


def _set_fields(words: LastWords) -> dict[str, object]:
    return {name: getattr(words, name) for name in words.model_fields_set}


def _reason(left: LastWords, stop: StopReason) -> str:
    return stop if left.reason == StopReason.SIGNAL else left.reason


def _unfinished(ended: Ended) -> str:
    if ended.returncode is None:
        return "stopped before the command was started"
    if ended.unborn:
        return "stopped before any process of the training had started"
    if ended.killed:
        return "the processes did not leave within the grace period and were killed; what was saved before holds"
    return f"the processes left without an outcome after they were asked to stop ({_ending(ended.returncode)})"


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "never started"
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def from_output(ended: Ended) -> LastWords:
    """The failure of a command that left no outcome, from its exit code and the end of its output."""
    rank, code = _first_to_end(ended.output) or (None, ended.returncode)
    if code is not None and code < 0:
        return _failed(FailureReason.KILLED, _killed(-code, ended.kernel_kills), rank=rank)
    error, kind = last_error(ended.output)
    if error is not None:
        reason = FailureReason.PEER_LOST if _PEER.search(error) else FailureReason.EXCEPTION
        return _failed(reason, error, kind, rank)
    said = "\n".join(line for line in ended.output.strip().splitlines()[-5:])
    message = f"the command ended with {_ending(ended.returncode)} and left no outcome"
    return _failed(FailureReason.EXCEPTION, f"{message}; it said last:\n{said}" if said else message, rank=rank)


def _first_to_end(output: str) -> tuple[int, int] | None:
    """(rank, exit code) of the worker that ended the others, by torchrun's summary; None without a summary.

    torchrun names the earliest its root cause and lists it last, but in whole seconds, and among equals it takes the
    lowest rank: a rank that failed because its peer was killed may stand there in the peer's place. So who was killed
    comes first, but for the signals by which torchrun and NCCL's watchdog end the others.
    """
    workers = [(int(match["rank"]), int(match["code"])) for match in _WORKER.finditer(output)]
    killed = [(rank, code) for rank, code in workers if code < 0 and -code not in (signal.SIGTERM, signal.SIGABRT)]
    return next(reversed(killed or workers), None)


def _killed(number: int, kernel_kills: int) -> str:
    if kernel_kills:
        return (
            f"killed by signal {number}: the kernel ended {kernel_kills} process(es) because the container's memory "
            "limit was reached; give the profile more memory or lower per_device_train_batch_size or max_seq_length"
        )
    return f"killed by signal {number} from outside the container's own processes"


def _failed(reason: FailureReason, message: str, kind: str | None = None, rank: int | None = None) -> LastWords:
    return LastWords(
        outcome=Outcome.FAILED,
        reason=reason,
        error=ErrorWords(message=shorten(message, 2048), type=kind, rank=rank),
    )


def last_error(output: str) -> tuple[str | None, str | None]:
    """The line that ends the most telling traceback in `output`, and its exception's type; (None, None) without one.

    The summary of torchrun is no cause, and a lost peer is one only when there is nothing else. Of the rest
    the last counts: earlier ones were survived.
    """
    plain = _RANK.sub("", output) + "\n"
    ends = [m["last"].strip() for m in _TRACEBACK.finditer(plain)]
    ends = [end for end in ends if not end.startswith(_SUMMARY)]
    best = [end for end in ends if not _PEER.search(end)] or ends
    if not best:
        return None, None
    kind = re.match(r"[\w.]+", best[-1])
    return best[-1], kind[0].rpartition(".")[2] if kind else None


def exit_code(words: LastWords, ended: Ended) -> int:
    """The launcher's exit code: 0 only for work done to its end."""
    if words.outcome is Outcome.COMPLETED:
        return ExitCode.COMPLETED
    if words.outcome is Outcome.STOPPED:
        return ExitCode.STOPPED
    if words.reason in USER_FAILURES:
        return ExitCode.USER
    if words.reason == FailureReason.KILLED:
        return 128 + (-ended.returncode if ended.returncode is not None and ended.returncode < 0 else 9)
    return ExitCode.APPLICATION


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that must not be repeated: of variables whose name says so, longest first; short ones are let be."""
    values = {v for name, v in environ.items() if _SECRET_NAME.search(name) and len(v) >= 6}
    return tuple(sorted(values, key=len, reverse=True))


def redact(words: LastWords, hidden: Sequence[str]) -> LastWords:
    """`words` without any of the `hidden` values, which an exception's message may quote."""
    if words.error is None or not hidden:
        return words
    message = hide(words.error.message, hidden)
    return words.model_copy(update={"error": words.error.model_copy(update={"message": message})})


def hide(text: str, hidden: Sequence[str]) -> str:
    """`text` without any of the `hidden` values."""
    for value in hidden:
        text = text.replace(value, "[hidden]")
    return text


def last_step(events: Path, since: datetime) -> dict[str, float]:
    """Fields step, total_steps, epoch and loss of the newest step event since `since`; {} if there is none."""
    try:
        with events.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 256 * 1024, 0))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            event = json.loads(line)
            if event["event"] != "step":
                continue
            if datetime.fromisoformat(event["time"]) < since:
                return {}
        except (ValueError, KeyError, TypeError):
            continue  # the first line may be cut by the seek, the last by a kill
        names = ("step", "total_steps", "epoch", "loss")
        return {n: event[n] for n in names if isinstance(event.get(n), int | float)}
    return {}


def sentence(said: LastWords) -> str:
    """One line for people: how it ended, where, with which model, and why."""
    where = f" at step {said.step} of {said.total_steps}" if said.step is not None and said.total_steps else ""
    model = f", model {said.model.digest}" if said.model else ""
    why = "" if said.outcome is Outcome.COMPLETED else f" ({said.reason})"
    error = f": {said.error.message}" if said.error else ""
    return f"{said.outcome.value}{why}{where}{model}{error}"
