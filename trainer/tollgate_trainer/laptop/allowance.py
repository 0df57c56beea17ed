"""What a run on this machine may use: the rules of the cluster, with a price that the person gives."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from tollgate.api.quantities import format_usd, parse_duration, parse_usd
from tollgate.contract import Env, Role
from tollgate.limits.ledger import Spend
from tollgate.limits.refusal import Refusal
from tollgate.limits.stop import Caps, Reservation, grace_for, reserve
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer import durable
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.stopwatch import Segment

PRICE = "logs/price.json"  # what the machine of the run costs, for the report and for later evaluations


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limits of the run over all its attempts. per_hour: micro-USD of this machine, None when nobody said."""

    caps: Caps
    per_hour: int | None
    notice: str = ""

    @classmethod
    def parse(
        cls, usd_per_hour: str | None, max_cost: str | None, max_runtime: str | None, manifest: TrainingManifest
    ) -> Allowance:
        """From the options as they were typed.

        Raises: LaptopError: an amount or a duration that is none, or a cost limit without a price.
        """
        per_hour = price(usd_per_hour)
        cost = _parsed("--max-cost", max_cost, parse_usd)
        runtime = _parsed("--max-runtime", max_runtime, parse_duration)
        if cost is not None and per_hour is None:
            raise LaptopError("--max-cost needs a price: say what this machine costs with --usd-per-hour")
        notice, name = "", "--max-cost"
        budget = manifest.resources.max_budget_usd
        if cost is None and budget is not None:
            if per_hour is None:
                shown = format_usd(budget)
                notice = f"the manifest's max_budget_usd of {shown} USD is not held: give a price with --usd-per-hour"
            else:
                cost, name = budget, "--max-cost"  # micro-USD already
        return cls(Caps(cost, runtime, None, name, "--max-runtime"), per_hour, notice)

    def reservation(self, segments: Iterable[Segment], role: Role) -> Reservation:
        """What the next attempt may use. An evaluation may use what money is left; time limits are the training's.

        Raises: LaptopError when nothing is left, with the amount to raise the limit to.
        """
        used = self.spend(segments)
        caps = self.caps if role is Role.TRAIN else Caps(self.caps.cost, None, None, self.caps.cost_name)
        answer = reserve(caps, used, self.per_hour, pods=1)
        if isinstance(answer, Refusal):
            raise LaptopError(answer.message)
        return answer

    def spend(self, segments: Iterable[Segment]) -> Spend:
        """Time of all attempts, and its price; every second of the launcher counts."""
        seconds = sum(segment.seconds for segment in segments)
        return Spend(self.cost(seconds) or 0, 0, seconds)

    def cost(self, seconds: float) -> int | None:
        """Micro-USD of so many seconds, rounded up; None without a price."""
        return cost(seconds, self.per_hour)

    def words(self) -> str:
        """The limits for people; "" when there are none."""
        parts = []
        if self.per_hour is not None:
            parts.append(f"{format_usd(self.per_hour)} USD an hour")
        if self.caps.cost is not None:
            parts.append(f"at most {format_usd(self.caps.cost)} USD")
        if self.caps.runtime is not None:
            parts.append(f"at most {self.caps.runtime} s")
        return ", ".join(parts)


def price(usd_per_hour: str | None) -> int | None:
    """Micro-USD of an hour as it was typed, None when it was not. Raises: LaptopError."""
    return _parsed("--usd-per-hour", usd_per_hour, parse_usd)


def cost(seconds: float, per_hour: int | None) -> int | None:
    """Micro-USD of so many seconds, rounded up; None without a price."""
    return None if per_hour is None else math.ceil(Decimal(per_hour) * Decimal(seconds) / 3600)


def priced(allowed: Allowance, output: Path) -> Allowance:
    """With the price of the machine, which is noted beside the run; where none is given, the one that was noted before.

    The noted price tells what time has cost; it never sets a limit.
    """
    note = output / PRICE
    if allowed.per_hour is not None:
        if note.parent.is_dir():
            durable.write(note, json.dumps({"usdPerHour": format_usd(allowed.per_hour)}).encode() + b"\n")
        return allowed
    try:
        return replace(allowed, per_hour=parse_usd(json.loads(note.read_text(encoding="utf-8"))["usdPerHour"]))
    except (OSError, ValueError, KeyError, TypeError):
        return allowed  # nobody ever said


def environment(reservation: Reservation) -> dict[str, str]:
    """The launcher's limits as the operator gives them."""
    grace = reservation.grace_seconds if reservation.seconds is not None else min(30, grace_for(None))
    values = {str(Env.GRACE_SECONDS): str(grace)}
    if reservation.seconds is not None and reservation.reason is not None:
        values[Env.STOP_AFTER_SECONDS] = str(reservation.seconds)
        values[Env.STOP_REASON] = reservation.reason.value
        if reservation.margin_seconds:
            values[Env.STOP_MARGIN_SECONDS] = str(reservation.margin_seconds)
    return values


def _parsed(name: str, text: str | None, parse: object) -> int | None:
    if text is None:
        return None
    try:
        return int(parse(text))  # type: ignore[operator]
    except ValueError as error:
        raise LaptopError(f"{name}: {error}") from error
