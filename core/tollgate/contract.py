"""What the operator and the trainer agree on: names, files, exit codes, and the words that pass between them.

Neither side imports the other; both import this. A change here is a change of the contract: both sides and
docs/reference follow in the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

GROUP = "tollgate.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# --- labels and annotations on Jobs, pods and the rendezvous Service --------------------------------------------------
LABEL_RUN = f"{GROUP}/run"  # name of the TrainingRun
LABEL_RUN_UID = f"{GROUP}/run-uid"
LABEL_ATTEMPT = f"{GROUP}/attempt"  # "1", "2", ... (an evaluation carries the attempt number of its own series)
LABEL_ROLE = f"{GROUP}/role"  # a Role
LABEL_OUTPUT = (
    f"{GROUP}/output"  # first 32 hex of sha256(claimName/path): finds every pod that may write one output folder
)
LABEL_RENDEZVOUS = f"{GROUP}/rendezvous"  # "true" on pods of multi-node gangs
LABEL_PROMOTE_TO = f"{GROUP}/promote-to"  # on a TrainingRun; Git writes it, the operator only reads it
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_MANIFEST = f"{GROUP}/manifest"  # canonical JSON, reaches the pod as a file by the downward API
ANNOTATION_STOP_REASON = f"{GROUP}/stop-reason"  # a StopReason, written on the Job in the same patch that stops it
ANNOTATION_RESERVED_SECONDS = f"{GROUP}/reserved-seconds"  # what the attempt may use, per pod, from binding to death
ANNOTATION_GRACE_SECONDS = f"{GROUP}/grace-seconds"
ANNOTATION_PRICE = f"{GROUP}/price-per-node-hour-usd"  # on a Node, by the platform admin: price of the whole node


class Role(StrEnum):
    """What a Job of a run is for."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class Env(StrEnum):
    """Environment of the trainer's container. Values are strings; paths are absolute."""

    RUN = "TOLLGATE_RUN"
    NAMESPACE = "TOLLGATE_NAMESPACE"
    UID = "TOLLGATE_UID"  # of the TrainingRun
    ATTEMPT = "TOLLGATE_ATTEMPT"
    ROLE = "TOLLGATE_ROLE"
    MANIFEST = "TOLLGATE_MANIFEST"  # path of the canonical JSON
    MANIFEST_SHA256 = "TOLLGATE_MANIFEST_SHA256"  # "sha256:<hex>" of exactly these bytes
    DATASET_ROOT = "TOLLGATE_DATASET_ROOT"  # the folder on the dataset claim that manifest.dataset.path is relative to
    OUTPUT_ROOT = "TOLLGATE_OUTPUT_ROOT"  # the run's own output folder; the trainer creates it
    STOP_AFTER_SECONDS = "TOLLGATE_STOP_AFTER_SECONDS"  # until the process group is dead, from the mtime of the mount
    STOP_REASON = "TOLLGATE_STOP_REASON"  # the StopReason when that timer fires (BudgetExceeded or RuntimeExceeded)
    USD_PER_NODE_HOUR = "TOLLGATE_USD_PER_NODE_HOUR"  # for the plan's estimate only; absent: unknown
    STOP_MARGIN_SECONDS = "TOLLGATE_STOP_MARGIN_SECONDS"  # leave so long before STOP_AFTER, if a save needs less
    GRACE_SECONDS = "TOLLGATE_GRACE_SECONDS"  # SIGTERM to SIGKILL, everywhere
    METRICS_PORT = "TOLLGATE_METRICS_PORT"
    POD_IP = "POD_IP"  # metrics listen on this address only
    POD_NAME = "TOLLGATE_POD"
    NODE_NAME = "TOLLGATE_NODE"
    TAKE_OVER = (
        "TOLLGATE_TAKE_OVER"  # "true": the operator saw that every other run on this output folder is gone or terminal
    )
    FRESH = "TOLLGATE_FRESH"  # "true": spec.restart.fresh, another digest's output is moved aside instead of refused
    REPLAN = "TOLLGATE_REPLAN"  # how often an out-of-memory halved the micro-batch so far: "0", "1", "2"
    # What the launcher adds for its children.
    DEADLINE = "TOLLGATE_DEADLINE"  # epoch seconds at which the process group is killed; absent: no limit
    STARTED_AT = "TOLLGATE_STARTED_AT"  # epoch seconds of the launcher's start; goodput counts from here
    NODE_INDEX = "TOLLGATE_NODE_INDEX"  # completion index of the pod, "0" on a laptop
    CONFIDENCE = "TOLLGATE_CONFIDENCE"  # evaluation: the strictest confidence its policy asks for, e.g. "0.95"
    SUITES = "TOLLGATE_SUITES"  # evaluation: comma-separated
    GATED = "TOLLGATE_GATED_METRICS"  # evaluation: what its policy's checks look at, comma-separated; told first
    MODEL_DIGEST = "TOLLGATE_MODEL_DIGEST"  # evaluation: the digest the model must have
    BASELINE = "TOLLGATE_BASELINE"  # evaluation: output root of the run to compare with on the same prompts
    PROFILE = "TOLLGATE_PROFILE"  # "true": a few steps are recorded by torch.profiler
    DEBUG = "TOLLGATE_DEBUG"  # set: errors with their traceback, processes with their trace logs


