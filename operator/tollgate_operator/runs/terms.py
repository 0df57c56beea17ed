"""On which terms an attempt runs: where, with how many processes, under which caps and at which price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.training_run import Attempt, Compute, Evaluation, TrainingRunSpec
from tollgate.contract import Role
from tollgate.limits.ledger import Folded, RunRole, Spend, committed
from tollgate.limits.prices import PodRate, reservation_rate
from tollgate.limits.refusal import Refusal
from tollgate.limits.stop import Caps, caps, evaluation_caps, evaluation_reserve
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import LayoutError, layout
from tollgate_operator.facts import ProfileFacts
from tollgate_operator.runs.situation import Situation

_ANYTHING = ComputeProfileSpec(image="unknown", allow_unlimited=True)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one role. `gpus`: per pod, resolved; `processes`: per pod; `rate`: of one pod."""

    role: Role
    profile_name: str
    profile: ComputeProfileSpec
    nodes: int
    gpus: int
    processes: int
    caps: Caps
    rate: PodRate
    evaluation_reserve: int


def terms(situation: Situation, role: Role) -> Terms | Refusal:
    """The terms of the next attempt of that role, or what is wrong with them."""
    if situation.manifest is None:
        return Refusal("ManifestRefused", situation.manifest_problem)
    return (
        training_terms(situation, situation.manifest.manifest)
        if role is Role.TRAIN
        else evaluation_terms(situation, situation.manifest.manifest)
    )


def training_terms(situation: Situation, manifest: TrainingManifest) -> Terms | Refusal:
    """Of training. The evaluation's price is part of it: training must leave enough money to be judged."""
    spec = situation.spec
    found = training_profile(situation.profiles, spec, manifest)
    if isinstance(found, Refusal):
        return found
    name, profile = found
    compute = spec.compute or Compute(profile=name)
    limit = caps(spec.limits, manifest, profile, name)
    if isinstance(limit, Refusal):
        return limit
    base = _terms(situation, Role.TRAIN, name, profile, compute.nodes, compute.gpus_per_node, limit)
    if isinstance(base, Refusal):
        return base
    try:
        plan = layout(manifest, base.nodes, base.gpus)
    except LayoutError as error:
        return Refusal("InvalidCompute", str(error))
    reserve = 0
    wanted = evaluation_of(spec, manifest)
    if wanted.enabled:
        judged = evaluation_terms(situation, manifest)
        if isinstance(judged, Refusal):
            return Refusal(judged.reason, f"the evaluation: {judged.message}")
        reserve = evaluation_reserve(judged.rate.per_hour, wanted.timeout)
    return Terms(Role.TRAIN, name, profile, base.nodes, base.gpus, plan.processes_per_node, limit, base.rate, reserve)


def evaluation_terms(situation: Situation, manifest: TrainingManifest) -> Terms | Refusal:
    """Of the evaluation: one pod, on its own profile or on the training's."""
    spec = situation.spec
    wanted = evaluation_of(spec, manifest)
    trained = training_profile(situation.profiles, spec, manifest)
    if wanted.profile is None:
        found, gpus = trained, spec.compute.gpus_per_node if spec.compute else None
    else:
        found, gpus = named_profile(situation.profiles, wanted.profile, "spec.evaluation.profile"), None
    if isinstance(found, Refusal):
        return found
    if isinstance(trained, Refusal):
        return trained
    limit = caps(spec.limits, manifest, trained[1], trained[0])
    if isinstance(limit, Refusal):
        return limit
    return _terms(situation, Role.EVALUATE, *found, 1, gpus, evaluation_caps(limit, wanted.timeout))


def _terms(
    situation: Situation,
    role: Role,
    name: str,
    profile: ComputeProfileSpec,
    nodes: int,
    gpus_asked: int | None,
    limit: Caps,
) -> Terms | Refusal:
    limits = situation.spec.limits
    rate = reservation_rate(
        name,
        profile,
        gpus_asked,
        situation.nodes.values(),
        limits.unknown_price,
        max_runtime=limits.max_runtime,
        price_book=situation.price_book,
    )
    if isinstance(rate, Refusal):
        return rate
    most = profile.resource.per_node if profile.resource else 0
    gpus = most if gpus_asked is None else gpus_asked
    return Terms(role, name, profile, nodes, gpus, 1, limit, rate, 0)


