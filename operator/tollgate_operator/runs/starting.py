"""The next attempt: its reservation and its intent, then its Job.

Intent before action: the number stands in the status before the Job is created, and the Job's name follows from it. So
whoever comes back after a crash finds either no intent, or an intent without a Job, or the Job itself.
"""

from __future__ import annotations

from datetime import datetime

from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, ConditionType, Cost, Phase, TrainingRunStatus
from tollgate.contract import MAX_REPLANS, Role, StopReason
from tollgate.gates.verdict import metrics_asked, strictest_confidence
from tollgate.limits.refusal import Refusal
from tollgate.limits.stop import Reservation, can_resume, grace_for, reserve
from tollgate_operator.decision import Action, CreateJob, Decision, EnsureRendezvousService
from tollgate_operator.facts import PodFacts
from tollgate_operator.runs import render
from tollgate_operator.runs.admission import is_over
from tollgate_operator.runs.classify import LIMIT_STOPS
from tollgate_operator.runs.counting import count
from tollgate_operator.runs.ledgering import lost_with_node
from tollgate_operator.runs.names import folder_path
from tollgate_operator.runs.situation import Situation, with_attempt
from tollgate_operator.runs.status import Told, tell
from tollgate_operator.runs.stopping import end_job
from tollgate_operator.runs.terms import Terms, evaluation_of, terms, used_by_others
from tollgate_operator.runs.waits import moment, queued

_LOOK_AGAIN = 5.0


def reservation(situation: Situation, agreed: Terms, now: datetime) -> Reservation | Refusal:
    """What the next attempt of that role may use, or which limit has to be raised."""
    used = used_by_others(situation, None, agreed.role.value, now)
    last = situation.last(agreed.role)
    if agreed.role is Role.TRAIN and last is not None and last.stop_reason in LIMIT_STOPS and last.outcome == "Stopped":
        return can_resume(last, agreed.caps, used, agreed.rate.per_hour, agreed.nodes, agreed.evaluation_reserve)
    return reserve(agreed.caps, used, agreed.rate.per_hour, agreed.nodes, agreed.evaluation_reserve)


def start(situation: Situation, agreed: Terms, reserved: Reservation, now: datetime) -> Decision:
    """The intent of the next attempt, and its Job after that. Only with everything asked live."""
    last = situation.last(agreed.role)
    known = situation.status.attempt if agreed.role is Role.TRAIN else 0
    attempt = Attempt(
        number=max(known, last.number if last else 0) + 1,
        role=agreed.role.value,
        intent_time=now,
        reserved_usd=None if reserved.usd is None else Usd(reserved.usd),
        reserved_seconds=reserved.seconds,
        grace_seconds=reserved.grace_seconds,
        margin_seconds=reserved.margin_seconds or None,
        reserved_by=reserved.reason,
        per_hour_usd=None if agreed.rate.per_hour is None else Usd(agreed.rate.per_hour),
        limit_usd=None if agreed.caps.cost is None else Usd(agreed.caps.cost),
        limit_seconds=agreed.caps.runtime,
    )
    status = with_attempt(_with_cost(situation.status, agreed, now), attempt)
    if agreed.role is Role.TRAIN:
        status = status.model_copy(update={"attempt": attempt.number})
    told = situation.with_status(status)
    return Decision(status=_started(told, agreed, now), after=creation(told, attempt, agreed))


def creation(situation: Situation, attempt: Attempt, agreed: Terms) -> tuple[Action, ...]:
    """What makes the attempt's Job."""
    order = order_of(situation, attempt, agreed)
    key = situation.run.key
    job = CreateJob(key.namespace, order.name, situation.run.uid, render.job(order))
    return (EnsureRendezvousService(key.namespace), job) if order.nodes > 1 else (job,)


def order_of(situation: Situation, attempt: Attempt, agreed: Terms) -> render.Order:
    """The order of an attempt, by its intent and the terms as they are now."""
    if situation.manifest is None:
        raise AssertionError("nothing is ordered before its manifest was accepted")
    spec, run = situation.spec, situation.run
    wanted = evaluation_of(spec, situation.manifest.manifest)
    policy = situation.policy.spec if situation.policy else None
    evaluating = attempt.role == "evaluate"
    return render.Order(
        namespace=run.key.namespace,
        run=run.key.name,
        uid=run.uid,
        role=agreed.role,
        number=attempt.number,
        manifest=situation.manifest.canonical.decode(),
        manifest_digest=situation.manifest.digest,
        storage=spec.storage,
        profile=agreed.profile,
        nodes=agreed.nodes,
        gpus=agreed.gpus,
        processes=agreed.processes,
        reservation=Reservation(
            attempt.reserved_seconds,
            attempt.reserved_usd,
            attempt.reserved_by,
            grace_for(attempt.reserved_seconds) if attempt.grace_seconds is None else attempt.grace_seconds,
            attempt.margin_seconds or 0,
        ),
        scheduling_timeout=spec.restart.scheduling_timeout,
        queue=situation.queue,
        take_over=takes_over(situation),
        fresh=spec.restart.fresh,
        replans=min(count(situation.status).out_of_memory, MAX_REPLANS),
        suites=tuple(wanted.suites or ()) if evaluating else (),
        confidence=strictest_confidence(policy) if evaluating and policy is not None else None,
        gated=metrics_asked(policy) if evaluating and policy is not None else (),
        model_digest=situation.status.model.digest if evaluating and situation.status.model else None,
        per_hour_usd=attempt.per_hour_usd,
        baseline=baseline_folder(situation) if evaluating else None,
    )