ALLOWED_EXTENSIONS = "TOLLGATE_ALLOWED_EXTENSIONS"
"""Modules that a manifest's `extensions` may name, comma-separated. The admin's: from the ComputeProfile's env."""
METRICS_PORT = 9464
MANIFEST_MOUNT = "/etc/tollgate"
MANIFEST_FILE = "manifest.json"
DATASET_MOUNT = "/data"
OUTPUT_MOUNT = "/output"
ENVIRONMENT_MOUNT = "/opt/tollgate/environment"
CODE_PATH = "/opt/tollgate/lib"
CONTAINER = "trainer"
RENDEZVOUS_SERVICE = "tollgate-rendezvous"
MAX_MANIFEST_BYTES = 32 * 1024
MAX_NAME = 40
MAX_LAST_WORDS = 4096
MAX_REPLANS = 2
"""How often memory that ran out is answered by a plan with half the micro-batch, before it is the user's to mend."""
_ADVISORY = 60  # characters of why a metric is advisory, where there is no room for more


class ExitCode(IntEnum):
    """Of the launcher. 0 only for work done to its end; everything else says why not."""

    COMPLETED = 0
    USER = 64
    APPLICATION = 70
    STOPPED = 75


class Files:
    """Names below the output root."""

    LEASE = "attempt.lease"
    CHECKPOINTS = "checkpoints"
    COMMIT = "COMMIT.json"
    LIFECYCLE = "lifecycle.json"
    MODEL = "model"
    MODEL_INFO = "model_info.json"
    RESULT = "result.json"
    PLAN = "plan.json"
    OUTCOMES = "outcomes"  # attempt-N/node-I.json by its local rank 0; node-I-rank-R.json by a rank that failed
    EVIDENCE = "evaluation/evidence.json"
    REPORT = "report/index.html"
    EVENTS = "logs/events.jsonl"
    SECONDS_USED = "logs/seconds-used.json"


class Outcome(StrEnum):
    """How a process group ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class StopReason(StrEnum):
    """Why somebody asked a gang to stop. The first four are Limit class; Gang keeps the class of its cause."""

    BUDGET = "BudgetExceeded"
    RUNTIME = "RuntimeExceeded"
    SUSPENDED = "Suspended"
    DELETED = "Deleted"
    GANG = "GangMemberLost"
    STALLED = "Stalled"
    UNSCHEDULABLE = "Unschedulable"
    EVALUATION_TIMEOUT = "EvaluationTimeout"
    SIGNAL = "Signal"  # SIGTERM or Ctrl-C from outside: preemption, a person at a laptop


class FailureReason(StrEnum):
    """The trainer's own words for a failure."""

    MANIFEST = "ManifestRefused"
    DATASET = "DatasetRefused"
    MODEL = "ModelRefused"
    OUTPUT = "OutputRefused"  # lease or finished output of another run or digest
    EXCEPTION = "Exception"
    OUT_OF_MEMORY = "OutOfMemory"
    NON_FINITE = "NonFinite"
    PEER_LOST = "PeerLost"  # this rank is a victim, look for the cause elsewhere
    KILLED = "Killed"
    FENCED = "Fenced"  # a newer attempt holds the lease
    RENDEZVOUS = "RendezvousFailed"


