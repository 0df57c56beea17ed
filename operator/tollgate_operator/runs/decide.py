"""What to do next for one run: pure, total, and the same for the same facts.

First the status learns what the facts tell (observe, withdraw, admit), then the first rule that has an answer gives it.
Their order is the policy: a deletion beats a limit, a limit beats a restart, a restart beats progress.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

from tollgate.api.training_run import TrainingRunStatus
from tollgate_operator.decision import Decision
from tollgate_operator.runs.observing import observe
from tollgate_operator.runs.policies.acceptance import acceptance, admit
from tollgate_operator.runs.policies.beginning import beginning, suspended
from tollgate_operator.runs.policies.certainty import certainty
from tollgate_operator.runs.policies.creating import creating
from tollgate_operator.runs.policies.deletion import deletion
from tollgate_operator.runs.policies.evaluation import evaluation
from tollgate_operator.runs.policies.finished import finished
from tollgate_operator.runs.policies.gang import gang
from tollgate_operator.runs.policies.limits import limits
from tollgate_operator.runs.policies.readable import readable
from tollgate_operator.runs.policies.restart import restart
from tollgate_operator.runs.policies.running import running
from tollgate_operator.runs.policies.scheduling import scheduling
from tollgate_operator.runs.policies.stall import stall
from tollgate_operator.runs.policies.strays import strays
from tollgate_operator.runs.policies.waiting import waiting
from tollgate_operator.runs.settle import essence, settle
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import withdraw

Policy: TypeAlias = Callable[[Situation, datetime], Decision | None]

BEFORE_READING: Final[tuple[Policy, ...]] = (deletion, readable, strays)
"""Rules that look at what is stored: they need no readable spec, or act on what was booked and written."""

POLICIES: Final[tuple[Policy, ...]] = (
    certainty,
    finished,
    waiting,
    limits,
    gang,
    scheduling,
    stall,
    creating,
    running,
    suspended,
    acceptance,
    evaluation,
    restart,
    beginning,
)


def decide(situation: Situation, now: datetime) -> Decision:
    """The decision about one run. `now`: aware, in UTC."""
    for rule in BEFORE_READING:
        if (found := rule(situation, now)) is not None:
            return _worth_writing(situation, found)
    seen = admit(withdraw(observe(situation, now), now), now)
    for rule in POLICIES:
        if (found := rule(seen, now)) is not None:
            if found.look or found.status is None:
                return found
            return settle(situation, seen, found, now)
    return settle(situation, seen, Decision(status=seen.status), now)


def _worth_writing(situation: Situation, found: Decision) -> Decision:
    """Without a spec there are no figures to refresh: written is only what changed."""
    status = found.status
    if not isinstance(status, TrainingRunStatus) or essence(situation.status) != essence(status):
        return found
    return Decision(before=found.before, requeue_after=found.requeue_after)
