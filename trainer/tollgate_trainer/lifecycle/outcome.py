"""How a process ended, in the words of the contract, written where the launcher looks for them."""

from __future__ import annotations

import os
import re
import traceback
from datetime import UTC, datetime
from pathlib import Path

from tollgate.contract import ErrorWords, FailureReason, Files, LastWords, shorten
from tollgate.manifest.errors import ManifestError
from tollgate_trainer import durable
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.refusal import Refused
from tollgate_trainer.words import hide, secrets

_PEER = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Timed out (waiting|after)|remote process exited|"
    r"NCCL|gloo.*(timeout|timed out|Socket)|process group.*(abort|timeout)|application timeout",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc", re.IGNORECASE)


class NonFinite(Exception):  # noqa: N818 - the word of the contract
    """A loss or gradient that is not a number; the step was not applied."""


class MemoryShort(Exception):  # noqa: N818 - a state, not a mistake
    """Memory ran out; carries what was being done."""


def failure_of(error: BaseException, world: int) -> FailureReason:
    """The reason in the contract's words; with several processes a collective that died with its peer is PeerLost."""
    if isinstance(error, Refused):
        return error.reason
    if isinstance(error, ManifestError):
        return FailureReason.MANIFEST
    if isinstance(error, NonFinite):
        return FailureReason.NON_FINITE
    if isinstance(error, Fenced):
        return FailureReason.FENCED
    if is_memory(error):
        return FailureReason.OUT_OF_MEMORY
    name = type(error).__name__
    if world > 1 and (name in ("DistBackendError", "DistNetworkError", "DistStoreError") or _is_peer(error)):
        return FailureReason.PEER_LOST
    return FailureReason.EXCEPTION


def is_memory(error: BaseException) -> bool:
    """Whether this is memory that ran out, on the GPU or the CPU."""
    named = isinstance(error, MemoryShort | MemoryError) or type(error).__name__ in ("OutOfMemoryError", "MemoryError")
    return named or (isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None)


def _is_peer(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and _PEER.search(str(error)) is not None


_FULL = "No space left on device"  # safetensors raises an error of its own with the system's words in it


def words_of(error: BaseException, rank: int, reason: FailureReason) -> ErrorWords:
    """The error for its reader: a refusal's own words, else the message with the place that raised it."""
    field = error.field if isinstance(error, Refused) else None
    if isinstance(error, ManifestError):
        field = error.problems[0].field or None
    message = str(error) or type(error).__name__
    if reason is FailureReason.EXCEPTION:
        place = traceback.extract_tb(error.__traceback__)
        if place:
            message = f"{message} (in {place[-1].name}, {Path(place[-1].filename).name}:{place[-1].lineno})"
    if _FULL in message:
        message += "; free space there, or keep fewer checkpoints (checkpoint.keep_last)"
    message = hide(message, secrets(os.environ))  # the words go to a volume that more people read than the Secret
    return ErrorWords(message=shorten(message, 2048), type=type(error).__name__, field=field, rank=rank)


def write(attempt: Attempt, words: LastWords, failed: bool) -> Path | None:
    """Leave `words` for the launcher: a rank that failed under its own name, else local rank 0 for its node.

    Answers the file, or None when this process has nothing to say.
    """
    if not failed and attempt.local_rank != 0:
        return None
    name = f"node-{attempt.node_index}-rank-{attempt.rank}.json" if failed else f"node-{attempt.node_index}.json"
    path = attempt.output_root / Files.OUTCOMES / f"attempt-{attempt.number}" / name
    whole = words.model_copy(
        update={
            "uid": attempt.uid,
            "attempt": attempt.number,
            "node_index": attempt.node_index,
            "ended_at": datetime.now(UTC),
        }
    )
    durable.write(path, whole.to_json().encode() + b"\n")
    return path