USER_FAILURES = frozenset({FailureReason.MANIFEST, FailureReason.DATASET, FailureReason.MODEL, FailureReason.OUTPUT})


class FailureClass(StrEnum):
    """What a failure means for the next attempt (docs: failures)."""

    USER = "User"
    APPLICATION = "Application"
    DISRUPTION = "Disruption"
    UNSCHEDULABLE = "Unschedulable"
    STALL = "Stall"
    LIMIT = "Limit"


class ChargeCategory(StrEnum):
    """Ledger categories."""

    STARTUP = "startup"
    PRODUCTIVE = "productive"
    LOST = "lost"
    EVALUATION = "evaluation"


class Wire(BaseModel):
    """Base of everything that travels as camelCase JSON. Unknown keys of a newer peer are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class CheckpointRef(Wire):
    """A committed checkpoint. `path` is relative to the output root, or a URI where checkpoints lie in a store."""

    step: int = Field(ge=0)
    path: str
    digest: str
    saved_at: datetime


class ModelRef(Wire):
    """The finished model. `path` is relative to the output root; digest covers every file below it."""

    path: str
    digest: str


class Metric(Wire):
    """One measured value with its one-sided bounds at `confidence`. What was not measured is absent, never 0.

    advisory: why no gate may rest on it (display only, a judge that was not compared with people), absent when one may.
    The order of the fields is part of the contract: rows travel by it.
    """

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None
    confidence: float = Field(gt=0, lt=1)
    samples: int = Field(ge=0)
    advisory: str | None = None


class EvaluationSummary(Wire):
    """What the operator needs to judge; the full statement lies at `evidence_path` and has `evidence_digest`.

    metrics: those that a gate asks for first, so that last words which are too long lose the others; left_out: how many
    they lost. baseline_digest: of the model that was measured on the same prompts; then `<metric>_delta` is ours minus
    its value.

    Where room is short the metrics travel as `rows`: the values of each in the order of Metric's fields, null for one
    that is absent. A reader who doesn't know rows finds no metric, which passes nothing.
    """

    metrics: list[Metric]
    left_out: int | None = None
    model_digest: str
    baseline_digest: str | None = None
    manifest_digest: str
    suite_digest: str
    dataset_digest: str
    evaluated_at: datetime
    evidence_path: str
    evidence_digest: str

    @model_validator(mode="before")
    @classmethod
    def _of_rows(cls, given: Any) -> Any:
        rows = given.get("rows") if isinstance(given, dict) else None
        if not isinstance(rows, list):
            return given
        named = [dict(zip(Metric.model_fields, row, strict=False)) for row in rows if isinstance(row, list)]
        return {**given, "metrics": named}


class ErrorWords(Wire):
    """The cause, in the trainer's words. `field` names a manifest field when the user can mend it there."""

    message: str
    type: str | None = None
    field: str | None = None
    rank: int | None = None


