"""How much an attempt may use, and when it has to stop.

**Why the cap holds** (promise 1: spend <= limit + rate x (poll + grace)). Let C be the cost limit, E the evaluation reserve, U what
all other attempts used or may still use (ledger.committed). An attempt is created only with a reservation of S seconds per pod with
    U + E + pods x ceil(rate x S / 3600) <= C,
at a rate that no pod's charge can exceed (prices.charged_rate). Each layer alone ends each pod S seconds after it started to count:
the launcher kills its process group at S, the kubelet terminates at S - grace and kills at S. What a layer adds is the gap between
binding and the moment its own timer starts, at most seconds. The operator asks for the end at T - grace, where T is the instant at
which the charges reach C - E; acting `poll` late and waiting `grace` for death, pods are gone by T + poll, so spend is at most
C - E + rate x poll. With every layer but the slowest away, the promise is what is left of these sums. Lowering C below U acts at
once: then at most rate x (poll + grace) is added to what was already spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.training_run import Attempt, Limits
from tollgate.contract import StopReason
from tollgate.limits.ledger import Spend
from tollgate.limits.refusal import Refusal
from tollgate.manifest.training_manifest import TrainingManifest

MINIMUM_SECONDS = 30
MAX_STOP_MARGIN = 1800
MIN_GRACE = 5
MAX_GRACE = 120


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits in force: `cost` in micro-USD, `runtime` and `margin` in seconds; None: unlimited.

    The names say where a person raises them.
    """

    cost: int | None = None
    runtime: int | None = None
    margin: int = 0
    cost_name: str = "spec.limits.maxCostUSD"
    runtime_name: str = "spec.limits.maxRuntime"
    runtime_reason: StopReason = StopReason.RUNTIME


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one attempt may use, offline too.

    `seconds`: per pod, from binding to death; None: unlimited. `usd`: micro-USD of the whole gang; None: no price or no limit.
    `reason`: why it will be stopped when it uses all of it; None: unlimited. `margin_seconds`: the trainer leaves this long
    before (TOLLGATE_STOP_MARGIN_SECONDS), 0 when the grace is enough.
    """

    seconds: int | None
    usd: int | None
    reason: StopReason | None
    grace_seconds: int
    margin_seconds: int = 0

    @property
    def stop_after_seconds(self) -> int | None:
        """TOLLGATE_STOP_AFTER_SECONDS: the launcher's process group is dead by then."""
        return self.seconds

    @property
    def pod_deadline_seconds(self) -> int | None:
        """activeDeadlineSeconds of the pod template: the kubelet's SIGTERM, so that with the grace the pod ends in time."""
        return None if self.seconds is None else self.seconds - self.grace_seconds

    def job_deadline_seconds(self, scheduling_timeout: int) -> int | None:
        """activeDeadlineSeconds of the Job, the backstop: reservation + scheduling timeout + grace."""
        return None if self.seconds is None else self.seconds + scheduling_timeout + self.grace_seconds


@dataclass(frozen=True, slots=True)
class Stop:
    """The attempt has to be stopped now."""

    reason: StopReason
    message: str


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """When the running attempt meets a limit: the instant to ask it to stop, and the instant at which the limit is used up."""

    stop_at: datetime
    exhausted_at: datetime
    reason: StopReason


def caps(limits: Limits, manifest: TrainingManifest, profile: ComputeProfileSpec, profile_name: str) -> Caps | Refusal:
    """The limits in force. spec.limits.maxCostUSD beats manifest.resources.max_budget_usd; neither is refused (LimitRequired)
    unless the profile allows unlimited runs. The margin defaults to min(30m, 10 % of maxRuntime).
    """
    raise NotImplementedError


def evaluation_caps(training: Caps, timeout: int) -> Caps:
    """What holds for the evaluation: the run's money, and the timeout over all attempts of the evaluation."""
    raise NotImplementedError


def evaluation_reserve(per_hour: int | None, timeout: int) -> int:
    """Micro-USD kept back from training, so that a run which spends its budget can still be judged; 0 with no price."""
    raise NotImplementedError


def grace_for(seconds: int | None) -> int:
    """SIGTERM to SIGKILL of an attempt that may use `seconds`: a fifth of it, at least 5 s, at most 120 s."""
    raise NotImplementedError


def reserve(
    limit: Caps,
    used: Spend,
    per_hour: int | None,
    pods: int,
    reserve_for_evaluation: int = 0,
    minimum_seconds: int = MINIMUM_SECONDS,
) -> Reservation | Refusal:
    """What the next attempt may use: what money and runtime leave, the smaller of the two, in whole seconds per pod.

    Args: used: ledger.committed() of all attempts so far (role "evaluate" for an evaluation, with evaluation_caps); per_hour:
    the rate reserved for one pod; reserve_for_evaluation: micro-USD that training must not touch (0 for an evaluation).
    A refusal's reason is BudgetExceeded, RuntimeExceeded or EvaluationTimeout; its message says how much to raise which limit.
    """
    raise NotImplementedError


def exhaustion(
    limit: Caps, attempt: Attempt, others: Spend, reserve_for_evaluation: int, now: datetime
) -> Exhaustion | None:
    """When this attempt, as its pods run now, meets the nearer limit; None when none is in sight (or nothing is bound and
    something is left). For an evaluation pass evaluation_caps, `others` of role "evaluate" and reserve 0.

    Args: attempt: the open one, with its charges; others: ledger.committed() of all attempts but this one.
    The requeue is due at `stop_at`; status shows `exhausted_at`.
    """
    raise NotImplementedError


def limit_reached(
    limit: Caps, attempt: Attempt, others: Spend, reserve_for_evaluation: int, now: datetime
) -> Stop | None:
    """Whether the attempt has to be stopped at `now`, and what to tell. The same arguments as exhaustion()."""
    raise NotImplementedError


def can_resume(
    stopped: Attempt,
    limit: Caps,
    used: Spend,
    per_hour: int | None,
    pods: int,
    reserve_for_evaluation: int = 0,
) -> Reservation | Refusal:
    """Whether a run that a limit stopped goes on: only if that limit was raised since (attempt.limitUSD, limitSeconds) and
    what is left is enough for an attempt. Money that a clean stop left over starts nothing by itself.
    """
    raise NotImplementedError
