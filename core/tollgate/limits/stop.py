"""How much an attempt may use, and when it has to stop.

**Why the cap holds** (promise 1: spend <= limit + rate x (poll + grace)). Let C be the cost limit, E the evaluation
reserve, U what all other attempts used or may still use (ledger.committed). An attempt is created only with a
reservation of S seconds per pod such that

    U + E + pods x ceil(rate x S / 3600) <= C,

at a rate that no pod's charge can exceed (prices.charged_rate). Each layer by itself ends each pod S seconds after that
layer began to count: the launcher kills its process group at S, the kubelet terminates at S - grace and kills at S.
They begin to count seconds after the binding, at which the charge starts; that gap is what they may add. The operator
asks for the end at T - grace, where T is the instant at which the charges of the pods that run reach C - U - E. It acts
at most `poll` late and the pods need at most `grace` to die, so they are gone by T + poll, and spend is at most
C - E + rate x poll. Lowering C below what is spent acts at once, and adds at most rate x (poll + grace) to it.

A pod lost from sight counts in U at its bound, so the sum over all attempts, also of those that nobody can see, never
passes C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.quantities import format_duration, format_usd
from tollgate.api.training_run import Attempt, Limits, PodCharge
from tollgate.contract import StopReason
from tollgate.limits.charges import HOUR_US, microseconds, run_microseconds
from tollgate.limits.ledger import Spend, spent
from tollgate.limits.refusal import Refusal
from tollgate.manifest.training_manifest import TrainingManifest

MINIMUM_SECONDS = 30  # a shorter attempt would pay for starting and train nothing
MAXIMUM_SECONDS = 10 * 365 * 24 * 3600  # activeDeadlineSeconds is an int32
MAX_STOP_MARGIN = 1800
MIN_GRACE = 5
MAX_GRACE = 120


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits in force: `cost` in micro-USD, `runtime` in seconds; None: unlimited. The names say where to raise
    them.

    `stop_margin`: seconds as given; None: the default. `runtime_reason`: what running out of time is called.
    """

    cost: int | None = None
    runtime: int | None = None
    stop_margin: int | None = None
    cost_name: str = "spec.limits.maxCostUSD"
    runtime_name: str = "spec.limits.maxRuntime"
    runtime_reason: StopReason = StopReason.RUNTIME

    @property
    def margin(self) -> int:
        """Seconds before the end of the runtime at which the trainer leaves by itself: min(30m, 10 %) by default."""
        if self.runtime is None:
            return 0
        return min(MAX_STOP_MARGIN, self.runtime // 10) if self.stop_margin is None else self.stop_margin


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one attempt may use, offline too.

    `seconds`: per pod, from binding to death; None: unlimited. `usd`: micro-USD of the whole gang; None: no price, or
    no end. `reason`: why it is stopped when it uses all of it; None: unlimited. `margin_seconds`: the trainer leaves so
    long before the end (TOLLGATE_STOP_MARGIN_SECONDS); 0 when the grace is enough.
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
        """The pod template's activeDeadlineSeconds: the kubelet's SIGTERM, so that the pod is dead in time."""
        return None if self.seconds is None else self.seconds - self.grace_seconds

    def job_deadline_seconds(self, scheduling_timeout: int) -> int | None:
        """The Job's activeDeadlineSeconds, the backstop: reservation + scheduling timeout + grace."""
        return None if self.seconds is None else self.seconds + scheduling_timeout + self.grace_seconds


@dataclass(frozen=True, slots=True)
class Stop:
    """The attempt has to be stopped now."""

    reason: StopReason
    message: str


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """When the running attempt meets a limit: when to ask it to stop, and when the limit is used up."""

    stop_at: datetime
    exhausted_at: datetime
    reason: StopReason


def caps(limits: Limits, manifest: TrainingManifest, profile: ComputeProfileSpec, profile_name: str) -> Caps | Refusal:
    """The limits in force.

    spec.limits.maxCostUSD beats manifest.resources.max_budget_usd; with neither the run is refused (LimitRequired)
    unless the profile allows unlimited runs. A stop margin that leaves no time is refused (InvalidLimits).
    """
    cost, name = limits.max_cost_usd, "spec.limits.maxCostUSD"
    if cost is None and manifest.resources.max_budget_usd is not None:
        cost, name = manifest.resources.max_budget_usd, "manifest.resources.max_budget_usd"
    if cost is None and not profile.allow_unlimited:
        return Refusal(
            "LimitRequired",
            'the run has no cost limit; set spec.limits.maxCostUSD (such as "180") or '
            f"manifest.resources.max_budget_usd. Profile {profile_name} does not allow unlimited runs",
        )
    if limits.max_runtime is not None and limits.stop_margin is not None and limits.stop_margin >= limits.max_runtime:
        return Refusal(
            "InvalidLimits",
            f"spec.limits.stopMargin {format_duration(limits.stop_margin)} is not shorter than "
            f"maxRuntime {format_duration(limits.max_runtime)}; make it shorter, or leave it out",
        )
    return Caps(cost, limits.max_runtime, limits.stop_margin, name)


def evaluation_caps(training: Caps, timeout: int) -> Caps:
    """What holds for the evaluation: the run's money, and `timeout` seconds over all of its attempts."""
    return replace(
        training,
        runtime=timeout,
        stop_margin=0,
        runtime_name="spec.evaluation.timeout",
        runtime_reason=StopReason.EVALUATION_TIMEOUT,
    )


def evaluation_reserve(per_hour: int | None, timeout: int, pods: int = 1) -> int:
    """Micro-USD kept back from training, so that a run which spends its budget can still be judged.

    0 when the evaluation's price is unknown, which only HoursOnly admits.
    """
    return 0 if per_hour is None else _gang_cost(per_hour, timeout, pods)


def grace_for(seconds: int | None) -> int:
    """SIGTERM to SIGKILL of an attempt that may use `seconds`: a fifth of it, at least 5 s, at most 120 s.

    A fifth, so that a demo of a minute keeps most of its minute; 120 s are enough to save what is worth saving, as the
    trainer leaves by itself before, when it knows that a save takes longer.
    """
    return MAX_GRACE if seconds is None else max(MIN_GRACE, min(MAX_GRACE, seconds // 5))


def reserve(
    limit: Caps,
    used: Spend,
    per_hour: int | None,
    pods: int,
    reserve_for_evaluation: int = 0,
    minimum_seconds: int = MINIMUM_SECONDS,
) -> Reservation | Refusal:
    """What the next attempt may use: what money and runtime leave, the smaller of the two, in whole seconds per pod.

    `used`: ledger.committed() of all attempts so far (role "evaluate" for an evaluation, with evaluation_caps).
    `per_hour`: the rate reserved for one pod in micro-USD; `reserve_for_evaluation`: micro-USD that training must not
    touch (0 for an evaluation). A refusal's reason is BudgetExceeded or the limit's runtime_reason; its message says to
    which amount the limit has to be raised. Pods whose price nobody knew (HoursOnly) count by their time only.
    """
    money = _seconds_of_money(limit, used, per_hour, pods, reserve_for_evaluation)
    time = None if limit.runtime is None else int(limit.runtime - used.run_seconds)
    seconds = min(s for s in (money, time, MAXIMUM_SECONDS) if s is not None)
    grace = grace_for(seconds)
    minimum = max(minimum_seconds, 2 * MIN_GRACE)
    needed = minimum - grace_for(minimum)
    if money is not None and (money < minimum or money - grace < needed):
        return _budget_refusal(limit, used, per_hour, pods, reserve_for_evaluation, money, minimum)
    if time is not None and (time < minimum or time - max(limit.margin, grace) < needed):
        return _runtime_refusal(limit, used, time, minimum, needed)
    if money is None and time is None:
        return Reservation(None, None, None, grace_for(None))
    by_time = time is not None and (money is None or time - max(limit.margin, grace) <= money - grace)
    margin = seconds - (time - limit.margin) if by_time and time is not None else 0
    return Reservation(
        seconds=seconds,
        usd=None if per_hour is None else _gang_cost(per_hour, seconds, pods),
        reason=limit.runtime_reason if by_time else StopReason.BUDGET,
        grace_seconds=grace,
        margin_seconds=margin if margin > grace else 0,
    )


def exhaustion(
    limit: Caps, attempt: Attempt, others: Spend, reserve_for_evaluation: int, now: datetime
) -> Exhaustion | None:
    """When this attempt, as its pods run now, meets the nearer limit; None when none is in sight.

    `attempt`: the open one, with its charges; `others`: ledger.committed() of all attempts but this one. For an
    evaluation pass evaluation_caps, `others` of role "evaluate" and reserve 0. The requeue is due at `stop_at`; the
    status shows `exhausted_at`. Nothing bound and a limit already passed: now.
    """
    pods = attempt.pods or []
    grace = timedelta(
        seconds=grace_for(attempt.reserved_seconds) if attempt.grace_seconds is None else attempt.grace_seconds
    )
    found = [
        (_money_out(limit, pods, others, reserve_for_evaluation, now), StopReason.BUDGET),
        (_time_out(limit, pods, others, now), limit.runtime_reason),
    ]
    instants = [(at, reason) for at, reason in found if at is not None]
    if not instants:
        return None
    at, reason = min(instants, key=lambda pair: pair[0])
    return Exhaustion(at - grace, at, reason)


def limit_reached(
    limit: Caps, attempt: Attempt, others: Spend, reserve_for_evaluation: int, now: datetime
) -> Stop | None:
    """Whether the attempt has to be stopped at `now`, and what to tell. The same arguments as exhaustion()."""
    end = exhaustion(limit, attempt, others, reserve_for_evaluation, now)
    if end is None or now < end.stop_at:
        return None
    own = spent([attempt], now, role=attempt.role)
    if end.reason is StopReason.BUDGET and limit.cost is not None:
        kept = f", {format_usd(reserve_for_evaluation)} USD kept for the evaluation" if reserve_for_evaluation else ""
        return Stop(
            end.reason,
            f"{format_usd(others.micro + own.micro)} of {format_usd(limit.cost)} USD are used{kept}; "
            f"raise {limit.cost_name} to go on",
        )
    return Stop(
        end.reason,
        f"{format_duration(int(others.run_seconds + own.run_seconds))} of {format_duration(limit.runtime or 0)} "
        f"are used; raise {limit.runtime_name} to go on",
    )


def can_resume(
    stopped: Attempt,
    limit: Caps,
    used: Spend,
    per_hour: int | None,
    pods: int,
    reserve_for_evaluation: int = 0,
) -> Reservation | Refusal:
    """Whether a run that a limit stopped goes on, and with what.

    Only if the limit that stopped it was raised since (attempt.limitUSD, limitSeconds) and what is left is enough for
    an attempt. Money that a clean stop left over starts nothing by itself, or the run would stop and start for ever.
    """
    if stopped.stop_reason is StopReason.BUDGET and not _raised(limit.cost, stopped.limit_usd):
        return Refusal(
            StopReason.BUDGET.value,
            f"stopped at {limit.cost_name} {format_usd(limit.cost or 0)} USD; raise it to go on",
        )
    if stopped.stop_reason is limit.runtime_reason and not _raised(limit.runtime, stopped.limit_seconds):
        return Refusal(
            limit.runtime_reason.value,
            f"stopped at {limit.runtime_name} {format_duration(limit.runtime or 0)}; raise it to go on",
        )
    return reserve(limit, used, per_hour, pods, reserve_for_evaluation)


def _raised(now: int | None, then: int | None) -> bool:
    return now is None or then is None or now > then


def _gang_cost(per_hour: int, seconds: int, pods: int) -> int:
    return pods * -(-per_hour * seconds // 3600)


def _seconds_of_money(limit: Caps, used: Spend, per_hour: int | None, pods: int, reserved: int) -> int | None:
    """The most seconds per pod whose cost stays within what is left; None: money sets no end; negative: less than
    nothing.
    """
    if limit.cost is None:
        return None
    left = limit.cost - used.micro - reserved
    if left < 0:
        return -1
    # ceil(r s / 3600) <= a  is the same as  s <= 3600 a / r  for whole s.
    return None if not per_hour else 3600 * (left // pods) // per_hour


def _budget_refusal(
    limit: Caps, used: Spend, per_hour: int | None, pods: int, reserved: int, seconds: int, minimum: int
) -> Refusal:
    needed = used.micro + reserved + _gang_cost(per_hour or 0, minimum, pods)
    kept = f", {format_usd(reserved)} USD are kept for the evaluation" if reserved else ""
    buys = f"what is left buys {seconds} s" if seconds > 0 else "nothing is left"
    return Refusal(
        StopReason.BUDGET.value,
        f"{limit.cost_name} is {format_usd(limit.cost or 0)} USD: {format_usd(used.micro)} USD are used"
        f"{kept}, and {buys}; an attempt needs at least {minimum} s. Raise it to {format_usd(needed)} USD or more",
    )


def _runtime_refusal(limit: Caps, used: Spend, left: int, minimum: int, needed: int) -> Refusal:
    runtime = limit.runtime or 0
    while (left + runtime - (limit.runtime or 0)) - max(replace(limit, runtime=runtime).margin, MAX_GRACE) < needed:
        runtime += 60
    return Refusal(
        limit.runtime_reason.value,
        f"{limit.runtime_name} is {format_duration(limit.runtime or 0)}: "
        f"{format_duration(int(used.run_seconds))} are used, it stops {format_duration(limit.margin)} before the end, "
        f"and an attempt needs at least {minimum} s. Raise it to {format_duration(runtime)} or more",
    )


def _money_out(limit: Caps, pods: Sequence[PodCharge], others: Spend, reserved: int, now: datetime) -> datetime | None:
    """The instant at which the charges reach what this attempt may spend, by their rates now; rounded down."""
    if limit.cost is None:
        return None
    left = limit.cost - others.micro - reserved - sum(pod.charge_usd or 0 for pod in pods if pod.end is not None)
    running = [
        (pod.start, pod.per_hour_usd) for pod in pods if pod.end is None and pod.start is not None and pod.per_hour_usd
    ]
    if not running:
        return now if left < 0 else None
    # Each open charge is rounded up by less than one micro-USD; without these the rounded sum stays within the limit.
    left -= len(running)
    zero = min(start for start, _ in running)
    shifted = sum(rate * microseconds(zero, start) for start, rate in running)
    lasts = (left * HOUR_US + shifted) // sum(rate for _, rate in running)
    if lasts > MAXIMUM_SECONDS * 1_000_000:
        return None
    return zero + timedelta(microseconds=max(0, lasts))


def _time_out(limit: Caps, pods: Sequence[PodCharge], others: Spend, now: datetime) -> datetime | None:
    if limit.runtime is None:
        return None
    left = timedelta(seconds=limit.runtime - others.run_seconds) - timedelta(microseconds=run_microseconds(pods, now))
    if any(pod.start is not None and pod.end is None for pod in pods):
        return now + left
    return now if left < timedelta(0) else None