class LastWords(Wire):
    """What the launcher leaves as termination message and, in full, as `result.json`."""

    schema_version: int = Field(default=1, alias="schema")
    outcome: Outcome
    reason: str  # a StopReason, a FailureReason, or "Completed"
    uid: str | None = None
    attempt: int | None = None
    node_index: int | None = None
    exit_code: int | None = None  # the launcher's
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    checkpoint: CheckpointRef | None = None
    model: ModelRef | None = None
    evaluation: EvaluationSummary | None = None
    error: ErrorWords | None = None
    metrics: dict[str, float] | None = None
    goodput_seconds: dict[str, float] | None = None
    resumed_from_step: int | None = None
    adopted: bool | None = None  # finished output of the same digests was found; no step was run
    ended_at: datetime | None = None

    def to_json(self) -> str:
        """The whole document, compact, without absent fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def to_termination_message(self) -> str:
        """At most MAX_LAST_WORDS bytes: fields are dropped whole, least useful first; only the error's text is cut, and
        metrics become rows with numbers of ten digits. They go from the end of their list, and `leftOut` says how many
        went.
        """
        document = json.loads(self.to_json())

        def spare() -> int:
            return MAX_LAST_WORDS - len(_compact(document))

        for name in ("goodputSeconds", "metrics"):
            if spare() < 0:
                document.pop(name, None)
        if spare() < 0 and "error" in document:
            error = document["error"]
            error["message"] = shorten(error["message"], max(spare() + len(_compact(error["message"])) - 2, 200))
        if spare() < 0 and "evaluation" in document:
            for name in ("checkpoint", "model"):  # the training's own words have both
                document.pop(name, None)
            _leave_out(document["evaluation"], spare)
        for name in ("evaluation", "checkpoint", "model"):
            if spare() < 0:
                document.pop(name, None)
        return _compact(document).decode()

    @classmethod
    def parse(cls, text: str | None) -> LastWords | None:
        """The words in `text`, or None when there are none or they are not ours."""
        if not text:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _leave_out(evaluation: dict[str, Any], spare: Callable[[], int]) -> None:
    """Metrics as rows, as many of the first ones as there is room for; the others are counted."""
    rows = evaluation["rows"] = [_row(metric) for metric in evaluation["metrics"]]
    evaluation["metrics"] = []
    known = len(rows) + evaluation.get("leftOut", 0)
    while rows and spare() < 0:
        rows.pop()
        evaluation["leftOut"] = known - len(rows)


def _row(metric: dict[str, Any]) -> list[Any]:
    """Numbers to ten digits, which no gate can tell from all seventeen, and half as long; the reason why a metric is
    advisory to its first words, and nothing where there is none.
    """
    *values, advisory = map(metric.get, Metric.model_fields)
    row = [float(f"{value:.10g}") if isinstance(value, float) else value for value in values]
    if advisory is None:
        return row
    return [*row, advisory if len(advisory) <= _ADVISORY + 3 else f"{advisory[:_ADVISORY]}..."]


def shorten(text: str, max_bytes: int) -> str:
    """The end of `text` (where Python puts the cause) in at most `max_bytes` of JSON, marked in front if cut."""
    if len(json.dumps(text, ensure_ascii=False).encode()) - 2 <= max_bytes:
        return text
    while text and len(json.dumps("... " + text, ensure_ascii=False).encode()) - 2 > max_bytes:
        text = text[max(1, len(text) // 16) :]
    return "... " + text


class TrainMetric(StrEnum):
    """Prometheus series on rank 0, as scraped (counters with `_total`)."""

    STEP = "tollgate_train_step"
    STEPS = "tollgate_train_steps"
    LOSS = "tollgate_train_loss"
    EVAL_LOSS = "tollgate_train_eval_loss"
    LEARNING_RATE = "tollgate_train_learning_rate"
    GRAD_NORM = "tollgate_train_grad_norm"
    TOKENS = "tollgate_train_tokens_total"
    SAMPLES = "tollgate_train_samples_total"
    EPOCH = "tollgate_train_epoch"
    CHECKPOINT_STEP = "tollgate_train_checkpoint_step"
    CHECKPOINT_TIME = "tollgate_train_checkpoint_timestamp_seconds"
    LAST_PROGRESS = "tollgate_train_last_progress_timestamp_seconds"
    GOODPUT = "tollgate_train_goodput_seconds_total"
    REMAINING = "tollgate_train_estimated_seconds_remaining"  # by bound: expected, low, high (90 %)
    COMPLETION = "tollgate_train_estimated_completion_timestamp_seconds"
    EXPERT_USAGE = "tollgate_train_expert_usage_ratio"
    ROUTING_ENTROPY = "tollgate_train_routing_entropy"