def baseline_folder(situation: Situation) -> str | None:
    """Where the baseline's finished model can be read by the evaluation pod: below the same output claim.

    None without a baseline, without its model, and on another claim; then the gate compares the two evaluations.
    """
    baseline = situation.baseline
    if baseline is None or baseline.spec is None or baseline.status.model is None:
        return None
    theirs = baseline.spec.storage.output
    same = theirs.claim_name == situation.spec.storage.output.claim_name
    return folder_path(theirs) if same and baseline.key.name != situation.run.key.name else None


def takes_over(situation: Situation) -> bool:
    """Whether every other run on this output folder is gone or over, and no pod of another run writes there."""
    if situation.foreign_pods is None or any(not pod.over for pod in situation.foreign_pods):
        return False
    return all(is_over(run) for run in situation.neighbours)


def held_up(situation: Situation, now: datetime) -> Decision | None:
    """Why nothing can be started yet: an older Job could still start, or a pod still writes. None: nothing holds it up.

    An older Job is ended after the status that books it was written.
    """
    if old := situation.leftovers:
        ends = tuple(end_job(job, StopReason.GANG) for job in old)
        return Decision(status=situation.status, after=ends, requeue_after=1.0)
    pod = still_there(situation, now)
    return wait_for(pod, situation, now) if pod is not None else None


def still_there(situation: Situation, now: datetime) -> PodFacts | None:
    """A pod that may still write into the output folder, of an older attempt or of another run; None: there is none.

    A pod that is presumed lost with its node does not hold up the next attempt: its money is booked at its bound, and
    the fence keeps it from committing.
    """
    current = situation.current
    mine = {pod.uid for pod in situation.pods_of(current)} if current else set()
    own = [pod for pod in situation.pods if pod.uid not in mine]
    others = situation.foreign_pods or ()
    return next((p for p in (*own, *others) if not p.over and not lost_with_node(situation, p, now)), None)


def wait_for(pod: PodFacts, situation: Situation, now: datetime) -> Decision:
    """Nothing is started while that pod lives."""
    whose = f"run {pod.run}" if pod.run else "another run"
    message = f"waits until pod {pod.name} of {whose} has ended: it may still write into the output folder"
    phase = situation.status.phase or Phase.PENDING
    told = [Told(ConditionType.ADMITTED, "False", "OutputStillWritten", message)]
    return Decision(status=tell(situation, now, phase, message, told), requeue_after=_LOOK_AGAIN)


def agreed_terms(situation: Situation, attempt: Attempt) -> Terms | Refusal:
    """The terms for the Job of an intent that was written before."""
    return terms(situation, Role(attempt.role))


def _with_cost(status: TrainingRunStatus, agreed: Terms, now: datetime) -> TrainingRunStatus:
    old = status.cost or Cost(spent_usd=Usd(0))
    cost = old.model_copy(
        update={
            "limit_usd": old.limit_usd if status.cost else None if agreed.caps.cost is None else Usd(agreed.caps.cost),
            "evaluation_reserve_usd": Usd(agreed.evaluation_reserve) if agreed.evaluation_reserve else None,
            "price": agreed.rate.status(now),
        }
    )
    return status.model_copy(update={"cost": cost})


def _started(situation: Situation, agreed: Terms, now: datetime) -> TrainingRunStatus:
    queue, attempt = situation.queue, situation.current
    waits = queued(situation, attempt, None) if attempt is not None else ""
    admitted = (
        Told(ConditionType.ADMITTED, "True", "NoQueue")
        if queue is None
        else Told(ConditionType.ADMITTED, "False", "Queued", waits)
    )
    conditions = [admitted]
    if situation.holds(ConditionType.STOPPED):
        conditions.append(Told(ConditionType.STOPPED, "False", "WentOn"))
    if agreed.role is Role.EVALUATE:
        return tell(situation, now, Phase.EVALUATING, f"the evaluation starts at {moment(now)}", conditions)
    conditions.append(Told(ConditionType.WITHIN_BUDGET, "True", "Reserved"))
    phase = Phase.PENDING if queue is None else Phase.QUEUED
    again = f"attempt {situation.status.attempt} " if situation.status.attempt > 1 else ""
    nodes = "a node" if agreed.nodes == 1 else f"{agreed.nodes} nodes"
    message = f"{again}{waits}" if queue else f"{again}waits since {moment(now)} for {nodes}"
    return tell(situation, now, phase, message, conditions)
