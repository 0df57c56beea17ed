"""The plan of an attempt: kept from the first attempt, or made; told, written, and sharpened by what was measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tollgate.api.quantities import parse_usd
from tollgate.contract import Env
from tollgate.estimate import ADAM_BYTES, SAVE_BYTES_PER_SECOND, Estimate, Pace, estimate
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning import document
from tollgate.planning.choose import Choice, choose, resettled
from tollgate.planning.devices import Interval
from tollgate.planning.document import Belongs, Kept
from tollgate.planning.epoch import Arrange
from tollgate.planning.facts import Facts, Settings
from tollgate.planning.lengths import Lengths, lengths_of
from tollgate.planning.shapes import Shape
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.plan import stored
from tollgate_trainer.plan.arranging import arranger, of_order
from tollgate_trainer.plan.facts import labels_of, lengths_in, shape_for, whole_sizes
from tollgate_trainer.plan.hardware import device_of

if TYPE_CHECKING:
    import torch

    from tollgate_trainer.data import Documents
    from tollgate_trainer.data.order import Order
    from tollgate_trainer.plan.preflight import Findings
    from tollgate_trainer.tasks.protocol import Task
    from tollgate_trainer.tasks.samples import SampleSplits

CPU_UPDATE_BYTES_PER_SECOND = Interval(1e9, 10e9)
"""Assumed for AdamW on a CPU, small beside forward and backward."""


@dataclass(slots=True)
class Planning:
    """One process's part in the plan of an attempt. Rank 0 plans; the others are told the numbers."""

    session: Session
    device: torch.device
    kept: Kept | None = None
    facts: Facts | None = None
    choice: Choice | None = None
    found: Estimate | None = None
    unknown: str | None = None
    asked: TrainingManifest | None = None
    _shape: Shape | None = field(default=None)
    _trained: Settings | None = field(default=None)

    def manifest(self, documents: Documents, task: Task, tokenizer: Any, resumed: bool) -> TrainingManifest:
        """The manifest with the numbers of the plan; from here on the session has it too.

        Without `optimization_priority` it is the manifest as written. Raises: DatasetRefused, ModelRefused,
        OutputRefused (a plan.json that is none).
        """
        session = self.session
        self.asked = session.loaded.manifest
        told: tuple[Any, float | None] | None = None
        if session.attempt.leads:
            self.kept = stored.kept(session.attempt.output_root, self._belongs(), resumed)
            self._shape, self.unknown = shape_for(self.asked, session.attempt.dataset_root, tokenizer, task)
            if self.asked.optimization_priority != "none":
                sizes = whole_sizes(documents, task, tokenizer, self.asked)
                arrange = arranger(sizes, self.asked.reproducibility.seed)
                self._choose(self._facts(lengths_of(sizes.lengths, sizes.held_out), arrange, documents))
                assert self.choice is not None
                told = (self.choice.settings, self.kept.save_minutes if self.kept else None)
        told = session.agreement.from_first(told)
        if told is None:
            return self.asked
        effective = document.planned(self.asked, told[0], told[1])
        session.loaded = replace(session.loaded, manifest=effective)
        return effective

    def said(self, splits: SampleSplits, documents: Documents, order: Order) -> dict[str, Any]:
        """What the `plan` event tells besides the loop's numbers; in processes that do not lead, nothing.

        Args: order: of this training, whose batches may be others than those that were asked for: after an
        out-of-memory, on another number of processes, or where the model could not be packed.
        """
        if not self.session.attempt.leads or self.asked is None:
            return {}
        arrange = of_order(order, splits.validation.lengths)
        if self.facts is None:
            self._choose(self._facts(lengths_in(splits), arrange, documents))
        assert self.choice is not None
        assert self.facts is not None
        self.facts = replace(self.facts, arrange=arrange, packed=order.pack is not None)
        chosen = self.choice.settings
        self._trained = replace(chosen, micro_batch=order.micro_batch, accumulation=order.accumulation)
        # A later attempt starts from what was chosen, and halves that.
        self.choice = replace(resettled(self.asked, self.facts, self.choice, self._trained), settings=chosen)
        self._estimate(None)
        told: dict[str, Any] = {
            "profile": self.asked.optimization_priority,
            "kept_plan": self.kept is not None,
            "changes": list(self.choice.changes),
            "memory": dict(self.choice.memory.rows()) if self.choice.memory is not None else None,
            "memory_limit": self.choice.limit,
            "fits_memory": self.choice.fits,
            **self._times(),
        }
        if self.unknown is not None:
            told["unknown"] = self.unknown
        if self.choice.fits is False:
            near = "; ".join(self.choice.nearest) or "nothing smaller was found"
            self.session.say(
                "warning", message=f"by its estimate this run does not fit into memory; what would: {near}"
            )
        return told

    def measured(self, findings: Findings | None, trainable: int) -> float | None:
        """Take in what preflight measured, write plan.json, and answer every how many minutes to save (None: as asked).

        A kept plan stays as it was written, with the estimate of the first attempt.
        """
        session = self.session
        minutes: float | None = None
        if session.attempt.leads and self.asked is not None and self.facts is not None and self.choice is not None:
            if findings is not None and findings.step is not None:
                each = findings.step.per_token()
                update = Interval(0.0, 0.0)
                if not self.facts.device.gpu:
                    slow, quick = CPU_UPDATE_BYTES_PER_SECOND.low, CPU_UPDATE_BYTES_PER_SECOND.high
                    update = Interval(ADAM_BYTES * trainable / quick, ADAM_BYTES * trainable / slow)
                because = "measured: one step at the longest length before the first step"
                disk = Interval(0.5 * findings.disk, 1.5 * findings.disk)
                self._estimate(Pace(each, update, True, because), disk)
                session.say("forecast", source="preflight", **self._times())
            assert self.found is not None
            if self.kept is None:
                stored.write(
                    session.attempt.output_root,
                    document.document(self.asked, self.facts, self.choice, self.found, None, self._belongs()),
                )
            minutes = self.kept.save_minutes if self.kept is not None else self.found.preemption.every_minutes
        return session.agreement.from_first(minutes)  # type: ignore[no-any-return]

    def first_estimate(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """(hours, USD) that the first attempt expected, None where unknown."""
        if self.kept is not None:
            return self.kept.hours, self.kept.usd
        if self.found is None or self.found.hours is None:
            return None, None
        usd = self.found.usd_micro
        hours = (self.found.hours.low, self.found.hours.high)
        return hours, None if usd is None else (usd[0] / 1e6, usd[1] / 1e6)

    def nodes(self) -> int:
        """Machines of this attempt."""
        return self.facts.nodes if self.facts is not None else 1

    def asked_adapter(self) -> bool:
        """Whether only an adapter is trained."""
        return self.session.loaded.manifest.adapter.type != "none"

    # --- parts ------------------------------------------------------------------------------------------------------

    def _choose(self, facts: Facts) -> None:
        assert self.asked is not None
        self.facts = facts
        self.choice = choose(self.asked, facts)
        if self.kept is not None and self.asked.optimization_priority != "none":
            because = "the plan of this run's first attempt (plan.json) is kept"
            self.choice = replace(self.choice, settings=self.kept.chosen, changes=(because,))

    def _facts(self, lengths: Lengths, arrange: Arrange, documents: Documents) -> Facts:
        assert self.asked is not None
        world = self.session.attempt.world
        per_node = min(world, int(os.environ.get("LOCAL_WORLD_SIZE") or world))
        return Facts(
            lengths=lengths,
            shape=self._shape,
            device=device_of(self.device, per_node),
            arrange=arrange,
            nodes=max(1, world // per_node),
            processes_per_node=per_node,
            labels=labels_of(self.asked, documents),
        )

    def _estimate(self, pace: Pace | None, save_speed: Interval = SAVE_BYTES_PER_SECOND) -> None:
        assert self.asked is not None
        assert self.facts is not None
        assert self.choice is not None
        settings = self._trained or self.choice.settings
        self.found = estimate(self.asked, settings, self.facts, pace, usd_per_node_hour(), save_speed)

    def _times(self) -> dict[str, Any]:
        assert self.found is not None
        hours, usd, lost = self.found.hours, self.found.usd_micro, self.found.preemption
        return {
            "hours": None if hours is None else [hours.low, hours.high],
            "hours_because": self.found.because,
            "usd": None if usd is None else [usd[0] / 1e6, usd[1] / 1e6],
            "preemption_loses_minutes": lost.minutes,
            "preemption_loses_usd": None if lost.usd_micro is None else lost.usd_micro / 1e6,
        }

    def _belongs(self) -> Belongs:
        session = self.session
        return Belongs(
            uid=session.attempt.uid,
            manifest_digest=session.loaded.digest,
            dataset_digest=session.dataset_digest,
            world=session.attempt.world,
        )


def usd_per_node_hour() -> int | None:
    """Micro-USD of a node's hour, where whoever started the run said it; None: unknown."""
    text = os.environ.get(Env.USD_PER_NODE_HOUR)
    return parse_usd(text) if text else None