def training_profile(
    profiles: Mapping[str, ProfileFacts], spec: TrainingRunSpec, manifest: TrainingManifest
) -> tuple[str, ComputeProfileSpec] | Refusal:
    """The profile that the run names, or the only one that is the default for its compute_target."""
    if spec.compute is not None:
        return named_profile(profiles, spec.compute.profile, "spec.compute.profile")
    target = manifest.compute_target
    fitting = sorted(name for name, p in profiles.items() if p.spec is not None and target in p.spec.default_for)
    if len(fitting) == 1:
        return named_profile(profiles, fitting[0], "spec.compute.profile")
    have = f"several are ({', '.join(fitting)})" if fitting else "none is"
    return Refusal(
        "ProfileUnknown",
        f"spec.compute is absent, and of the ComputeProfiles {have} the default for compute_target {target!r}; "
        f"set spec.compute.profile to one of: {_names(profiles)}",
    )


def named_profile(
    profiles: Mapping[str, ProfileFacts], name: str, field: str
) -> tuple[str, ComputeProfileSpec] | Refusal:
    """The ComputeProfile of that name."""
    found = profiles.get(name)
    if found is None:
        return Refusal(
            "ProfileUnknown", f"{field} is {name!r}, and there is no such ComputeProfile; there are: {_names(profiles)}"
        )
    if found.spec is None:
        return Refusal(
            "ProfileUnknown", f"ComputeProfile {name} cannot be read ({found.problem}); the platform admin mends it"
        )
    return name, found.spec


def evaluation_of(spec: TrainingRunSpec, manifest: TrainingManifest) -> Evaluation:
    """The evaluation that is asked for: spec.evaluation, else the manifest's. What is measured is the manifest's where
    the spec names no suites, so that a timeout or a profile for it changes nothing else.
    """
    asked = spec.evaluation or Evaluation(enabled=manifest.evaluation.enabled)
    return asked.model_copy(update={"suites": asked.suites or list(manifest.suites)})


def caps_in_force(situation: Situation, attempt: Attempt) -> tuple[Caps, int]:
    """The caps of a going attempt and the micro-USD that it must leave for the evaluation, by the spec as it is now.

    Where the spec as it is now would be refused (its cost limit was taken out, its profile is gone), the caps that the
    attempt was reserved under stay in force: a limit never ends by being made unreadable.
    """
    role = Role(attempt.role)
    manifest = situation.manifest.manifest if situation.manifest else None
    now = terms(situation, role)
    if isinstance(now, Terms):
        return now.caps, now.evaluation_reserve
    kept = Caps(attempt.limit_usd, attempt.limit_seconds)
    reserve = situation.status.cost.evaluation_reserve_usd if situation.status.cost else None
    if manifest is not None:
        limits = situation.spec.limits
        found = caps(limits, manifest, _ANYTHING, "of the run")
        if isinstance(found, Caps):
            kept = Caps(
                found.cost if found.cost is not None else kept.cost,
                found.runtime if role is Role.TRAIN else kept.runtime,
                found.stop_margin,
                found.cost_name,
            )
    if role is Role.EVALUATE:
        return evaluation_caps(kept, attempt.limit_seconds or 0), 0
    return kept, reserve or 0


def used_by_others(situation: Situation, attempt: Attempt | None, role: RunRole, now: datetime) -> Spend:
    """What all attempts but this one used or may still use; `run_seconds` of the role."""
    others = [
        a for a in situation.status.attempts if attempt is None or (a.role, a.number) != (attempt.role, attempt.number)
    ]
    return committed(others, now, Folded.of(situation.status), role=role)


def _names(profiles: Mapping[str, ProfileFacts]) -> str:
    return ", ".join(sorted(profiles)) or "none at all"
