"""The words of a process that leaves, whenever that is.

Imports nothing that is not there from the start: a signal comes in the midst of the long imports too, and what is half
imported can't be asked for.
"""

from __future__ import annotations

from tollgate.contract import LastWords, ModelRef, Outcome
from tollgate_trainer.lifecycle.goodput import State, rounded
from tollgate_trainer.lifecycle.session import Session


def stopped(session: Session) -> LastWords:
    """The words of a process that left the loop because it was asked to."""
    session.goodput.switch(State.STOP)
    reason = str(session.stop_reason())
    checkpoint = session.committed.path if session.committed else None
    session.say("stop", reason=reason, step=session.progress.step, checkpoint=checkpoint)
    return words(session, Outcome.STOPPED, reason)


def words(
    session: Session,
    outcome: Outcome,
    reason: str,
    model: ModelRef | None = None,
    metrics: dict[str, float] | None = None,
) -> LastWords:
    """What this process knows."""
    progress = session.progress
    step = progress.step if progress.step is not None else session.resumed_from
    return LastWords(
        outcome=outcome,
        reason=reason,
        step=step or 0,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        loss=progress.loss,
        checkpoint=session.committed,
        model=model,
        metrics=metrics or None,
        goodput_seconds=rounded(session.goodput.seconds()),
        resumed_from_step=session.resumed_from,
    )
