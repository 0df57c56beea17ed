"""A trainer that answers but does not get on is restarted; one that does not answer is only said to be unknown."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.quantities import format_duration
from tollgate.api.training_run import Attempt
from tollgate.contract import FailureClass, StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.classify import failure
from tollgate_operator.runs.observing import progress_of
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import stop_attempt


def stall(situation: Situation, now: datetime) -> Decision | None:
    """Stop the attempt whose last progress is older than stallTimeout, or that made no first step in time."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    for due, message in deadlines(situation, attempt):
        if now >= due:
            noted = failure(FailureClass.STALL, StopReason.STALLED.value, message)
            return stop_attempt(situation, attempt, job, StopReason.STALLED, noted, now)
    return None


def deadlines(situation: Situation, attempt: Attempt) -> list[tuple[datetime, str]]:
    """When the attempt counts as stalled if nothing moves, and what to say then. Empty while scrapes fail.

    The trainer's clock is not trusted against ours: what counts is how old its progress was when it was scraped.
    """
    progress = progress_of(situation, attempt)
    if progress is None or not progress.ok:
        return []
    restart = situation.spec.restart
    found: list[tuple[datetime, str]] = []
    if attempt.first_step_time is None:
        started = [pod.started_at for pod in situation.pods_of(attempt) if pod.started_at is not None]
        if started:
            limit = restart.first_step_timeout
            message = f"no first step within {format_duration(limit)} (spec.restart.firstStepTimeout)"
            found.append((min(started) + timedelta(seconds=limit), message))
    if progress.last_progress is not None:
        limit = restart.stall_timeout
        where = f" at step {progress.step}" if progress.step is not None else ""
        message = f"no progress for {format_duration(limit)}{where} (spec.restart.stallTimeout)"
        found.append((progress.last_progress + timedelta(seconds=limit), message))
    return found
