"""How an attempt ends well: the finished model, and its record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tollgate.contract import Files, LastWords, ModelRef, Outcome
from tollgate_trainer.lifecycle.goodput import State, rounded
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.parting import words
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.models.build import Built
from tollgate_trainer.models.finished import COMPLETED, OnBase, save
from tollgate_trainer.models.source import Source


def finish(loop: TrainingLoop, built: Built, tokenizer: Any, source: Source, exhausted: bool) -> LastWords:
    """Make the last weights the model, or the best ones where the manifest keeps the best.

    Args: exhausted: early stopping ended the training.
    Raises: Fenced, OSError.
    """
    session, plan = loop.session, loop.plan
    step = loop.state.global_step
    best, last = session.state.best, session.state.last_evaluation
    chosen, metrics = step, dict(last.metrics) if last is not None else {}
    if plan.tracks_best and best is not None and best.path is not None and best.step != step:
        loop.restore_best(best)
        chosen = best.step
        metrics = loop.evaluate()
    session.goodput.switch(State.SAVE)
    if session.progress.loss is not None:
        metrics["train_loss"] = session.progress.loss
    model = None
    # An adapter that is kept beside its base leaves the base where it lies; one on weights in no file is merged.
    merged = built.base_digest is None or (source.folder is None and source.hub_id is None)
    trained = loop.whole_model(frozen=merged)
    if session.attempt.leads:
        record = _record(loop, built, chosen, exhausted, metrics)
        session.lease.check()
        digest = save(
            trained,
            tokenizer,
            session.attempt.output_root,
            session.attempt.number,
            record,
            _base(built, session),
            loop.task.document(metrics),
        )
        loop.checkpoints.close()
        model = ModelRef(path=Files.MODEL, digest=digest)
    model = session.agreement.from_first(model)
    if loop.remote is not None:
        loop.remote.close()
    session.goodput.switch(State.STOP)
    session.say("end", step=step, total_steps=plan.total_steps, model=model.digest, chosen_step=chosen, metrics=metrics)
    return words(session, Outcome.COMPLETED, COMPLETED, model, metrics)


def _base(built: Built, session: Session) -> OnBase | None:
    """What the trained adapter belongs to, None where all weights were trained."""
    if built.base_digest is None:
        return None
    asked = session.loaded.manifest.model
    return OnBase(built.source, asked.base, built.base_digest, asked.quantization)


def _record(
    loop: TrainingLoop, built: Built, chosen: int, exhausted: bool, metrics: dict[str, float]
) -> dict[str, Any]:
    session, plan, attempt = loop.session, loop.plan, loop.session.attempt
    manifest = session.loaded.manifest
    step = loop.state.global_step
    return {
        "manifest_digest": session.loaded.digest,
        "dataset_digest": session.dataset_digest,
        "dataset": dict(session.dataset),
        "name": manifest.name,
        "run": attempt.run,
        "namespace": attempt.namespace,
        "uid": attempt.uid,
        "attempt": attempt.number,
        "step": step,
        "chosen_step": chosen,
        "total_steps": plan.total_steps,
        "stopped_early": exhausted,
        "epoch": step / plan.order.steps_per_epoch,
        "tokens": plan.order.tokens_until(step),
        "parameters": built.parameters,
        "trainable_parameters": built.trainable,
        "seed": manifest.reproducibility.seed,
        "resumed_from_step": session.resumed_from,
        "equality": _equality(session),
        "topology": session.state.topology,
        "base_digest": built.base_digest,
        "metrics": metrics,
        "goodput_seconds": rounded(session.run_seconds()),
        "plan": session.outlook or None,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _equality(session: Session) -> str:
    if session.resumed_from is None:
        return "uninterrupted"
    return "bit-equal" if session.exact else "statistical"
